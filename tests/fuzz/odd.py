"""What inputs are spoiled with: odd numbers, words and JSON values; edits of JSON, bytes and tensors as tuples."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import torch
from hypothesis import strategies as st
from torch import Tensor

INF, NAN = float("inf"), float("nan")
_NUMBERS = (0, 1, -1, 2, 3, 7, 255, 65536, 10**9, 2**31, 2**63 - 1, 2**63, 10**30)
_FLOATS = (0.5, -0.0, -1.5, 1e-320, 1e-9, 1e9, 1e38, 1e308, -1e308)
_WORDS = (
    "",
    " ",
    "x",
    "none",
    "None",
    "true",
    "null",
    "nan",
    "-inf",
    "0",
    "-1",
    "1.5",
    "1e400",
    "0x10",
    "1_0",
    "１",
    "²",
)
_MORE_WORDS = (
    "[]",
    "()",
    "1,2",
    ",",
    "=",
    "a=b",
    "--",
    "-1e3",
    "%s",
    "{}",
    "a\nb",
    "é",
    "\U0001f600",
    "\udcff",
    "\x1b[31m",
)
_LONG_WORDS = ("9" * 5000, "a" * 300, "1" + "0" * 30)
_NAMES = (
    "payload",
    "payload:make",
    "payload.Model",
    "../outside/victim.txt",
    "/dev/full",
    "/dev/null",
    "/proc/self/mem",
)

ODD_NUMBERS = st.sampled_from((*_NUMBERS, *_FLOATS, NAN, INF, -INF))
ODD_INTEGERS = st.sampled_from(_NUMBERS) | st.integers(-4, 40)
FEW = st.sampled_from((1, 1, 1, 2, 3))
"""How many things are wrong with an input: mostly one, or the first would hide the others."""
ODD_WORDS = (
    st.sampled_from((*_WORDS, *_MORE_WORDS, *_LONG_WORDS, *_NAMES)) | ODD_INTEGERS.map(str) | ODD_NUMBERS.map(repr)
)


def _nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


ODD_JSON = (
    st.sampled_from((None, True, False, "", "x", [], {}, [None], {"a": 1}, [1, "a"], [[]], {"items": 1}))
    | ODD_NUMBERS
    | ODD_WORDS
    | st.sampled_from((_nested(50), {"__tensor__": "0"}, {"__tensor__": "x"}, {"items": [[1]]}, [0] * 300))
)


_INTEGERS = st.integers(0, 12) | st.sampled_from((-1, 100, 1000, 65536, 10**9, 2**31, 2**63 - 1))
_REALS = st.sampled_from((0.0, 0.1, 0.5, 0.9, 1.0, 2.0, 1e-3, 1e-9, 1e-30, 1e-320, 10.0, 1e4, 1e9, 1e30, 1e308, -1.0))


def fitting(hint: Any) -> st.SearchStrategy[Any]:
    """JSON values of the type that a setting declares, the edges of it included."""
    inner = get_args(hint)
    if get_origin(hint) is Literal:
        return st.sampled_from(inner)
    if get_origin(hint) is tuple:
        return st.lists(fitting(inner[0]), max_size=3)
    if inner:
        return st.one_of([st.none() if one is type(None) else fitting(one) for one in inner])
    return {bool: st.booleans(), int: _INTEGERS, float: _REALS, str: ODD_WORDS, Path: ODD_WORDS}[hint]


def json_paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a JSON value but its root."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield (*path, key)
        yield from json_paths(item, (*path, key))


def json_edits(value: Any) -> st.SearchStrategy[Any]:
    """One edit: (path, "set" | "drop" | "rename" | "beside", with what)."""
    paths = st.sampled_from(list(json_paths(value)))
    return st.tuples(paths, st.sampled_from(("set", "set", "set", "drop")), ODD_JSON) | st.tuples(
        paths, st.sampled_from(("rename", "beside")), ODD_WORDS
    )


def edited_json(value: Any, edits: Any) -> Any:
    """A copy with the edits that still find their place."""
    changed = copy.deepcopy(value)
    for path, action, new in edits:
        what = copy.deepcopy(new)  # an edit may go into what an earlier one put there
        try:
            *lead, last = path
            holder = changed
            for key in lead:
                holder = holder[key]
            if action == "set":
                holder[last] = what
            elif action == "drop":
                del holder[last]
            elif action == "rename":
                holder[what] = holder.pop(last)
            else:
                holder[what] = holder[last]
        except (KeyError, IndexError, TypeError, AttributeError):
            continue
    return changed


_DEEP = b'{"a":' * 20000 + b"1" + b"}" * 20000
_WHOLE = (
    b"",
    b"\0",
    b"null",
    b"[]",
    b"{}",
    b'"x"',
    b"NaN",
    b"\xff\xfe\x00",
    b"{",
    b"\xef\xbb\xbf{}",
    b"1" * 6000,
    _DEEP,
)
SPOILED_JSON = st.sampled_from(range(len(_WHOLE)))
"""Numbers of whole contents, for `spoiled_json`."""


def spoiled_json(number: int) -> bytes:
    """A content that is no JSON object, or an empty or very deep one."""
    return _WHOLE[number]


_SHARES = st.integers(0, 1000)
BYTE_EDITS = st.one_of(
    st.tuples(st.just("cut"), _SHARES, st.just(b"")),
    st.tuples(st.just("set"), _SHARES, st.binary(min_size=1, max_size=4)),
    st.tuples(st.just("set"), st.integers(0, 30).map(lambda place: -place), st.binary(min_size=1, max_size=4)),
    st.tuples(st.just("insert"), _SHARES, st.binary(min_size=1, max_size=8)),
    st.tuples(st.just("whole"), st.just(0), st.sampled_from((b"", b"\0", b"x" * 100, b"\x1f\x8b\x08"))),
)
"""One edit: (action, place in thousandths or, negative, in bytes from the start, bytes)."""


def edited_bytes(content: bytes, edits: Any) -> bytes:
    """A copy with the edits done one after the other."""
    for action, place, what in edits:
        at = min(-place, len(content)) if place < 0 else len(content) * place // 1000
        if action == "cut":
            content = content[:at]
        elif action == "whole":
            content = what
        else:
            behind = at + len(what) if action == "set" else at
            content = content[:at] + what + content[behind:]
    return content


_TYPES = ("float64", "float16", "bfloat16", "int8", "int64", "bool", "uint8", "complex64")
_TENSOR_ACTIONS = ("cut", "flat", "unsqueeze", "more", "empty", "scalar", "drop", "rename", "swap", "transpose")
_FILLS = (NAN, INF, -INF, 1e38, 1e-38, 0.0, -1.0)
TENSOR_EDITS = st.one_of(
    st.tuples(st.integers(0, 40), st.sampled_from(_TENSOR_ACTIONS), st.just(None)),
    st.tuples(st.integers(0, 40), st.just("type"), st.sampled_from(_TYPES)),
    st.tuples(st.integers(0, 40), st.sampled_from(("fill", "one")), st.sampled_from(_FILLS)),
    st.tuples(st.just(-1), st.sampled_from(("cut", "more", "drop", "empty")), st.just(None)),
    st.tuples(st.just(-1), st.just("type"), st.sampled_from(_TYPES)),
)
"""One edit: (number of the tensor modulo how many there are, or -1 for all of them, action, with what)."""


def edited_tensors(tensors: dict[str, Tensor], edits: Any) -> dict[str, Tensor]:
    """A copy with the edits done one after the other."""
    tensors = dict(tensors)
    for number, action, what in edits:
        names = sorted(tensors)
        for name in names if number < 0 else names[number % len(names) :][:1] if names else []:
            tensor = tensors.pop(name)
            if action == "rename":
                tensors[name + ".x"] = tensor
            elif action == "swap" and names[0] in tensors:
                tensors[name], tensors[names[0]] = tensors[names[0]], tensor
            elif action != "drop":
                tensors[name] = _edited(tensor, action, what).contiguous().clone()
    return tensors


def _whole(tensor: Tensor) -> int:
    """The largest integer of a tensor whose negative is one, too."""
    if tensor.dtype in (torch.uint8, torch.bool):
        return 0
    return 1 if tensor.is_complex() else torch.iinfo(tensor.dtype).max


def _edited(tensor: Tensor, action: str, what: Any) -> Tensor:
    if action == "cut":
        return tensor[:1] if tensor.ndim else tensor
    if action == "more":
        return torch.cat([tensor, tensor]) if tensor.ndim else tensor.reshape(1).repeat(2)
    if action == "type":
        return tensor.to(getattr(torch, what))
    if action == "fill":
        return torch.full_like(tensor, what if tensor.is_floating_point() else _whole(tensor))
    if action == "one":
        changed = tensor.clone()
        changed.view(-1)[:1] = what if tensor.is_floating_point() else -_whole(tensor)
        return changed
    shaped = {
        "flat": tensor.flatten(),
        "unsqueeze": tensor[None],
        "empty": tensor.flatten()[:0],
        "transpose": tensor.mT if tensor.ndim > 1 else tensor,
    }
    return shaped[action] if action in shaped else tensor.flatten()[:1].reshape(())


def dumped(value: Any) -> bytes:
    """JSON as Python writes it, NaN and lone surrogates included."""
    return json.dumps(value).encode()
