"""Stage 2: encoders, which turn rows of the error into binary mirror patterns."""

from odfa.encode.base import AbstractEncoder as AbstractEncoder
from odfa.encode.base import EncoderSettings as EncoderSettings
from odfa.encode.bit_planes import BitPlanes as BitPlanes
from odfa.encode.bit_planes import BitPlanesSettings as BitPlanesSettings
from odfa.encode.sign import Sign as Sign
from odfa.encode.sign import SignSettings as SignSettings
from odfa.encode.spread import Spread as Spread
from odfa.encode.spread import SpreadSettings as SpreadSettings
from odfa.encode.ternary import BestCosineSettings as BestCosineSettings
from odfa.encode.ternary import RelativeMaxSettings as RelativeMaxSettings
from odfa.encode.ternary import SampledSettings as SampledSettings
from odfa.encode.ternary import StochasticSettings as StochasticSettings
from odfa.encode.ternary import Ternary as Ternary
from odfa.encode.threshold import Threshold as Threshold
from odfa.encode.trit_planes import TritPlanes as TritPlanes
from odfa.encode.trit_planes import TritPlanesSettings as TritPlanesSettings
