"""Finding the place where the output error is read."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from torch import nn

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
    """Resolve one place, or several for several heads.

    Raises:
        MatchError: no such module, no head behind the blocks, no place at all, or one place twice.
    """
    places = [error_at] if isinstance(error_at, str) else list(error_at)
    taps = tuple(find_tap(model, place, blocks) for place in places)
    if not taps or len({(tap.module, tap.side) for tap in taps}) < len(taps):
        raise MatchError(f"error_at={error_at!r}: expected one place or several different ones")
    return taps


def find_tap(model: nn.Module, error_at: str, blocks: Collection[nn.Module]) -> Tap:
    """Resolve `error_at`: "logits", "head_input", "output", a module's name, or "name:input".

    "logits" is the output of the head: the model's output embeddings where it declares them, otherwise the last
    module with a weight matrix that lies behind the blocks. "output" is what the model itself returns.

    Raises:
        MatchError: no such module, or no head behind the blocks.
    """
    if error_at == "output":
        return Tap("", model, "output")
    if error_at in ("logits", "head_input"):
        name, head = _find_head(model, blocks)
        return Tap(name, head, "output" if error_at == "logits" else "input")
    name, _, side = error_at.partition(":")
    modules = dict(model.named_modules())
    if name not in modules or side not in ("", "input", "output"):
        near = get_close_matches(name, modules, n=3) or sorted(n for n in modules if n)[:3]
        raise MatchError(
            f"error_at={error_at!r} names no place: expected 'logits', 'head_input', 'output' or "
            f"MODULE[:input|:output] with a module such as {', '.join(near)}"
        )
    return Tap(name, modules[name], "input" if side == "input" else "output")


def _find_head(model: nn.Module, blocks: Collection[nn.Module]) -> tuple[str, nn.Module]:
    inside = {id(child) for block in blocks for child in block.modules()}
    declared = getattr(model, "get_output_embeddings", None)
    head = declared() if callable(declared) else None
    names = {id(module): name for name, module in model.named_modules()}
    if isinstance(head, nn.Module) and id(head) in names:
        return names[id(head)], head
    behind: tuple[str, nn.Module] | None = None
    for name, module in model.named_modules():
        if id(module) in inside:
            behind = None
        elif any(p.ndim >= 2 for p in module.parameters(recurse=False)):
            behind = (name, module)
    if behind is None:
        raise MatchError(
            "no module with a weight matrix lies behind the blocks; say where the error is read, "
            "e.g. error_at='output' (what the model returns) or error_at='NAME_OF_THE_HEAD'"
        )
    return behind
