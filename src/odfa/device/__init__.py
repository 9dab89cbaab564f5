"""Stage 3: mirrors, medium and camera."""

from odfa.device.base import AbstractDevice as AbstractDevice
from odfa.device.bench import AbstractCamera as AbstractCamera
from odfa.device.bench import AbstractModulator as AbstractModulator
from odfa.device.bench import AbstractShifter as AbstractShifter
from odfa.device.bench import Bench as Bench
from odfa.device.calibration import Calibration as Calibration
from odfa.device.layout import Layout as Layout
from odfa.device.registry import TWINS as TWINS
from odfa.device.registry import list_devices as list_devices
from odfa.device.registry import open_device as open_device
from odfa.device.twin import Drift as Drift
from odfa.device.twin import Medium as Medium
from odfa.device.twin import Mirrors as Mirrors
from odfa.device.twin import Reference as Reference
from odfa.device.twin import Sensor as Sensor
from odfa.device.twin import Twin as Twin
