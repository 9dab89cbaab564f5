"""Stage 3: mirrors, medium and camera."""

from odfa.opu.base import AbstractOpu as AbstractOpu
from odfa.opu.bench import AbstractCamera as AbstractCamera
from odfa.opu.bench import AbstractModulator as AbstractModulator
from odfa.opu.bench import AbstractShifter as AbstractShifter
from odfa.opu.bench import Bench as Bench
from odfa.opu.calibration import Calibration as Calibration
from odfa.opu.layout import Layout as Layout
from odfa.opu.registry import TWINS as TWINS
from odfa.opu.registry import list_opus as list_opus
from odfa.opu.registry import open_opu as open_opu
from odfa.opu.twin import Drift as Drift
from odfa.opu.twin import Medium as Medium
from odfa.opu.twin import Mirrors as Mirrors
from odfa.opu.twin import Reference as Reference
from odfa.opu.twin import Sensor as Sensor
from odfa.opu.twin import Twin as Twin
