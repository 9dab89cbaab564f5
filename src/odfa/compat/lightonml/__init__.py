"""Replacement for the archived library `lightonml`: `from odfa.compat.lightonml import OPU`.

What differs is listed in docs/lightonml.md: where the old library computed something else in silence, this one raises.
"""

from odfa.compat.lightonml.opu import OPU as OPU
from odfa.compat.lightonml.types import OutputRescaling as OutputRescaling
