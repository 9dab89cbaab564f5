"""Stage 4: demodulators, which turn camera counts into a field."""

from odfa.demodulate.anchor import Anchor as Anchor
from odfa.demodulate.anchor import AnchorSettings as AnchorSettings
from odfa.demodulate.base import AbstractDemodulator as AbstractDemodulator
from odfa.demodulate.base import DemodulatorSettings as DemodulatorSettings
from odfa.demodulate.intensity import Intensity as Intensity
from odfa.demodulate.off_axis import OffAxis as OffAxis
from odfa.demodulate.off_axis import OffAxisSettings as OffAxisSettings
from odfa.demodulate.phase_steps import PhaseSteps as PhaseSteps
from odfa.demodulate.phase_steps import PhaseStepsSettings as PhaseStepsSettings
