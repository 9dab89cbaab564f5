"""What a handle prints: which block is fed by what, and what still learns by the true gradient."""

from collections.abc import Mapping

from torch import nn

from odfa.engine.handle import Handle


def describe(handle: Handle) -> str:
    """The status table. Before the first training forward, block membership is read off the module tree."""
    named = dict(handle.model.named_parameters())
    fed, shapes = _fed_by_blocks(handle)
    width = max(map(len, handle.blocks))
    lines = [
        f"DFA on {type(handle.model).__name__}: {len(handle.blocks)} blocks, rule {handle.rule.name} "
        f"({handle.rule.wiring.name} wiring), error read at {' and '.join(map(str, handle.taps))}",
        f"feedback: {handle.at_work.description}",
        *([f"cut inside blocks before: {', '.join(handle.branches)}"] if handle.branches else []),
        *(
            [f"mean weight of all blocks instead of their own in: {', '.join(handle.linears.layers)}"]
            if handle.linears.layers
            else []
        ),
        *([] if handle.compiled is None else [f"each block compiled by {handle.compiled.backend}"]),
        *_around(handle),
        *_hops(handle, fed, named),
        *([] if handle.mode == "learn" else [f"mode: {handle.mode}"]),
        f"{'block':<{width}}  {'output':<18} {'parameters':>12}  learns by",
    ]
    for block in handle.blocks:
        size = sum(named[name].numel() for name in fed.get(block, ()))
        lines.append(f"{block:<{width}}  {shapes.get(block, 'not run yet'):<18} {size:>12,}  {_how(handle, block)}")
    return "\n".join(lines + [_row(label, names) for label, names in _others(handle, fed).items() if names])


def _around(handle: Handle) -> list[str]:
    members = handle.members
    if members is None or not members.around:
        return []
    return [
        f"around the blocks: {members.residuals} residuals that get the signal of the block they lead around, "
        f"{members.severed} other ways that are cut"
    ]


def _hops(handle: Handle, fed: Mapping[str, set[str]], named: Mapping[str, nn.Parameter]) -> list[str]:
    times, crossed = handle.rule.crossings, list(handle.blocks)[1:]
    if not times:
        return []
    size = sum(named[name].numel() for block in crossed for name in fed.get(block, ()))
    every = handle.rule.crossed_every
    seldom = "" if every == 1 else f", in one of {every} backward passes, times {every}"
    return [
        f"hops of credit: {times}, electronic{seldom}; each takes the gradients at the inputs of {len(crossed)} blocks "
        f"with {size:,} parameters"
    ]


def _fed_by_blocks(handle: Handle) -> tuple[dict[str, set[str]], dict[str, str]]:
    by_id = {id(p): name for name, p in handle.model.named_parameters()}
    inside = {
        block: {by_id[id(p)] for p in module.parameters() if id(p) in by_id} for block, module in handle.blocks.items()
    }
    if handle.members is None:
        return inside, {}
    shapes = {block: "x".join(map(str, shape)) for block, shape in handle.members.shapes.items()}
    return (handle.members.blocks if handle.rule.wiring.feeds else inside), shapes


def _how(handle: Handle, block: str) -> str:
    if handle.blocks[block] is handle.tap.module:
        return "true gradient (the error is read at its output)"
    if not handle.rule.wiring.feeds:
        return "nothing: keeps its initial weights"
    return "local gradient of its signal"


def _others(handle: Handle, fed: dict[str, set[str]]) -> dict[str, set[str]]:
    trained = {name for name, p in handle.model.named_parameters() if p.requires_grad}
    frozen = {name for name, _ in handle.model.named_parameters()} - trained
    in_blocks: set[str] = set().union(*fed.values()) if handle.rule.wiring.feeds else set()
    if handle.members is None:
        outside = trained - set().union(*fed.values())
        return {"outside the blocks (known after the first training forward)": outside, "frozen": frozen}
    by_id = {id(p): name for name, p in handle.model.named_parameters()}
    # where the signal enters at the head's input, only the head and what follows it learn by the true gradient
    head = {by_id[id(p)] for p in handle.tap.module.parameters() if id(p) in by_id}
    behind = handle.members.behind
    exact = (behind & head if handle.rule.wiring.reads_head_input else behind) | handle.members.ahead
    none = "no gradient: not used on the way to the error, or cut off by the rule"
    return {
        "true gradient": exact - in_blocks,
        "true gradient and local gradient (shared weights)": exact & in_blocks,
        "signal on its way to the blocks": behind - exact,
        "frozen": frozen,
        "not traced (hidden by recomputation or sharding)" if handle.members.hidden else none: trained
        - in_blocks
        - behind
        - exact,
    }


def _row(label: str, names: set[str]) -> str:
    shown = sorted(names)
    more = f", … ({len(shown)} in all)" if len(shown) > 6 else ""
    return f"{label}: {', '.join(shown[:6])}{more}"
