"""Finding the head, the last layer with weights behind the blocks, and which modules of a tree are called."""

from collections.abc import Collection, Iterator
from inspect import getattr_static

from torch import Tensor, nn
from torch.nn.parameter import is_lazy


def never_called(module: nn.Module) -> bool:
    """True for a module that only holds others (`ModuleList`, `ModuleDict`, any without a forward)."""
    return getattr_static(module, "forward") is nn.Module.forward


def is_chain(module: nn.Module) -> bool:
    """True for a `Sequential` that calls its children one after another and does nothing else."""
    return isinstance(module, nn.Sequential) and getattr_static(module, "forward") is nn.Sequential.forward


def holds_matrix(module: nn.Module) -> bool:
    """Whether the module itself computes with a weight of two axes or more; embeddings look rows up and do not count.

    Parametrized weights and lists of parameters belong to the module that holds them.
    """
    if isinstance(module, (nn.Embedding, nn.EmbeddingBag)) or never_called(module):
        return False
    own = list(module.parameters(recurse=False))
    own += [p for child in module.children() if _only_weights(child) for p in child.parameters()]
    return any(map(_is_matrix, own))


def called_modules(model: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Name and module of all that may be called, in the order of registration; twice where registered twice."""
    if not never_called(model):
        yield prefix, model
    if isinstance(model, nn.MultiheadAttention):
        return  # it reads the weight of its output layer without calling that layer
    for key, child in parts(model):
        yield from called_modules(child, f"{prefix}.{key}" if prefix else key)


def parts(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Key and child, without those that are weights of the module itself."""
    return ((key, child) for key, child in module.named_children() if not _only_weights(child))


def weight_layers(module: nn.Module) -> list[nn.Module]:
    """The layers with weights in a module, or the module itself."""
    return [layer for _, layer in called_modules(module) if holds_matrix(layer)]


def modules_behind(model: nn.Module, blocks: Collection[nn.Module]) -> dict[str, nn.Module]:
    """The modules registered behind the last block that may be called, by name."""
    # the order of registration stands for the order of calls, which is not known before the model has run
    inside = {id(child) for block in blocks for child in block.modules()}
    behind: dict[str, nn.Module] = {}
    for name, module in called_modules(model):
        if id(module) in inside:
            behind = {}
        else:
            behind[name] = module
    return behind


def find_head(model: nn.Module, blocks: Collection[nn.Module]) -> tuple[str, nn.Module] | None:
    """The output embeddings that a model declares, otherwise the last layer with weights behind the blocks, or None.

    Of several layers behind the blocks, one that is trained comes first: a frozen teacher is no head. A module of the
    blocks' own kind is read at its output, because it may add something to what its last layer returns. With no layer
    behind, a linear layer beside the blocks that can only follow them is the head: some models register it first.
    """
    behind = {name: module for name, module in modules_behind(model, blocks).items() if holds_matrix(module)}
    trained = [name for name, module in behind.items() if any(p.requires_grad for p in module.parameters())]
    last = next(reversed(trained or list(behind)), None)
    declared = _declared(model, last, blocks)
    if declared is not None:
        return declared
    return _registered_first(model, blocks) if last is None else _whole(model, last, blocks)


def _declared(model: nn.Module, last: str | None, blocks: Collection[nn.Module]) -> tuple[str, nn.Module] | None:
    """The output embeddings that a language model, or one inside the model with nothing behind it, declares."""
    inside = {id(child) for block in blocks for child in block.modules()}
    names = {id(module): name for name, module in model.named_modules()}
    for name, module in model.named_modules():
        declares = getattr(module, "get_output_embeddings", None)
        if callable(declares) and (not name or (last or "").startswith(f"{name}.")):
            head = declares()
            if isinstance(head, nn.Module) and id(head) in names and id(head) not in inside:
                return names[id(head)], head
    return None


def _registered_first(model: nn.Module, blocks: Collection[nn.Module]) -> tuple[str, nn.Module] | None:
    """A linear layer, child of a module that holds the blocks, that reads the last block's width and writes another."""
    inside = {id(child) for block in blocks for child in block.modules()}
    known = list(called_modules(model))
    end = max((i for i, (_, module) in enumerate(known) if id(module) in inside), default=-1)
    widths = [module.out_features for _, module in known[: end + 1] if isinstance(module, nn.Linear)]
    for name, module in reversed(known):
        if isinstance(module, nn.Linear) and id(module) not in inside and module.in_features in widths[-1:]:
            parent = model.get_submodule(name.rpartition(".")[0])
            around = not is_chain(parent) and any(id(child) in inside for child in parent.modules())
            if around and module.out_features != module.in_features:
                return name, module
    return None


def _whole(model: nn.Module, name: str, blocks: Collection[nn.Module]) -> tuple[str, nn.Module]:
    # A layer of the head inside a module of the blocks' kind (a last block left out, say) must not be tapped alone: a
    # residual connection may add to what it returns. So the outermost module that is like a block is taken as a whole.
    own, kinds = {id(block) for block in blocks}, {type(block) for block in blocks if not is_chain(block)}
    parent, keys = model, name.split(".")
    for end, key in enumerate(keys, 1):
        module = getattr(parent, key)
        beside = (never_called(parent) or is_chain(parent)) and any(id(child) in own for child in parent.children())
        alike = type(module) in kinds or (beside and len(weight_layers(module)) > 1)
        holds_blocks = any(id(child) in own for child in module.modules())
        if alike and not (holds_blocks or never_called(module) or is_chain(module)):
            return ".".join(keys[:end]), module
        parent = module
    return name, parent


def _is_matrix(parameter: Tensor) -> bool:
    return is_lazy(parameter) or parameter.ndim >= 2


def _only_weights(module: nn.Module) -> bool:
    """Lists of parameters, and what `torch.nn.utils.parametrize` hangs below a module."""
    holders = (nn.ParameterList, nn.ParameterDict, nn.utils.parametrize.ParametrizationList)
    held = list(module.children()) if isinstance(module, nn.ModuleDict) else []
    return isinstance(module, holders) or (bool(held) and all(isinstance(child, holders) for child in held))
