"""Saved values: JSON without NaN, and the form that values are checked for before they are used."""

import json
import math
import sys
from typing import Any

import torch
from torch import Tensor

from odfa.errors import CheckpointError, NonFinite

Form = Any
"""What a saved value must look like: `int` (zero or more, 64 bits), `float` (finite; an int will do), `bool`, `str`,
None, `Tensor` (finite values), a tensor (its dtype and shape, too), a tuple of forms (one of them), a list of forms,
`[form, ...]` (any number), a dict of forms by name, `{str: form}` (any names), `object` (anything)."""
Json = dict[str, Any]
"""A JSON object: values are None, truth values, numbers, text, lists and objects of these."""
State = dict[str, Any]
"""What `state_dict` returns and `load_state_dict` takes: numbers, text, tensors and states of parts by name."""
_WORDS = {
    int: "an integer of zero or more",
    float: "a finite number",
    bool: "true or false",
    str: "text",
    Tensor: "a tensor",
}
_SHOWN, _LONGEST = 60, 300
"""Characters of a value, and of a name, that messages show."""


def to_json(value: object, *, indent: int | None = None, sort_keys: bool = True) -> bytes:
    """JSON text of a value, the same bytes for equal values; with `indent` for people to read.

    Raises:
        NonFinite: there is NaN or infinity in it, which JSON does not have.
    """
    separators = (",", ":") if indent is None else None
    try:
        return json.dumps(value, sort_keys=sort_keys, separators=separators, indent=indent, allow_nan=False).encode()
    except ValueError as error:
        raise NonFinite(f"{_not_finite(value, '') or error}: expected a finite number") from error


def from_json(text: str | bytes) -> Any:
    """The value that `text` spells.

    Raises:
        ValueError: it is not JSON, nested too deeply, or holds a number that is not finite.
    """
    try:
        return json.loads(text, parse_constant=_finite, parse_float=_finite)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def misfit(value: object, form: Form, name: str) -> str | None:
    """What is wrong with a saved value called `name`, in one line; None: it has the form."""
    # a line and not an exception, because a tuple of forms tries one after the other
    if form is object:
        return None
    if isinstance(form, tuple):
        found = [misfit(value, one, name) for one in form]
        return None if None in found else found[-1]
    if isinstance(form, dict):
        return _misfit_of_names(value, form, name)
    if isinstance(form, list):
        return _misfit_of_list(value, form, name)
    if isinstance(form, Tensor):
        return _misfit_of_tensor(value, form, name)
    if form is None or value is None:
        return None if value is form else f"{name}: expected {_what(form)}, got {shown(value)}"
    return None if _fits(value, form) else f"{name}: expected {_what(form)}, got {shown(value)}"


def check_state(state: object, form: Form, name: str) -> None:
    """Refuse a saved state called `name` that does not have the form.

    Raises:
        CheckpointError: its form is another one; the message names the first part that differs.
    """
    wrong = misfit(state, form, name)
    if wrong:
        raise CheckpointError(f"the saved state does not fit: {wrong}")


def shown(value: object) -> str:
    """A value for a message: in one line and not long."""
    if isinstance(value, Tensor):
        return f"{value.dtype} of shape {tuple(value.shape)}".removeprefix("torch.")
    text = ascii(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def word(key: str) -> str:
    """A saved name for a message: in one line and not long."""
    return key if key.isprintable() and len(key) <= _LONGEST else shown(key)


def finite(tensor: Tensor) -> bool:
    """True without NaN and infinity; found without a copy of the values."""
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    return bool(torch.isfinite(torch.stack(tensor.aminmax())).all())  # NaN passes through


def _fits(value: Any, form: type) -> bool:
    if form is int:
        return type(value) is int and 0 <= value < 2**63  # not isinstance: True is an int
    if form is float:
        return type(value) in (int, float) and abs(value) <= sys.float_info.max
    if form is Tensor:
        return isinstance(value, Tensor) and finite(value)
    return type(value) is form


def _what(form: Form) -> str:
    if form is None:
        return "nothing"
    if isinstance(form, dict):
        return "an object"
    if isinstance(form, list):
        return "a list"
    return shown(form) if isinstance(form, Tensor) else _WORDS[form]


def _misfit_of_names(value: object, form: dict[Any, Form], name: str) -> str | None:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        return f"{name}: expected an object, got {shown(value)}"
    forms = dict.fromkeys(value, form[str]) if str in form else form
    for key in forms:
        if key not in value:
            return f"{name}: {key} is missing"
    for key in value:
        if key not in forms:
            return f"{name}: {shown(key)} is unknown"
    return next(filter(None, (misfit(value[key], forms[key], f"{name}.{word(key)}") for key in forms)), None)


def _misfit_of_list(value: object, form: list[Form], name: str) -> str | None:
    forms = form
    if isinstance(value, list) and form[1:] == [...]:
        forms = form[:1] * len(value)
    if not isinstance(value, list) or len(value) != len(forms):
        number = "any number" if form[1:] == [...] else len(form)
        return f"{name}: expected a list of {number}, got {shown(value)}"
    pairs = zip(value, forms, strict=True)
    return next(filter(None, (misfit(one, of, f"{name}[{i}]") for i, (one, of) in enumerate(pairs))), None)


def _misfit_of_tensor(value: object, form: Tensor, name: str) -> str | None:
    if not isinstance(value, Tensor) or (value.dtype, value.shape) != (form.dtype, form.shape):
        return f"{name}: expected {shown(form)}, got {shown(value)}"
    return None if value.is_meta or finite(value) else f"{name}: holds NaN or infinity"


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is not finite")
    return number


def _not_finite(value: object, name: str) -> str | None:
    """Name and value of the first number that is not finite."""
    if isinstance(value, float):
        return None if math.isfinite(value) else f"{name.removeprefix('.')} is {value}"
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    return next(filter(None, (_not_finite(inner, f"{name}.{key}") for key, inner in items)), None)
