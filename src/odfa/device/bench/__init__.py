"""Mirrors and a camera of one's own."""

from odfa.device.bench.bench import Bench as Bench
from odfa.device.bench.parts import AbstractCamera as AbstractCamera
from odfa.device.bench.parts import AbstractModulator as AbstractModulator
from odfa.device.bench.parts import AbstractShifter as AbstractShifter
