"""Training with less memory: each parameter is updated as soon as its gradient is ready, which is then freed."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from odfa.errors import CheckpointError, ConfigError


class FusedOptimizer:
    """One small optimiser per parameter, run inside backward; made by `fuse_optimizer`."""

    def __init__(
        self,
        model: nn.Module,
        make_optimizer: Callable[[list[nn.Parameter]], Optimizer],
        clip_each: float | None = None,
    ) -> None:
        self.optimizers = {name: make_optimizer([p]) for name, p in model.named_parameters() if p.requires_grad}
        if not self.optimizers:
            raise ConfigError("no parameter of the model requires a gradient; nothing to optimise")
        parameters = dict(model.named_parameters())
        self._removable: list[RemovableHandle] = [
            parameters[name].register_post_accumulate_grad_hook(partial(_update, optimizer, clip_each))  # type: ignore[no-untyped-call]
            for name, optimizer in self.optimizers.items()
        ]

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """All parameter groups, to read or set learning rates."""
        return [group for optimizer in self.optimizers.values() for group in optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """State by parameter name."""
        return {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore.

        Raises:
            CheckpointError: the state belongs to other parameters.
        """
        if state.keys() != self.optimizers.keys():
            odd = sorted(state.keys() ^ self.optimizers.keys())[:3]
            raise CheckpointError(f"the optimiser state and the model differ in {', '.join(odd)}")
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state[name])

    def remove(self) -> None:
        """Take the updates out of backward; gradients accumulate again."""
        for removable in self._removable:
            removable.remove()
        self._removable.clear()


def fuse_optimizer(
    model: nn.Module,
    make_optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
    *,
    clip_each: float | None = None,
) -> FusedOptimizer:
    """Update each parameter when its gradient is ready, then free the gradient: one gradient alive at a time.

    `make_optimizer` makes an optimiser of a list of one parameter, e.g. `lambda p: torch.optim.Adam(p, lr=1e-3)`. After
    that `loss.backward()` is the whole step. Gradients cannot be accumulated over steps or clipped together.

    Args:
        clip_each: a gradient of larger norm is scaled down to it, each parameter's by itself.

    Raises:
        ConfigError: nothing in the model requires a gradient.
    """
    return FusedOptimizer(model, make_optimizer, clip_each)


def _update(optimizer: Optimizer, clip_each: float | None, parameter: nn.Parameter) -> None:
    if clip_each is not None:
        nn.utils.clip_grad_norm_(parameter, clip_each)
    optimizer.step()
    parameter.grad = None
