"""Stages 2 to 4 as one fixed linear map: digital, optical, or none."""

from odfa.project.base import AbstractProjection as AbstractProjection
from odfa.project.base import ProjectionSettings as ProjectionSettings
from odfa.project.encoded import Encoded as Encoded
from odfa.project.gaussian import Gaussian as Gaussian
from odfa.project.gaussian import GaussianSettings as GaussianSettings
from odfa.project.guard import DriftWarning as DriftWarning
from odfa.project.guard import Guard as Guard
from odfa.project.hadamard import Hadamard as Hadamard
from odfa.project.hadamard import HadamardSettings as HadamardSettings
from odfa.project.identity import Identity as Identity
from odfa.project.identity import IdentitySettings as IdentitySettings
from odfa.project.optical import Optical as Optical
from odfa.project.optical import OpticalSettings as OpticalSettings
from odfa.project.rademacher import Rademacher as Rademacher
from odfa.project.rademacher import RademacherSettings as RademacherSettings
