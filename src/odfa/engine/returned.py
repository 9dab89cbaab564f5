"""What a rule returned, compared with its contract, so that a mistake in a rule of another package names the rule."""

from collections.abc import Sequence

from torch import Tensor

from odfa.engine.rules import AbstractFeedback, AbstractRule
from odfa.errors import ConfigError

_SHOWN = 4
"""Names in a message."""


def check_started(rule: AbstractRule, found: object) -> AbstractFeedback:
    """What `start` returned.

    Raises:
        ConfigError: it is no feedback.
    """
    if not isinstance(found, AbstractFeedback):
        raise ConfigError(
            f"rule {rule.name}: expected an AbstractFeedback from start, got {_described(found)}; return an "
            "instance of a class that derives from it"
        )
    return found


def check_signals(rule: AbstractRule, found: object, names: Sequence[str]) -> None:
    """What `signals` returned: kinds and number; the wiring compares shapes. Nothing is read from a device.

    Args:
        names: those of the signals that the wiring sends on.

    Raises:
        ConfigError: it is no list, its entries are no floating-point tensors, or there are too few or too many.
    """
    number = f"{len(names)} tensor{'' if len(names) == 1 else 's'}"
    wanted = f"rule {rule.name}: expected a list of {number} from signals"
    if not isinstance(found, list | tuple):
        raise ConfigError(f"{wanted}, got {_described(found)}; return [signal, …]")
    for place, signal in enumerate(found):
        if not (isinstance(signal, Tensor) and signal.is_floating_point()):
            raise ConfigError(
                f"{wanted}, got {_described(signal)} as number {place}; return floating-point tensors alone"
            )
    if len(found) != len(names):
        first = ", ".join([*names[:_SHOWN], *(["…"] if len(names) > _SHOWN else [])])
        raise ConfigError(f"{wanted}, got {len(found)}; return one each for {first or 'nobody'}, in this order")


def _described(found: object) -> str:
    if isinstance(found, Tensor):
        return f"a tensor of {str(found.dtype).removeprefix('torch.')}"
    return "None" if found is None else type(found).__name__
