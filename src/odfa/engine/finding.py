"""Finding a model's blocks in its module tree: the stacks of modules that run one after another.

A stack is a list of modules, a `Sequential`, or modules of one kind that are numbered (layer1, layer2). Whatever wraps
a stack is looked through; whatever only holds modules (lists of lists) is never called and never a block.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from torch import nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import is_lazy

from odfa.error.head import called_modules, find_head, holds_matrix, is_chain, never_called, parts, weight_layers

Named = dict[str, nn.Module]

_SIDE = 8
"""Linear stacks with less than an eighth of the largest stack's weights embed a time, a label or a place."""
_BULK = 0.75
"""A single block in front of a head is a wrapper if the stacks inside it hold this share of its weights."""


@dataclass(frozen=True)
class _Stack:
    """Blocks that belong together, and the modules that hold all their weights."""

    owner: str
    """The called module in which the stack lies."""
    name: str
    blocks: Named
    held_by: list[nn.Module]
    beside: bool = False
    """The blocks cannot read one another: they are heads, or entrances."""

    @property
    def size(self) -> int:
        """Number of weights in all blocks."""
        return sum(map(_size, self.held_by))

    @property
    def bare(self) -> bool:
        """Layers only, which are neither `Sequential` nor more than layers; or one `Sequential` of such."""
        return not any(is_chain(block) or _composite(block) for block in self.blocks.values())

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The weights of all blocks."""
        return [p for module in self.held_by for p in module.parameters()]


def find_blocks(model: nn.Module) -> Named:
    """Name → block, in the order of registration; empty if there is nothing in front of a head.

    If no layer with weights lies behind the blocks, the last of them is the head and not a block. So is the end of a
    stack that no layer behind it could read, such as a critic's in front of an actor.
    """
    found = _looked_through(_blocks(_main("", model)) or _layers("", model), model)
    found = {name: found[name] for name, _ in called_modules(model) if name in found}
    for name in _unread(found, model):
        del found[name]
    if found and not _has_head(model, found):
        found.popitem()
    return _looked_through(found, model)


def _has_head(model: nn.Module, blocks: Named) -> bool:
    """Whether a head lies behind the blocks; a frozen model beside the one that is trained holds none."""
    head = find_head(model, blocks.values())
    if head is None:
        return False
    prefix, keys = "", head[0].split(".")
    while keys and any(name.startswith(prefix) for name in blocks):
        prefix += f"{keys.pop(0)}."
    apart = model.get_submodule(prefix[:-1])
    frozen = not any(p.requires_grad for p in apart.parameters())
    return not (frozen and any(p.requires_grad for b in blocks.values() for p in b.parameters()) and _main("", apart))


def _unread(found: Named, model: nn.Module) -> set[str]:
    """Linear ends of a `Sequential` whose width none of the layers behind it reads, all linear as well."""
    known = list(called_modules(model))
    place = {id(module): i for i, (_, module) in enumerate(known)}
    above = {name: name.rpartition(".")[0] for name in found}
    ends = [a for a, b in pairwise(found) if above[a] != above[b] and is_chain(model.get_submodule(above[a]))]
    unread = set()
    for name in ends:
        if _composite(found[name]):
            continue
        end = max(place[id(module)] for _, module in called_modules(found[name]))
        *_, last = [layer for _, layer in known[: end + 1] if holds_matrix(layer)]
        behind = [layer for _, layer in known[end + 1 :] if holds_matrix(layer)]
        if isinstance(last, nn.Linear) and all(
            isinstance(layer, nn.Linear) and layer.in_features not in (0, last.out_features) for layer in behind
        ):
            unread.add(name)
    return unread


def _looked_through(found: Named, model: nn.Module) -> Named:
    """A single block that wraps stacks is replaced by what they hold; with no head behind it, any single block."""
    while len(found) == 1:
        ((name, block),) = found.items()
        if is_chain(block):
            inner = dict(_groups(name, block))
        else:
            stacks = _main(name, block)
            inner = _blocks(stacks)
            if find_head(model, [block]) is None:
                inner = inner or _layers(name, block)
            elif sum(stack.size for stack in stacks) < _BULK * _size(block):
                inner = {}
        if not inner or list(inner.values()) == [block]:
            break
        found = inner
    return found


def _blocks(stacks: list[_Stack]) -> Named:
    """Each block once, and nothing inside another block."""
    found: dict[int, tuple[str, nn.Module]] = {}
    for stack in stacks:
        for name, block in stack.blocks.items():
            found.setdefault(id(block), (name, block))
    inside = {id(m) for _, block in found.values() for m in block.modules() if m is not block}
    return {name: block for name, block in found.values() if id(block) not in inside}


def _main(name: str, module: nn.Module) -> list[_Stack]:
    """The stacks that matter: no lists of heads with nothing behind them, nothing frozen beside what is trained, no
    lists of bare layers beside blocks (gates, short cuts), and nothing that embeds a time, a label or a place.
    """
    found = list(_stacks(name, module, name))
    found = [s for s in found if not (s.beside and find_head(module, s.blocks.values()) is None)]
    found = [_lifted(stack, found, name, module) for stack in found]
    found += _relatives(found, name, module)
    found = [s for s in found if any(p.requires_grad for p in s.parameters)] or found
    rich = {stack.owner for stack in found if not stack.bare}
    found = [s for s in found if is_chain(s.held_by[0]) or not s.bare or s.owner not in rich]
    sizes: Counter[str] = Counter()
    for stack in found:
        sizes[_stem(stack.name)] += stack.size
    largest = max(sizes.values(), default=0)
    return [s for s in found if sizes[_stem(s.name)] * _SIDE >= largest or not _linear(s)]


def _stacks(name: str, module: nn.Module, owner: str) -> Iterator[_Stack]:
    """The stacks in a module that are not inside another stack."""
    blocks = _stacked(name, module)
    if blocks:
        yield _Stack(owner, name, blocks, [module], never_called(module) and _beside(list(blocks.values())))
        return
    owner = owner if never_called(module) or is_chain(module) else name
    families = _families(name, module)
    for key, child in parts(module):
        inner = _join(name, key)
        family = next((family for family in families if inner in family), None)
        if family is None:
            yield from _stacks(inner, child, owner)
        elif inner == next(iter(family)):
            members = list(family.values())
            yield _Stack(owner, inner, dict(_members(family)), members, _beside(members))


def _stacked(name: str, module: nn.Module) -> Named:
    """The blocks of a module that is a stack itself: it has two of them, or one that is more than a layer."""
    if is_chain(module):
        blocks = dict(_groups(name, module))
    elif never_called(module):
        blocks = dict(held(name, module))
        alike = Counter(map(type, blocks.values())).most_common(1)
        namespace = not isinstance(module, nn.ModuleList) and (not alike or alike[0][1] == 1)
        if namespace and any(list(_stacks("", child, "")) for child in module.children()):
            return {}
    else:
        return {}
    return blocks if len(blocks) > 1 or any(map(_composite, blocks.values())) else {}


def held(name: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """What a list or dictionary holds, through all that is never called; a `Sequential` of blocks is not one block."""
    for key, child in parts(module):
        inner = _join(name, key)
        if never_called(child):
            yield from held(inner, child)
        elif is_chain(child) and sum(_composite(block) for _, block in _groups(inner, child)) > 1:
            yield from _groups(inner, child)
        elif weight_layers(child):
            yield inner, child


def _groups(name: str, chain: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """A `Sequential`, cut behind each block, and between layers in front of each weight, so that Linear-Tanh pairs stay
    together: a group goes by its last module, whose output is the group's."""
    last: tuple[str, nn.Module] | None = None
    for key, child in _links(name, chain):
        if weight_layers(child):
            if last is not None:
                yield last
            last = (key, child)
            if _composite(child):
                yield last
                last = None
        elif last is not None:
            last = (key, child)
    if last is not None:
        yield last


def _several(name: str, chain: nn.Module) -> bool:
    blocks = [block for _, block in _groups(name, chain)]
    return len(blocks) > 1 or any(map(_composite, blocks))


def _links(name: str, chain: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The modules that a `Sequential` calls in turn; one that holds several layers with weights is taken apart."""
    for key, child in parts(chain):
        inner = _join(name, key)
        if is_chain(child) and _several(inner, child):
            yield from _links(inner, child)
        else:
            yield inner, child


def _families(name: str, module: nn.Module) -> list[Named]:
    """Children of one kind, more than layers, that differ in their number only (layer1, layer2)."""
    found: dict[tuple[str, type], Named] = {}
    for key, child in parts(module):
        numbered = key != _stem(key) and weight_layers(child)
        if numbered and (is_chain(child) or (_composite(child) and not _lists_blocks(child))):
            found.setdefault((_stem(key), type(child)), {})[_join(name, key)] = child
    return [family for family in found.values() if len(family) > 1]


def _members(family: Named) -> Iterator[tuple[str, nn.Module]]:
    for name, module in family.items():
        yield from _groups(name, module) if is_chain(module) and _several(name, module) else [(name, module)]


def _layers(name: str, module: nn.Module) -> Named:
    """Without any stack: the children that hold weights, taken to run in the order of registration."""
    if type(module).__module__.startswith("torch.nn."):
        return {}
    children = list(held(name, module))
    if len(children) == 1:
        return _layers(*children[0])
    return dict([pair for pair in children[:-1] if not _read_alike(pair[1], children[-1][1])] + children[-1:])


def _lifted(stack: _Stack, stacks: list[_Stack], name: str, module: nn.Module) -> _Stack:
    """A stack of what other stacks' blocks are made of is the inside of a block: the outermost such owner."""
    others = [s for s in stacks if s.owner != stack.owner and not s.owner.startswith(f"{stack.owner}.")]
    blocks = [block for other in others for block in other.blocks.values()]
    within = _kinds(m for block in blocks for m in block.modules() if m is not block)
    known, kinds = within | _kinds(blocks), _kinds(stack.blocks.values())
    inside = bool(kinds) and kinds <= within
    keys = stack.owner.removeprefix(name).strip(".").split(".")
    for end in range(1, len(keys) + 1):
        owner = module.get_submodule(".".join(keys[:end]))
        if owner is not module and (type(owner) in known or (inside and end == len(keys))):
            inner = _join(name, ".".join(keys[:end]))
            return _Stack(inner, inner, {inner: owner}, [owner])
    return stack


def _relatives(stacks: list[_Stack], name: str, module: nn.Module) -> list[_Stack]:
    """Modules beside stacks that are of the blocks' own kind are blocks, too: a first one, a last one."""
    blocks = {id(m) for stack in stacks for block in stack.blocks.values() for m in block.modules()}
    kinds = _kinds(block for stack in stacks for block in stack.blocks.values())
    found = []
    for owner in dict.fromkeys(stack.owner for stack in stacks):
        parent = module.get_submodule(owner.removeprefix(f"{name}.") if owner != name else "")
        for key, child in parts(parent):
            if type(child) in kinds and not any(id(m) in blocks for m in child.modules()):
                inner = _join(owner, key)
                found.append(_Stack(owner, inner, {inner: child}, [child]))
    return found


def _linear(stack: _Stack) -> bool:
    listed = never_called(stack.held_by[0])
    single = all(len(weight_layers(b)) <= 1 and not (listed and is_chain(b)) for b in stack.blocks.values())
    return single and all(is_lazy(p) or p.ndim <= 2 for p in stack.parameters)


def _read_alike(block: nn.Module, head: nn.Module) -> bool:
    """Whether a module reads what the head reads, and writes what the head cannot read: another head."""
    ours, theirs = _widths(block), _widths(head)
    return ours is not None and theirs is not None and ours[:2] == theirs[:2] and ours[2] != theirs[1]


def _beside(blocks: list[nn.Module]) -> bool:
    """Whether none of some modules can read the one before, by its width."""
    widths = [_widths(block) for block in blocks]
    known = [width for width in widths if width is not None]
    alike = len(known) == len(widths) > 1 and len({kind for kind, _, _ in known}) == 1
    return alike and all(written != read for (_, _, written), (_, read, _) in pairwise(known))


def _widths(block: nn.Module) -> tuple[type, int, int] | None:
    """Kind of layer, width read and width written, of what begins and ends with the same kind of layer."""
    layers = weight_layers(block)
    first, last = layers[0], layers[-1]
    if isinstance(first, nn.Linear) and isinstance(last, nn.Linear):
        return nn.Linear, first.in_features, last.out_features
    if type(first) is type(last) and isinstance(first, _ConvNd) and isinstance(last, _ConvNd):
        return type(first), first.in_channels, last.out_channels
    return None


def _lists_blocks(module: nn.Module) -> bool:
    return any(never_called(m) and any(map(_composite, m.children())) for m in module.modules())


def _composite(module: nn.Module) -> bool:
    """More than a layer: it calls modules of its own in a way that its class alone knows."""
    wraps = any(parts(module)) and not (is_chain(module) or never_called(module))
    return wraps and bool(weight_layers(module))


def _kinds(modules: Iterable[nn.Module]) -> set[type]:
    """The classes that are more than layers; one of each is looked at, because a model has thousands of modules."""
    return {kind for kind, example in {type(module): module for module in modules}.items() if _composite(example)}


def _size(module: nn.Module) -> int:
    layers = (m for m in module.modules() if not isinstance(m, (nn.Embedding, nn.EmbeddingBag)))
    return sum(p.numel() for layer in layers for p in layer.parameters(recurse=False) if not is_lazy(p))


def _stem(name: str) -> str:
    return re.sub(r"\d+", "", name)


def _join(name: str, key: str) -> str:
    return f"{name}.{key}" if name else key
