"""Stage 4: camera counts in, complex field out."""

from odfa.demodulate.base import AbstractDemodulator as AbstractDemodulator
from odfa.demodulate.phase_steps import PhaseSteps as PhaseSteps
