"""Blocks keep their inputs only, and run again in backward."""

from collections.abc import Generator, Mapping
from typing import Any

from torch import nn
from torch.utils.checkpoint import _checkpoint_without_reentrant_generator, noop_context_fn

from odfa.engine.executions.base import AbstractExecution, Running, refuse_cache
from odfa.engine.wirings import AbstractWiring

Recomputation = Generator[None, None, None]


class Recompute(AbstractExecution):
    """torch's checkpointing without reentrance around each block: autograd calls the block again for what it saved.

    The graph is the same as if blocks kept everything, so gates and wirings see no difference.
    """

    runs_blocks_again = True

    def __init__(
        self, handle: Running, wiring: AbstractWiring, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        super().__init__(handle, wiring, args, kwargs)
        self._open: list[Recomputation] = []

    def before_block(
        self, name: str, block: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, watching: bool
    ) -> None:
        """Begin to save inputs in place of activations.

        Raises:
            MatchError: the block writes to a key-value cache.
        """
        if watching:
            return
        refuse_cache(name, kwargs)
        # positional: preserve_rng_state, context_fn, determinism_check, debug, early_stop
        running: Recomputation = _checkpoint_without_reentrant_generator(
            block, True, noop_context_fn, "default", False, True, *args, **kwargs
        )
        next(running)
        self._open.append(running)

    def after_block(self, *, watching: bool) -> bool:
        """End what `before_block` began. The block has a graph, whose saved tensors torch will compute again."""
        if self._open:
            next(self._open.pop(), None)
        return False

    def close(self) -> None:
        """End what an interrupted forward pass left open, newest first."""
        while self._open:
            self._open.pop().close()
