"""Stage 3: mirrors, medium and camera."""

from odfa.device.base import AbstractDevice as AbstractDevice
from odfa.device.twin import Reference as Reference
from odfa.device.twin import Sensor as Sensor
from odfa.device.twin import Twin as Twin
