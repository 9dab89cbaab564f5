"""When an optimiser has moved the model's weights, the rules that ask for it are told."""

import weakref
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.hooks import RemovableHandle

from odfa.engine.rules import AbstractFeedback, AbstractRule
from odfa.errors import MatchError


class OptimizerSteps:
    """Listens to all optimisers of the process, and tells the rule at work of steps that move weights of `model`.

    The user's loop names no optimiser to a handle, so torch's hook for all of them is used. `due` is set by every
    backward pass that the rule has answered and cleared by the step: gradient accumulation is one step after several
    backward passes, and of several optimisers the first one that steps counts.
    """

    def __init__(self, model: nn.Module, rule: AbstractRule, at_work: AbstractFeedback) -> None:
        self.model, self.rule, self.at_work = model, rule, at_work
        self.due = False
        self._listening: RemovableHandle | None = None

    def listen(self) -> None:
        """Called when attaching and before every forward pass, so that a copy of an attached model listens too.

        Raises:
            MatchError: an optimiser is fused into backward, so weights move one by one and no step ends.
        """
        if "optimiser step" not in self.rule.needs:
            return
        if any(p._post_accumulate_grad_hooks for p in self.model.parameters()):
            raise MatchError(
                f"rule {self.rule.name} needs the optimiser's step, and a fused optimiser has none: each weight moves "
                "by itself in backward; call its remove() and use an ordinary optimiser"
            )
        if self._listening is None:
            self._listening = register_optimizer_step_post_hook(_Listener(self))

    def stop(self) -> None:
        """Listen no longer."""
        if self._listening is not None:
            self._listening.remove()
            self._listening = None

    @torch.no_grad()
    def stepped(self, optimizer: Optimizer) -> None:
        """An optimiser has stepped, or been asked to."""
        # GradScaler lets optimisers with kernels of their own skip a step by themselves, and tells them so here
        found_inf = getattr(optimizer, "found_inf", None)
        if not self.due or (found_inf is not None and bool(found_inf)):
            return
        ours = {id(p) for p in self.model.parameters()}
        if any(id(p) in ours for group in optimizer.param_groups for p in group["params"]):
            self.due = False
            self.at_work.stepped(optimizer)

    def __getstate__(self) -> dict[str, Any]:
        """A copy has to register itself."""
        return {**self.__dict__, "_listening": None}


class _Listener:
    """Does not keep the handle alive: the hook is the process's, and a model may be dropped without `remove()`."""

    def __init__(self, steps: OptimizerSteps) -> None:
        self._steps = weakref.ref(steps)

    def __call__(self, optimizer: Optimizer, _args: tuple[Any, ...], _kwargs: dict[str, Any]) -> None:
        steps = self._steps()
        if steps is not None:
            steps.stepped(optimizer)
