"""The digital twin of an optical processing unit."""

from odfa.device.twin.reference import Reference as Reference
from odfa.device.twin.sensor import Sensor as Sensor
from odfa.device.twin.twin import Twin as Twin
