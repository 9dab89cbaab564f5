"""What a handle prints: which block is fed by what, and what still learns by the true gradient."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from odfa.engine.dfa import DFA


def describe(handle: "DFA") -> str:
    """The status table. Before the first training forward, block membership is read off the module tree."""
    lines = [
        f"DFA on {type(handle.model).__name__}: {len(handle.blocks)} blocks, rule {handle.rule.name} "
        f"({handle.rule.wiring} wiring), error read at {handle.tap}",
        f"feedback: {handle.feedback.description}",
    ]
    if handle.mode != "learn":
        lines.append(f"mode: {handle.mode}")
    named = dict(handle.model.named_parameters())
    fed, shapes = _fed_by_blocks(handle)
    width = max(map(len, handle.blocks))
    lines.append(f"{'block':<{width}}  {'output':<18} {'parameters':>12}  learns by")
    for block in handle.blocks:
        size = sum(named[name].numel() for name in fed.get(block, ()))
        lines.append(f"{block:<{width}}  {shapes.get(block, 'not run yet'):<18} {size:>12,}  {_how(handle, block)}")
    lines += _others(handle, named, fed)
    return "\n".join(lines)


def _fed_by_blocks(handle: "DFA") -> tuple[dict[str, set[str]], dict[str, str]]:
    if handle.members is not None:
        shapes = {block: "x".join(map(str, shape)) for block, shape in handle.members.widths.items()}
        return handle.members.blocks, shapes
    by_id = {id(p): name for name, p in handle.model.named_parameters()}
    inside = {block: {by_id[id(p)] for p in module.parameters()} for block, module in handle.blocks.items()}
    return inside, {}


def _how(handle: "DFA", block: str) -> str:
    if handle.blocks[block] is handle.tap.module:
        return "true gradient (the error is read at its output)"
    if handle.rule.wiring == "none":
        return "nothing: keeps its initial weights"
    return "local gradient of its signal"


def _others(handle: "DFA", named: Mapping[str, object], fed: dict[str, set[str]]) -> list[str]:
    frozen = {name for name, p in handle.model.named_parameters() if not p.requires_grad}
    in_blocks = set().union(*fed.values()) if fed else set()
    if handle.members is None:
        outside = set(named) - in_blocks - frozen
        return [_row("outside the blocks (known after the first training forward)", outside), _row("frozen", frozen)]
    behind = handle.members.behind
    head = {name for name in behind if _in_head(handle, name)}
    exact = (head if handle.rule.wiring == "residual" else behind) | handle.members.ahead
    rows = [
        _row("true gradient", exact - in_blocks),
        _row("true gradient and local gradient (shared weights)", exact & in_blocks),
        _row("signal on its way to the blocks", behind - exact),
        _row("frozen", frozen),
        _row(
            "no gradient: not used on the way to the error, or cut off by the rule",
            set(named) - in_blocks - behind - exact - frozen,
        ),
    ]
    return [row for row in rows if row]


def _in_head(handle: "DFA", name: str) -> bool:
    head_parameters = {id(p) for p in handle.tap.module.parameters()}
    return id(dict(handle.model.named_parameters())[name]) in head_parameters


def _row(label: str, names: set[str]) -> str:
    if not names:
        return ""
    shown = sorted(names)
    more = f", … ({len(shown)} in all)" if len(shown) > 6 else ""
    return f"{label}: {', '.join(shown[:6])}{more}"
