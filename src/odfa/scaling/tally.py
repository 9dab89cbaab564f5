"""Operations, bytes and kernel calls of a computation, counted while it runs on torch's meta device, where tensors
have sizes and no values."""

import contextlib
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from odfa.errors import MatchError
from odfa.scaling.operators import name_of, operations


@dataclass(frozen=True)
class Tally:
    """Four sums over kernel calls, from which a processor's rates per operation, byte and call give a time.

    A difference of tallies may be negative. `a + b` adds the four sums, `weight * a` multiplies them.
    """

    matmul_flops: float = 0.0
    """Operations of matrix products, 2 per multiplication and addition."""
    attention_flops: float = 0.0
    """Operations of attention kernels, counted in the same way."""
    num_bytes: float = 0.0
    """Bytes read and written; what stays in a cache between two kernels is counted twice."""
    calls: float = 0.0
    """Kernel calls; views do not count."""

    @property
    def flops(self) -> float:
        """Operations of matrix products and attention."""
        return self.matmul_flops + self.attention_flops

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(
            self.matmul_flops + other.matmul_flops,
            self.attention_flops + other.attention_flops,
            self.num_bytes + other.num_bytes,
            self.calls + other.calls,
        )

    def __rmul__(self, weight: float) -> "Tally":
        return Tally(
            weight * self.matmul_flops, weight * self.attention_flops, weight * self.num_bytes, weight * self.calls
        )


def matmul(rows: float, inner: float, columns: float, *, element_bytes: int) -> Tally:
    """A product of rows x inner by inner x columns: 2 rows inner columns operations, in one call."""
    touched = element_bytes * (rows * inner + inner * columns + rows * columns)
    return Tally(matmul_flops=2.0 * rows * inner * columns, num_bytes=float(touched), calls=1.0)


class Counting(TorchDispatchMode):
    """Counts kernel calls on meta tensors inside `with`, and the bytes of tensors that are alive.

    Meta tensors have no values, so that a model that reads one fails with `MatchError`, but for two cases. A truth
    value that is read is true: models ask "is all of it finite" or "is each row one sequence", which a batch of sound
    data answers so. A copy of floats to the CPU is zeros: models record such copies and compute nothing from them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.tally = Tally()
        self.alive = 0
        self.history: list[int] = []
        """Bytes alive after each kernel, in order."""
        self.estimated: Counter[str] = Counter()
        """Calls of operators without a formula, by name: `operators.operations` estimates them."""
        self._known: set[int] = set()

    def taken(self) -> tuple[Tally, np.ndarray]:
        """What was counted, and the bytes alive kernel by kernel, since the last time this was asked."""
        tally, history = self.tally, np.array(self.history, dtype=np.float64)
        self.tally, self.history = Tally(), []
        return tally, history

    def know(self, tensor: Tensor) -> None:
        """Leave a tensor that was made before, such as a parameter, out of the bytes that are alive."""
        self._known.add(tensor.untyped_storage()._cdata)

    def __torch_dispatch__(
        self, func: OpOverload, types: object, args: tuple[object, ...] = (), kwargs: dict[str, object] | None = None
    ) -> object:
        """Run one kernel on meta tensors and count it."""
        # Storages and not tensors tell what is new: views share one, and a storage is freed when its last tensor goes.
        kwargs = kwargs or {}
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        output = _answer(func, inputs, kwargs)
        if output is None:
            output = func(*args, **kwargs)
        outputs = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor) and leaf.is_meta]
        if not outputs and not any(tensor.is_meta for tensor in inputs):
            return output  # small tables with values, which models work out beside their tensors
        given = {tensor.untyped_storage()._cdata for tensor in inputs}
        fresh = [tensor for tensor in outputs if tensor.untyped_storage()._cdata not in given]
        written = func._schema.is_mutable and torch.Tag.inplace_view not in func.tags
        if fresh or written:
            self.tally += self._kernel(func, args, kwargs, output, inputs, outputs)
        for tensor in fresh:
            self._watch(tensor)
        self.history.append(self.alive)
        return output

    def _kernel(
        self,
        func: OpOverload,
        args: tuple[object, ...],
        kwargs: dict[str, object],
        output: object,
        inputs: list[Tensor],
        outputs: list[Tensor],
    ) -> Tally:
        name = name_of(func)
        kind, count = operations(func, args, kwargs, output, sum(tensor.numel() for tensor in (*inputs, *outputs)))
        if kind == "estimated":
            self.estimated[name] += 1
        flops = {"attention_flops" if kind == "attention" else "matmul_flops": count}
        return Tally(**flops, num_bytes=_touched(name, inputs, outputs), calls=1.0)

    def _watch(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self.alive += size
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.alive -= size


class FusedAttention(TorchFunctionMode):
    """Attention as one kernel that stores no scores, as processors run it; torch would give meta tensors the plain
    formula, which stores them."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Call the fused kernel in place of `scaled_dot_product_attention`, and every other function unchanged."""
        kwargs = kwargs or {}
        if func is torch.nn.functional.scaled_dot_product_attention:
            return _attention(*args, **kwargs)
        return func(*args, **kwargs)


@contextlib.contextmanager
def fused_attention(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Inside, these modules run with `FusedAttention`, also when backward runs them again."""
    entered: list[FusedAttention] = []

    def enter(_module: nn.Module, _args: object) -> None:
        entered.append(FusedAttention())
        entered[-1].__enter__()

    def leave(_module: nn.Module, _args: object, _output: object) -> None:
        entered.pop().__exit__(None, None, None)

    removable = [module.register_forward_pre_hook(enter, prepend=True) for module in modules]
    removable += [module.register_forward_hook(leave, always_call=True) for module in modules]
    try:
        yield
    finally:
        for hook in removable:
            hook.remove()


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    aten = torch.ops.aten
    if enable_gqa and key.shape[-3] != query.shape[-3]:
        repeats = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(repeats, -3), value.repeat_interleave(repeats, -3)
    batch = torch.broadcast_shapes(query.shape[:-2], key.shape[:-2], value.shape[:-2])
    query, key, value = (_four_axes(tensor, batch) for tensor in (query, key, value))
    if attn_mask is not None and attn_mask.ndim > 2:
        attn_mask = _four_axes(attn_mask, batch)
    if query.shape[-1] == value.shape[-1] and not (attn_mask is not None and attn_mask.requires_grad):
        fused = aten._scaled_dot_product_flash_attention_for_cpu
        attended: Tensor = fused(query, key, value, dropout_p, is_causal, attn_mask=attn_mask, scale=scale)[0]
    else:  # the kernel that knows values of another width, and gradients of masks that are learned
        if attn_mask is not None:
            attn_mask = attn_mask.expand(*query.shape[:3], key.shape[2])
        fused = aten._scaled_dot_product_efficient_attention
        attended = fused(query, key, value, attn_mask, query.requires_grad, dropout_p, is_causal, scale=scale)[0]
    return attended.reshape(*batch, *attended.shape[-2:])


def _four_axes(tensor: Tensor, batch: torch.Size) -> Tensor:
    """(N, H, T, D) of any number of leading axes."""
    whole = tensor.expand(*batch, *tensor.shape[-2:])
    return whole if len(batch) == 2 else whole.reshape(-1, batch[-1] if batch else 1, *tensor.shape[-2:])


def _answer(func: OpOverload, inputs: list[Tensor], kwargs: dict[str, object]) -> Tensor | bool | None:
    """What a model gets that reads a value of a meta tensor; None: it reads none.

    Raises:
        MatchError: it reads a number, or copies integers to the CPU.
    """
    aten = torch.ops.aten
    if not any(tensor.is_meta for tensor in inputs):
        return None  # tensors with values: the operator runs as usual
    if func is aten._local_scalar_dense.default:
        if inputs[0].dtype == torch.bool:
            return True
        raise MatchError(f"the model asks for a value ({inputs[0].dtype}), which a walk over sizes does not have")
    if func is aten._to_copy.default and kwargs.get("device") == torch.device("cpu"):
        if inputs[0].is_floating_point():
            return torch.zeros(inputs[0].shape)
        raise MatchError(f"the model copies values ({inputs[0].dtype}) to the processor; a walk over sizes has none")
    return None


def _bytes(tensor: Tensor) -> int:
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())


_GATHERS = frozenset(f"aten.{name}" for name in ("embedding", "index", "index_select", "gather", "take"))
_BAGS = frozenset(("aten._embedding_bag", "aten._embedding_bag_forward_only"))


def _touched(name: str, inputs: list[Tensor], outputs: list[Tensor]) -> float:
    """Bytes that a kernel reads and writes; of a table that is looked up, only the rows that are read."""
    if name in _GATHERS:
        return 2.0 * sum(map(_bytes, outputs))
    if name in _BAGS:
        table, places = inputs[:2]
        return places.numel() * table.shape[-1] * table.element_size() + float(sum(map(_bytes, outputs)))
    return float(sum({id(tensor): _bytes(tensor) for tensor in (*inputs, *outputs)}.values()))
