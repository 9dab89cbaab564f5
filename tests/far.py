"""An accelerator that is none: tensors that say they are on mps:0 and hold their values on the processor.

As on an accelerator, they cannot be computed with tensors of the processor. Mixed devices show here, kernels do not.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map

from odfa.engine import cuts

DEVICE, CPU = torch.device("mps", 0), torch.device("cpu")
FETCHED: list[str] = []
"""What has been asked of values there since somebody cleared this list, each a wait for an accelerator."""
_WAITING = {
    torch.ops.aten._local_scalar_dense.default,
    torch.ops.aten.nonzero.default,
    torch.ops.aten.masked_select.default,
    torch.ops.aten.equal.default,
}
_COPIES = {torch.ops.aten.copy_.default, torch.ops.aten._to_copy.default}
_JOINS = {torch.ops.aten.cat.default, torch.ops.aten.stack.default}
_INDEXED = {torch.ops.aten.index.Tensor, torch.ops.aten.index_put_.default, torch.ops.aten.index_put.default}


class FarTensor(Tensor):
    """Values `inner` on the processor, told to be on `DEVICE`."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> "FarTensor":
        made = Tensor._make_wrapper_subclass(
            cls, inner.shape, inner.stride(), inner.storage_offset(), dtype=inner.dtype, device=CPU
        )
        made.inner = inner
        return made

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return DEVICE

    def __repr__(self, **_words: Any) -> str:
        return f"Far({self.inner!r})"

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["inner"], None

    @staticmethod
    def __tensor_unflatten__(inner: dict[str, Tensor], _meta: None, _size: Any, _stride: Any) -> "FarTensor":
        return FarTensor(inner["inner"])

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # torch's C++ takes the tensor for one on the processor, so what compares devices there is answered here
        kwargs = kwargs or {}
        if func is Tensor.tolist:
            FETCHED.append("tolist")
            return args[0].inner.tolist()
        if func is Tensor.numpy or func is Tensor.__array__:
            raise TypeError("can't convert mps:0 device type tensor to numpy")
        if func is Tensor.cpu:
            return _moved(args[0], CPU)
        if func is Tensor.data_ptr:
            return args[0].inner.data_ptr()
        if func is Tensor.new_tensor:
            return _moved(torch.tensor(*args[1:], **{"dtype": args[0].dtype, **kwargs}), DEVICE)
        if func is Tensor.to:
            return _to(args[0], args[1:], kwargs)
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **kwargs)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(func, args, kwargs or {})


class Accelerator(TorchDispatchMode):
    """Within this context `DEVICE` can be named: tensors are made there and moved there."""

    def __enter__(self) -> "Accelerator":
        # torch calls `backward` of functions in Python, and hooks of nodes, with `__torch_function__` switched off
        backward = self._backward = BackwardCFunction.apply

        def apply(self: Any, *grads: Any) -> Any:
            with torch._C._EnableTorchFunction():
                return backward(self, *grads)

        BackwardCFunction.apply = apply  # type: ignore[method-assign]
        return super().__enter__()

    def __exit__(self, *raised: Any) -> None:
        BackwardCFunction.apply = self._backward  # type: ignore[method-assign]
        super().__exit__(*raised)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(func, args, kwargs or {})


@contextmanager
def one_accelerator(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Inside, `DEVICE` is all that the machine has beside its processor; its random numbers are the processor's."""
    monkeypatch.setattr("odfa.devices.accelerators", lambda: [DEVICE])
    for at in ("odfa.keys", "odfa.engine.executions.again"):
        monkeypatch.setattr(f"{at}.state_on", lambda _device: torch.get_rng_state())
        monkeypatch.setattr(f"{at}.put_back", lambda _device, _state: None)
    monkeypatch.setattr("odfa.engine.unseen.moment", lambda _device: time.perf_counter())
    monkeypatch.setattr("odfa.engine.cuts._replace", partial(_with_torch_function, cuts._replace))
    with torch.device("cpu"):
        torch.empty(0)  # torch lists once, here, on what such contexts act: it must not be on `made` below
    tensor = torch.tensor

    def made(*args: Any, device: Any = None, **words: Any) -> Tensor:  # torch makes it past every mode
        near = tensor(*args, **words)
        return near if device is None else near.to(device)

    monkeypatch.setattr(torch, "tensor", made)
    with Accelerator():
        yield


def _with_torch_function(hook: Callable[..., Any], *args: Any) -> Any:
    with torch._C._EnableTorchFunction():
        return hook(*args)


def _to(tensor: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    given = [*args, *(kwargs[name] for name in ("device", "dtype", "other") if name in kwargs)]
    device, dtype = tensor.device, tensor.dtype
    for one in given:
        if isinstance(one, Tensor):
            device, dtype = one.device, one.dtype
        elif isinstance(one, torch.dtype):
            dtype = one
        elif isinstance(one, str | torch.device):
            device = torch.device(one)
    moved = tensor if device == tensor.device else _moved(tensor, device)
    with torch._C.DisableTorchFunctionSubclass():
        return moved if moved.dtype == dtype else torch.ops.aten._to_copy.default(moved, dtype=dtype)


def _moved(tensor: Tensor, device: torch.device) -> Tensor:
    with torch._C.DisableTorchFunctionSubclass():
        return torch.ops.aten._to_copy.default(tensor, device=device)


def _computed(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    tensors = [leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, Tensor)]
    far = any(isinstance(tensor, FarTensor) for tensor in tensors)
    asked = kwargs.get("device")
    asked = None if asked is None else torch.device(asked)
    if far and _waits(func, args, asked):
        FETCHED.append(str(func))
    if far and func not in _COPIES:
        looked_at = tensors[:1] + [t for t in tensors[1:] if t.dtype not in (torch.int64, torch.bool)]
        for tensor in looked_at if func in _INDEXED else tensors:
            # numbers of the processor may be computed with, but not joined
            if not isinstance(tensor, FarTensor) and (tensor.ndim or func in _JOINS):
                raise RuntimeError(f"{func}: expected all tensors on one device, found mps:0 and cpu")
    to_far = asked.type == DEVICE.type if asked is not None and (not far or func in _COPIES) else far
    if func is torch.ops.aten.copy_.default:
        to_far = isinstance(args[0], FarTensor)
    if asked is not None and asked.type == DEVICE.type:
        kwargs = {**kwargs, "device": CPU}
    near_args, near_kwargs = tree_map(_inner, (args, kwargs))
    out = func(*near_args, **near_kwargs)
    if not to_far:
        return out
    wrapped = tree_map(lambda one: FarTensor(one) if isinstance(one, Tensor) else one, out)
    return return_and_correct_aliasing(func, args, kwargs, wrapped) if far else wrapped


def _waits(func: Any, args: tuple[Any, ...], asked: torch.device | None) -> bool:
    """Whether an accelerator would have to be done before this returns: values, or sizes that follow from values."""
    if func in _INDEXED:
        return any(isinstance(one, FarTensor) and one.dtype == torch.bool for one in args[1] if one is not None)
    to_near = func is torch.ops.aten._to_copy.default and asked is not None and asked.type == "cpu"
    onto_near = func is torch.ops.aten.copy_.default and not isinstance(args[0], FarTensor)
    return func in _WAITING or to_near or onto_near


def _inner(value: Any) -> Any:
    return value.inner if isinstance(value, FarTensor) else value
