"""What the residual rules share: a read-out that starts from a projection's measured matrix."""

import torch
from torch import Tensor, nn

from odfa.engine.tensors import is_spread
from odfa.errors import ConfigError, MatchError
from odfa.project import AbstractProjection

_ROWS_AT_A_TIME = 256
"""One-hot rows that are projected at once: their patterns would take the square of a vocabulary."""


class Readout:
    """The head's weight as W_VK, set to its start value a B^T in units where W^T e needs no further scale.

    start_VK = scale / sqrt(K) * B_VK, so that normalised inputs give logits of standard deviation `scale` at the start.
    """

    def __init__(
        self,
        projection: AbstractProjection,
        model: nn.Module,
        head: nn.Module,
        scale: float,
        rank: int,
        *,
        overwrite: bool = False,
    ) -> None:
        _check_head(model, head)
        if not overwrite:
            _refuse_trained(model, head)
        self.head, self.transposed = head, type(head).__name__ == "Conv1D"
        num_outputs, width = self.matrix_VK.shape
        if not scale > 0:
            raise ConfigError(f"an aligned read-out needs scale > 0, got {scale}")
        if rank < 0 or rank >= min(num_outputs, width):
            raise ConfigError(
                f"rank={rank} does not fit a read-out of {num_outputs} x {width}: from {min(num_outputs, width)} the "
                "electronic part would be the exact product; take an eighth of the smaller side or less"
            )
        self.projection = projection.shaped(num_outputs, width)
        self.gain = scale / (1.0 if projection.isometric else width**0.5)
        self.start_VK = self.gain * measure(self.projection).to(self.matrix_VK)
        weight = self._weight()
        with torch.no_grad():
            weight.copy_(self._as_weight(self.start_VK))

    @property
    def matrix_VK(self) -> Tensor:
        """The read-out as it is now, in float32 or better (looked up each time: loading weights may replace it)."""
        weight = self._weight().detach()
        weight = weight if weight.dtype == torch.float64 else weight.float()
        return weight.T if self.transposed else weight

    @property
    def drift_VK(self) -> Tensor:
        """How far the read-out has moved from its start."""
        return self.matrix_VK - self.start_VK.to(self.matrix_VK)

    @property
    def at_start(self) -> bool:
        """True if the head holds exactly its start values."""
        return torch.equal(self._weight().detach(), self._as_weight(self.start_VK))

    def _as_weight(self, matrix_VK: Tensor) -> Tensor:
        return (matrix_VK.T if self.transposed else matrix_VK).to(self._weight())

    def _weight(self) -> Tensor:
        weight: Tensor = self.head.weight  # type: ignore[assignment]
        return weight


def measure(projection: AbstractProjection) -> Tensor:
    """B_VK row by row: read where the projection can tell, otherwise measured by projecting one-hot rows."""
    assert projection.num_inputs is not None
    try:
        return projection.matrix()
    except ConfigError:
        places = torch.split(torch.arange(projection.num_inputs), _ROWS_AT_A_TIME)
        one_hot = torch.nn.functional.one_hot
        return torch.cat([projection.project(one_hot(place_n, projection.num_inputs).float()) for place_n in places])


def _check_head(model: nn.Module, head: nn.Module) -> None:
    weight = getattr(head, "weight", None)
    if not isinstance(weight, nn.Parameter) or weight.ndim != 2:
        raise MatchError(
            f"an aligned read-out needs a head with a weight matrix, got {type(head).__name__}; use RandomFeedback()"
        )
    if is_spread(weight):
        raise MatchError(
            "an aligned read-out needs the head's whole weight, got a DTensor, which is spread over processes; use "
            "RandomFeedback()"
        )
    holders = [m for m in model.modules() if any(p is weight for p in m.parameters(recurse=False))]
    if len(holders) > 1:
        raise MatchError(
            "the head shares its weight with another module (tied embeddings), which would be overwritten too; "
            "build the model untied (tie_word_embeddings=False) or use RandomFeedback()"
        )


def _refuse_trained(model: nn.Module, head: nn.Module) -> None:
    """Weights that no usual initialisation makes have been trained, and setting them to a start value loses that.

    Fresh are constants, torch's uniform start |w| <= 1/sqrt(K), and independent entries of a usual standard deviation:
    the largest singular value of those stays close to sigma (sqrt(V) + sqrt(K)) (Marchenko and Pastur).
    """
    weight: Tensor = head.weight.detach()  # type: ignore[operator]
    if weight.is_meta or not weight.numel() or bool((weight == weight.flatten()[0]).all()):
        return
    weight_VK = (weight.T if type(head).__name__ == "Conv1D" else weight).float()
    num_outputs, width = weight_VK.shape
    if weight_VK.abs().max().item() <= width**-0.5 * (1 + 1e-3):
        return
    sigma = weight_VK.square().mean().sqrt().item()
    declared = getattr(getattr(model, "config", None), "initializer_range", 0.02)
    usual = (declared, 0.02, (2 / (num_outputs + width)) ** 0.5, (2 / width) ** 0.5, (1 / width) ** 0.5)
    expected = any(abs(sigma / one - 1) < 0.15 for one in usual if isinstance(one, float))
    if expected and _largest_singular(weight_VK) < sigma * (num_outputs**0.5 + width**0.5 + 1.5):
        return
    raise MatchError(
        "the head holds weights that look trained, and this rule sets them to a start value when it is attached; say "
        "overwrite=True in the rule to lose them, or use RandomFeedback(), which leaves the head as it is"
    )


def _largest_singular(matrix_VK: Tensor) -> float:
    """By power iteration: never above the true one."""
    v_K = torch.linspace(1, 2, matrix_VK.shape[1], device=matrix_VK.device).sin()
    for _ in range(30):
        v_K = torch.nn.functional.normalize(matrix_VK.T @ (matrix_VK @ v_K), dim=0)
    return float(torch.linalg.vector_norm(matrix_VK @ v_K))
