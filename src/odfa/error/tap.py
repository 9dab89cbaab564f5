"""Finding the place where the output error is read."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from torch import nn

from odfa.error.head import called_modules, find_head, modules_behind
from odfa.errors import MatchError


@dataclass(frozen=True)
class Tap:
    """The input or output of one module, by its qualified name ("" is the model itself)."""

    name: str
    module: nn.Module
    side: Literal["input", "output"]

    def __str__(self) -> str:
        return f"{self.name or 'model'}:{self.side}"


def find_taps(model: nn.Module, error_at: str | Sequence[str], blocks: Collection[nn.Module]) -> tuple[Tap, ...]:
    """The tap of one place, or the taps of several, one for each head.

    Raises:
        MatchError: no such module, no head behind the blocks, no place at all, or one place twice.
    """
    places = [error_at] if isinstance(error_at, str) else list(error_at)
    taps = tuple(find_tap(model, place, blocks) for place in places)
    if not taps or len({(tap.module, tap.side) for tap in taps}) < len(taps):
        raise MatchError(f"error_at={error_at!r}: expected one place or several different ones")
    return taps


def find_tap(model: nn.Module, error_at: str, blocks: Collection[nn.Module]) -> Tap:
    """The tap that `error_at` names: "logits", "head_input", "output", a module's name, or "name:input".

    "logits" is the output of the head: the model's output embeddings where it declares them, otherwise the last layer
    with weights that lies behind the blocks. "output" is what the model itself returns.

    Raises:
        MatchError: no such module, or no head behind the blocks.
    """
    if error_at == "output":
        return Tap("", model, "output")
    if error_at in ("logits", "head_input"):
        name, head = _head_behind(model, blocks)
        return Tap(name, head, "output" if error_at == "logits" else "input")
    name, _, side = error_at.partition(":")
    modules = dict(called_modules(model))
    if name not in modules or side not in ("", "input", "output"):
        behind = list(modules_behind(model, blocks))
        near = get_close_matches(name, behind, n=3) or behind[-3:] or ["none"]
        raise MatchError(
            f"error_at={error_at!r} names no place: expected 'logits', 'head_input', 'output' or "
            f"MODULE[:input|:output] with a module behind the blocks: {', '.join(near)}"
        )
    return Tap(name, modules[name], "input" if side == "input" else "output")


def _head_behind(model: nn.Module, blocks: Collection[nn.Module]) -> tuple[str, nn.Module]:
    head = find_head(model, blocks)
    if head is not None:
        return head
    own = {id(block) for block in blocks}
    last = [name for name, module in model.named_modules() if id(module) in own][-1]
    if len(blocks) == 1:
        raise MatchError(
            f"no layer with weights lies behind the only block, {last}, so that there is no head to read the error at; "
            "leave blocks= out to have them found"
        )
    raise MatchError(
        "no layer with weights lies behind the last block, so that there is no head to read the error at; "
        f"leave {last} out of the blocks, and it is the head"
    )
