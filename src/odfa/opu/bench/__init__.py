"""Mirrors and a camera of one's own, joined into an OPU."""

from odfa.opu.bench.bench import Bench as Bench
from odfa.opu.bench.parts import AbstractCamera as AbstractCamera
from odfa.opu.bench.parts import AbstractModulator as AbstractModulator
from odfa.opu.bench.parts import AbstractShifter as AbstractShifter
