"""Blocks whose forward is compiled by torch: hooks run around the compiled code, or become a part of it."""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from contextlib import AbstractContextManager, nullcontext
from itertools import count
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from odfa.engine.rules import AbstractRule
from odfa.engine.tensors import eager, map_tensors, named_tensors
from odfa.errors import ConfigError, MatchError

Compile = bool | str
"""Whether to compile, or by which backend of `torch.compile`."""
USUAL = "inductor"
_CACHE = "past_key_values"
_numbers = count()


class CompiledBlocks:
    """Owns the compiled forwards of blocks and takes exactly those away again.

    `block.forward` is replaced, not the block: hooks run in `nn.Module.__call__`, around it. Blocks of one structure
    share what is compiled, so that a deep model compiles as often as one of two blocks.
    """

    def __init__(
        self, blocks: Mapping[str, nn.Module], backend: str = USUAL, inside: Sequence[Set[nn.Module]] = ()
    ) -> None:
        """Replace the forwards of blocks that `check_compile` has let pass; they are compiled when they run.

        Args:
            inside: for each kind of hooks of ours inside blocks the modules that get them.
        """
        self.backend = backend
        self.behind: Callable[[], None] | None = None
        """Called in the compiled code, as its last line."""
        self.arrives: Callable[[Tensor], None] | None = None
        """Called in backward with the gradient of each output, just before the compiled code gets it."""
        self._forwards: list[_Forward] = []
        codes: dict[object, _Code] = {}
        for name, block in blocks.items():
            code = codes.setdefault(_structure(block, inside), _Code(backend, twins=any(map(len, inside))))
            self._forwards.append(_Forward(name, block, code, self))
        for forward in self._forwards:
            forward.block.__dict__["forward"] = forward

    def remove(self) -> None:
        """Put the forwards back that the blocks' classes have."""
        for forward in self._forwards:
            if forward.block.__dict__.get("forward") is forward:
                del forward.block.__dict__["forward"]
        self._forwards.clear()


def compiled_as(
    blocks: Mapping[str, nn.Module], choice: Compile, inside: Sequence[Set[nn.Module]] = ()
) -> CompiledBlocks | None:
    """The blocks compiled as `DFA(compile=choice)` says; None: they are not.

    Args:
        inside: for each kind of hooks of ours inside blocks the modules that get them.
    """
    return None if choice is False else CompiledBlocks(blocks, USUAL if choice is True else choice, inside)


def uncompiled(model: nn.Module) -> AbstractContextManager[Any]:
    """A context in which the compiled forwards of a model run as their classes have them: other sizes, once or seldom,
    are then not compiled for."""
    has = any(isinstance(module.__dict__.get("forward"), _Forward) for module in model.modules())
    return torch.compiler.set_stance("force_eager") if has else nullcontext()


def compile_blocks(model: nn.Module, blocks: Iterable[str], backend: str = USUAL) -> CompiledBlocks:
    """Compile blocks of a model that learns by backpropagation; `remove()` of the result puts their forwards back.

    Args:
        blocks: qualified names.

    Raises:
        ConfigError, MatchError: as `DFA(model, compile=True)`.
    """
    named = {name: model.get_submodule(name) for name in blocks}
    check_compile(backend, model, named)
    return CompiledBlocks(named, backend)


def check_compile(
    choice: object,
    model: nn.Module,
    blocks: Mapping[str, nn.Module],
    rule: AbstractRule | None = None,
) -> None:
    """Refuse what cannot be compiled, before anything is touched.

    Raises:
        ConfigError: no backend of that name; a rule that runs blocks in forward mode.
        MatchError: the model is compiled already, or a block's forward is not that of its class.
    """
    if choice is False:
        return
    _check_backend(USUAL if choice is True else choice)
    if rule is not None and "forward products" in rule.needs:
        raise ConfigError(
            f"compile: expected a rule without forward products, got {rule.name}: compiled code has no derivative in "
            "forward mode; leave out compile="
        )
    _check_model(model)
    _check_forwards(blocks)


def _check_backend(backend: object) -> None:
    """Refuse what is no name of a backend.

    Raises:
        ConfigError: torch has no such backend.
    """
    import torch._dynamo

    known = torch._dynamo.list_backends(exclude_tags=())
    if not isinstance(backend, str) or backend not in known:
        raise ConfigError(
            f"compile: expected True, False or a backend of torch.compile ({', '.join(known)}), got {backend!r}"
        )


def _check_model(model: nn.Module) -> None:
    """Refuse a model that torch.compile has been called on, or a part of one: code would be compiled within code.

    Raises:
        MatchError: it is compiled.
    """
    for name, module in model.named_modules():
        if module._compiled_call_impl is not None or type(module).__name__ == "OptimizedModule":
            raise MatchError(
                f"compile: expected a model that is not compiled, got a compiled {name or type(model).__name__}; leave "
                "out compile=, or give the model as it was before torch.compile"
            )


def _check_forwards(blocks: Mapping[str, nn.Module]) -> None:
    """Refuse blocks whose forward is not that of their class.

    Raises:
        MatchError: somebody has replaced it.
    """
    for name, block in blocks.items():
        if "forward" in block.__dict__:
            raise MatchError(
                f"compile: expected the forward of class {type(block).__name__} in block {name}, got one that was set "
                "on the block itself; take it off before, or leave out compile="
            )


def _structure(block: nn.Module, inside: Sequence[Set[nn.Module]]) -> object:
    """What blocks must have in common to run the same code, hooks inside too: torch does not look at those again."""
    hooked = {
        name: (*(m in kind for kind in inside), len(m._forward_pre_hooks), len(m._forward_hooks))
        for name, m in block.named_modules()
        if m is not block
    }
    modules = tuple((name, type(module), hooked.get(name)) for name, module in block.named_modules())
    tensors = (*block.named_parameters(remove_duplicate=False), *block.named_buffers(remove_duplicate=False))
    return modules, tuple((name, t.shape, t.dtype, t.device, t.requires_grad) for name, t in tensors)


def _run(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], behind: Callable[[], None] | None) -> Any:
    output = type(block).forward(block, *args, **kwargs)
    if behind is not None:
        behind()
    return output


class _Code:
    """What blocks of one structure run, with a graph or without one. Made when first called, never copied or pickled.

    Passes without a graph have code of their own, so that the sizes of an evaluation do not make that of training
    dynamic.
    """

    def __init__(self, backend: str, *, twins: bool) -> None:
        self._backend, self._twins = backend, twins
        self._made: dict[bool, Callable[..., Any]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_made": {}}

    def __call__(
        self, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], behind: Callable[[], None] | None
    ) -> Any:
        recorded = torch.is_grad_enabled()
        if not recorded:  # what an input asks for makes no difference, and would be compiled for
            args, kwargs = map_tensors(args, Tensor.detach), map_tensors(kwargs, Tensor.detach)
        made = self._made.get(recorded)
        if made is None:
            # torch keeps compiled code, and the sizes that it has seen, by code object and name: with one for all
            # structures it would soon reach its limit, and take other structures for other sizes
            code = _run.__code__.replace(co_name=f"block_{next(_numbers)}")
            one = FunctionType(code, globals())
            made = self._made[recorded] = torch.compile(one, backend=_kept(self._backend, self._twins), fullgraph=True)
        return made(block, args, kwargs, behind)


def _kept(backend: str, twins: bool) -> Callable[..., Any]:
    """The backend, compiling backward passes that may run more than once.

    Otherwise a backward pass overwrites what the forward pass saved for it. Measured angles, hops and the search for
    the batch go through one graph several times.

    Args:
        twins: several branches end in one signal, so that their biases have one and the same gradient.
    """
    import torch._functorch.config as settings
    from torch._dynamo.backends.registry import lookup_backend
    from torch._guards import TracingContext

    compiler = lookup_backend(backend)

    def keeping(graph: Any, inputs: list[Any]) -> Any:
        with settings.patch(donated_buffer=False):
            made = (_apart if twins and backend == "inductor" and _narrow(inputs) else compiler)(graph, inputs)
        context = TracingContext.try_get()
        if context is not None and context.fw_metadata is not None:
            context.fw_metadata.bw_donated_idxs = []  # torch takes None for "not known" and refuses a second pass
        return made

    return keeping


def _narrow(inputs: list[Any]) -> bool:
    tensors = [given for given in inputs if isinstance(given, Tensor) and given.device.type == "cpu"]
    return any(tensor.dtype in (torch.bfloat16, torch.float16) for tensor in tensors)


def _apart(graph: Any, inputs: list[Any]) -> Any:
    """Inductor, without loops that serve two results: those of two equal sums of 16 bits are no C++ (torch 2.13)."""
    from torch._inductor.compile_fx import compile_fx

    return compile_fx(graph, inputs, config_patches={"cpp.max_horizontal_fusion_size": 1})


class _Forward:
    """In place of `block.forward`."""

    def __init__(self, name: str, block: nn.Module, code: _Code, owner: CompiledBlocks) -> None:
        self.name, self.block, self._code, self._owner = name, block, code, owner
        parameters = list(inspect.signature(type(block).forward).parameters)[1:]
        self._cache_at = parameters.index(_CACHE) if _CACHE in parameters else len(parameters)

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(type(self.block).forward.__get__(self.block))

    @eager
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._runs_as_it_is(args, kwargs):
            return type(self.block).forward(self.block, *args, **kwargs)
        from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException

        try:
            output = self._code(self.block, args, kwargs, self._owner.behind)
        except (TorchDynamoException, FailOnRecompileLimitHit) as error:
            raise MatchError(_complaint(self.name, error)) from error
        if self._owner.arrives is not None:
            for _, tensor in named_tensors(output):
                if tensor.requires_grad:
                    tensor.register_hook(self._owner.arrives)  # type: ignore[no-untyped-call]
        return output

    def _runs_as_it_is(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether there is nothing to compile: sizes alone (the meta device), or text that grows token by token.

        Raises:
            MatchError: a training pass fills a key-value cache.
        """
        if any(isinstance(arg, Tensor) and arg.is_meta for arg in (*args[:1], *kwargs.values())):
            return True
        cache = kwargs.get(_CACHE, args[self._cache_at] if self._cache_at < len(args) else None)
        if cache is not None and torch.is_grad_enabled():
            raise MatchError(
                f"compile: expected no key-value cache in training, got one in block {self.name}; set use_cache=False"
            )
        return cache is not None


def _complaint(name: str, error: Exception) -> str:
    told = " ".join(str(error).partition("\n\n")[0].split())[:300]
    return (
        f"compile: expected a block that torch compiles in one piece, got {type(error).__name__} in block {name} "
        f"({told}); leave out compile="
    )
