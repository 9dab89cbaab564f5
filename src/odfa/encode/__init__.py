"""Stage 2: error rows in, binary mirror patterns out."""

from odfa.encode.base import AbstractEncoder as AbstractEncoder
from odfa.encode.bit_planes import BitPlanes as BitPlanes
from odfa.encode.sign import Sign as Sign
from odfa.encode.ternary import Ternary as Ternary
from odfa.encode.threshold import Threshold as Threshold
