"""Which modules are blocks: by pattern, by list, or found by itself."""

import re
from collections.abc import Sequence
from difflib import get_close_matches

from torch import nn

from odfa.engine.finding import find_blocks, held
from odfa.error.head import never_called
from odfa.errors import MatchError
from odfa.feedback import described

_NUMBERS = (r"(?<=\.)\d+(?=\.|$)|^\d+(?=\.|$)", r"(?<=\.)\d+(?=\.)|^\d+(?=\.)")
"""Parts of a dotted name that are numbers: all, and all but the last."""

Blocks = str | Sequence[str] | Sequence[nn.Module] | None


def match_blocks(model: nn.Module, blocks: Blocks) -> dict[str, nn.Module]:
    """Qualified name → block, in the order given, within a pattern in the order of registration.

    In a pattern `*` stands for one part of a dotted name and `**` for any number: "transformer.h.*" is each block of
    GPT-2, not the modules inside. None looks for the stacks that a model is made of (see `find_blocks`).

    Raises:
        MatchError: nothing matched, two patterns matched one module, one block lies inside another, or is a list that
            is never called.
    """
    names = {name: module for name, module in model.named_modules() if name}
    if blocks is None:
        found = find_blocks(model)
        if not found:
            raise MatchError(
                f"no blocks found in {type(model).__name__}: expected layers with weights in front of a head, the last "
                "layer; put a head behind the model, nn.Sequential(model, head), or train it without DFA"
            )
    elif isinstance(blocks, str):
        found = _by_pattern([blocks], names)
    elif not blocks:
        raise MatchError("blocks is an empty list; give a pattern, modules, or None to have them found")
    elif all(isinstance(item, str) for item in blocks):
        found = _by_pattern([item for item in blocks if isinstance(item, str)], names)
    else:
        found = _by_module([item for item in blocks if isinstance(item, nn.Module)], names, len(blocks))
    _refuse_nested(found)
    _refuse_never_called(found, names)
    return found


def match_inside(model: nn.Module, patterns: str | Sequence[str], blocks: dict[str, nn.Module]) -> dict[str, nn.Module]:
    """Qualified name → module inside a block.

    Raises:
        MatchError: a pattern matches nothing, a list that is never called, or a module that is not inside a block.
    """
    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    names = {name: module for name, module in model.named_modules() if name}
    found = _by_pattern(patterns, names)
    _refuse_never_called(found, names)
    for name in found:
        if not any(name.startswith(f"{block}.") for block in blocks):
            raise MatchError(f"{name} is not inside a block; the blocks are {', '.join(list(blocks)[:3])}")
    return found


def _by_pattern(patterns: list[str], names: dict[str, nn.Module]) -> dict[str, nn.Module]:
    found: dict[str, str] = {}
    for pattern in patterns:
        matched = described(pattern, names)
        if not matched:
            called = [name for name, module in names.items() if not never_called(module)]
            near = get_close_matches(pattern, called, n=3, cutoff=0.3) or called[:3]
            raise MatchError(f"{pattern!r} matches no module; the nearest names are {', '.join(near)}")
        for name in matched:
            if name in found:
                raise MatchError(f"block {name} is matched twice, by {found[name]!r} and {pattern!r}; keep one of them")
            found[name] = pattern
    return {name: names[name] for name in found}


def _by_module(modules: list[nn.Module], names: dict[str, nn.Module], given: int) -> dict[str, nn.Module]:
    by_id = {id(module): name for name, module in names.items()}
    if len(modules) != given:
        raise MatchError("a list of blocks must hold patterns only or modules only")
    strange = [type(module).__name__ for module in modules if id(module) not in by_id]
    if strange:
        raise MatchError(f"{', '.join(strange)} given as block is not inside the model; pass modules of this model")
    if len({id(module) for module in modules}) != len(modules):
        raise MatchError("the list of blocks holds the same module twice; list it once (its calls are told apart)")
    return {by_id[id(module)]: module for module in modules}


def _refuse_nested(found: dict[str, nn.Module]) -> None:
    owners = {id(module): name for name, module in found.items()}
    for name, module in found.items():
        if never_called(module):
            continue
        for child in module.modules():
            if child is not module and id(child) in owners:
                raise MatchError(f"block {owners[id(child)]} lies inside block {name}; choose one level")


def _refuse_never_called(found: dict[str, nn.Module], names: dict[str, nn.Module]) -> None:
    strange = [name for name, module in found.items() if never_called(module)]
    if not strange:
        return
    right = {
        inner: module
        for name, block in found.items()
        for inner, module in (held(name, block) if never_called(block) else [(name, block)])
    }
    kind = f"{strange[0]} is a {type(found[strange[0]]).__name__}, which is never called itself"
    if not right:
        raise MatchError(f"{kind}, and holds no module with weights that is; name modules that the model calls")
    raise MatchError(f"{kind}; name what is called: {_as_patterns(list(right), names)}")


def _as_patterns(chosen: list[str], names: dict[str, nn.Module]) -> list[str]:
    """The shortest list of patterns that match exactly the chosen names."""
    starred = [list(dict.fromkeys(re.sub(parts, "*", name) for name in chosen)) for parts in _NUMBERS]
    for patterns in starred:
        if sorted(name for pattern in patterns for name in described(pattern, names)) == sorted(chosen):
            return patterns
    return chosen
