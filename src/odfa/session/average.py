"""An exponential moving average of the weights for evaluation, whose decay rises with the number of updates."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def averaged(model: nn.Module, decay: float) -> AveragedModel:
    """A copy of `model` whose weights m move towards those of `model`, w, at each `update_parameters`.

        m ← d m + (1 - d) w,   d = min(decay, (1 + n) / (10 + n)),   n: number of updates so far

    With the full decay from the start, the random initial weights would dominate the average for about 1 / (1 - decay)
    updates. Source of the rising decay: TensorFlow's ExponentialMovingAverage.
    """
    return AveragedModel(model, multi_avg_fn=_follow(decay))


def _follow(decay: float) -> Callable[[Sequence[Tensor], Sequence[Tensor], Tensor | int], None]:
    @torch.no_grad()
    def follow(mean: Sequence[Tensor], new: Sequence[Tensor], count: Tensor | int) -> None:
        num = int(count)
        torch._foreach_lerp_(list(mean), list(new), 1 - min(decay, (1 + num) / (10 + num)))

    return follow
