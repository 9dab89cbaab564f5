"""An exponential moving average of the weights, for evaluation: torch's, with a decay that grows into its value."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def averaged(model: nn.Module, decay: float) -> AveragedModel:
    """A copy of `model` that follows it by `update_parameters`: m ← d m + (1 - d) w.

        d = min(decay, (1 + n) / (10 + n))

    n counts the updates: an average over long times would stay near random weights for as long. Source of the growing
    decay: TensorFlow's ExponentialMovingAverage.
    """
    return AveragedModel(model, multi_avg_fn=_follow(decay))


def _follow(decay: float) -> Callable[[Sequence[Tensor], Sequence[Tensor], Any], None]:
    @torch.no_grad()
    def follow(mean: Sequence[Tensor], new: Sequence[Tensor], count: Any) -> None:
        num = int(count)
        torch._foreach_lerp_(list(mean), list(new), 1 - min(decay, (1 + num) / (10 + num)))

    return follow
