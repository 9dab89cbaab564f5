"""A feedback's own attributes, put back when a measurement has asked it for signals."""

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from odfa.engine.rules import AbstractFeedback

_PLAIN = (type(None), bool, int, float, complex, str, bytes, tuple, frozenset, Tensor, dict, list, deque, set)


def remember(feedback: AbstractFeedback, model: nn.Module) -> Callable[[], None]:
    """A call that puts back the plain attributes of `feedback`, and of feedbacks among them, as they are now.

    Plain are tensors, numbers, texts and None, and lists, dictionaries, sets and tuples of them. They are changed back
    in place, as others may hold them too. Objects of other classes, such as a projection that has got its shape, and
    tensors of the model stay as they are found; what counts of them is in the feedback's `state_dict`.
    """
    return _of_feedback(feedback, {id(tensor) for tensor in (*model.parameters(), *model.buffers())})


def _of_feedback(feedback: AbstractFeedback, seen: set[int]) -> Callable[[], None]:
    seen.add(id(feedback))
    attributes = vars(feedback)
    ways = {name: _way_back(value, seen) for name, value in attributes.items()}

    def put_back() -> None:
        for name in [name for name, value in attributes.items() if name not in ways and isinstance(value, _PLAIN)]:
            del attributes[name]
        for name, way in ways.items():
            value = way()
            if isinstance(value, _PLAIN) and isinstance(attributes.get(name), _PLAIN):
                attributes[name] = value

    return put_back


def _way_back(value: Any, seen: set[int]) -> Callable[[], Any]:
    """A call that returns `value` with the content that it has now; `seen` are objects that are left alone."""
    if id(value) in seen or not isinstance(value, (AbstractFeedback, Tensor, dict, list, deque, set, tuple)):
        return lambda: value
    seen.add(id(value))
    if isinstance(value, AbstractFeedback):
        return partial(_feedback, value, _of_feedback(value, seen))
    if isinstance(value, Tensor):
        # an inference tensor does not tell whether it was changed
        version = None if value.is_inference() else value._version
        return partial(_tensor, value, version, value.detach().clone())
    if isinstance(value, dict):
        return partial(_dictionary, value, {key: _way_back(item, seen) for key, item in value.items()})
    if isinstance(value, set):
        return partial(_set, value, set(value))
    return partial(_sequence, value, [_way_back(item, seen) for item in value])


def _feedback(value: AbstractFeedback, put_back: Callable[[], None]) -> AbstractFeedback:
    put_back()
    return value


@torch.no_grad()
def _tensor(value: Tensor, version: int | None, content: Tensor) -> Tensor:
    if version is None or value._version != version:
        with torch.inference_mode(value.is_inference()):
            value.copy_(content)
    return value


def _dictionary(value: dict[Any, Any], ways: dict[Any, Callable[[], Any]]) -> dict[Any, Any]:
    content = {key: way() for key, way in ways.items()}
    value.clear()
    value.update(content)
    return value


def _set(value: set[Any], content: set[Any]) -> set[Any]:
    value.clear()
    value.update(content)
    return value


def _sequence(value: Any, ways: list[Callable[[], Any]]) -> Any:
    content = [way() for way in ways]
    if not isinstance(value, tuple):
        value.clear()
        value.extend(content)
    return value
