"""Which modules are blocks: by pattern, by list, or found by itself."""

from collections.abc import Iterator, Sequence
from difflib import get_close_matches

from torch import nn

from odfa.errors import MatchError
from odfa.feedback import matches

Blocks = str | Sequence[str] | Sequence[nn.Module] | None


def match_blocks(model: nn.Module, blocks: Blocks) -> dict[str, nn.Module]:
    """Qualified name → block, in the order given, within a pattern in the order of registration.

    In a pattern `*` stands for one part of a dotted name and `**` for any number: "transformer.h.*" is each block of
    GPT-2, not the modules inside. None looks for the model's repeated modules.

    Raises:
        MatchError: nothing matched, two patterns matched one module, or one block lies inside another.
    """
    names = {name: module for name, module in model.named_modules() if name}
    if blocks is None:
        found = dict(_find_blocks(model))
        if not found:
            raise MatchError(
                "no repeated modules found; name the blocks, e.g. blocks='layers.*' or blocks=[model.a, model.b]"
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
    return found


def match_inside(model: nn.Module, patterns: str | Sequence[str], blocks: dict[str, nn.Module]) -> dict[str, nn.Module]:
    """Qualified name → module inside a block.

    Raises:
        MatchError: a pattern matches nothing, or a module that is not inside a block.
    """
    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    found = _by_pattern(patterns, {name: module for name, module in model.named_modules() if name})
    for name in found:
        if not any(name.startswith(f"{block}.") for block in blocks):
            raise MatchError(f"{name} is not inside a block; the blocks are {', '.join(list(blocks)[:3])}")
    return found


def _by_pattern(patterns: list[str], names: dict[str, nn.Module]) -> dict[str, nn.Module]:
    found: dict[str, str] = {}
    for pattern in patterns:
        matched = [name for name in names if matches(pattern, name)]
        if not matched:
            near = get_close_matches(pattern, names, n=3, cutoff=0.3) or list(names)[:3]
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
        for child in module.modules():
            if child is not module and id(child) in owners:
                raise MatchError(f"block {owners[id(child)]} lies inside block {name}; choose one level")


def _weighty(module: nn.Module) -> bool:
    return any(p.ndim >= 2 for p in module.parameters())


def _find_blocks(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Items of the outermost lists of modules that hold a good part of the weights.

    A `Sequential` is cut before each child with a weight matrix, so that Linear-Tanh pairs stay together; if it is the
    whole model, its last group is the head.
    """
    stacks = [(name, module) for name, module in _outermost_stacks("", model)]
    sizes = [sum(p.numel() for p in module.parameters()) for _, module in stacks]
    for (name, stack), size in zip(stacks, sizes, strict=True):
        if size < max(sizes) / 8:
            continue
        prefix = f"{name}." if name else ""
        if isinstance(stack, nn.ModuleList):
            yield from ((prefix + key, child) for key, child in stack.named_children() if _weighty(child))
        else:
            ends = _group_ends(stack)
            yield from ((prefix + key, child) for key, child in (ends[:-1] if stack is model else ends))


def _outermost_stacks(name: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    if isinstance(module, (nn.ModuleList, nn.Sequential)) and sum(map(_weighty, module.children())) >= 2:
        yield name, module
        return
    for key, child in module.named_children():
        yield from _outermost_stacks(f"{name}.{key}" if name else key, child)


def _group_ends(stack: nn.Module) -> list[tuple[str, nn.Module]]:
    ends: list[tuple[str, nn.Module]] = []
    for key, child in stack.named_children():
        if _weighty(child):
            ends.append((key, child))
        elif ends:
            ends[-1] = (key, child)
    return ends
