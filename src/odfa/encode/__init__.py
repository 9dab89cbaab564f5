"""Stage 2: error rows in, binary mirror patterns out."""

from odfa.encode.base import AbstractEncoder as AbstractEncoder
from odfa.encode.ternary import Ternary as Ternary
