"""The digital twin of an optical processing unit."""

from odfa.opu.twin.drift import Drift as Drift
from odfa.opu.twin.medium import Medium as Medium
from odfa.opu.twin.mirrors import Mirrors as Mirrors
from odfa.opu.twin.reference import Reference as Reference
from odfa.opu.twin.sensor import Sensor as Sensor
from odfa.opu.twin.settings import TwinSettings as TwinSettings
from odfa.opu.twin.twin import Twin as Twin
