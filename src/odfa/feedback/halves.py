"""The projected error in the precision of the step."""

from torch import Tensor

from odfa.flow import wide
from odfa.project import AbstractProjection


def projected(projection: AbstractProjection, e_ND: Tensor) -> Tensor:
    """p_NM = e_ND B_DM in float32 or better; a projection that reads half-precision rows gets them as they are.

    Others (encoders, light) get float32 rows. What is read as it is sums in float32 and is rounded once, when the
    product is written.
    """
    reads = projection.reads_half(e_ND.dtype, e_ND.device)
    return wide(projection.project(e_ND if reads else wide(e_ND)))
