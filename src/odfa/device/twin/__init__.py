"""The digital twin of an optical processing unit."""

from odfa.device.twin.drift import Drift as Drift
from odfa.device.twin.medium import Medium as Medium
from odfa.device.twin.mirrors import Mirrors as Mirrors
from odfa.device.twin.reference import Reference as Reference
from odfa.device.twin.sensor import Sensor as Sensor
from odfa.device.twin.twin import Twin as Twin
