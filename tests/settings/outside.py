"""What another package would bring."""

from dataclasses import dataclass

from tests.settings.test_settings import Coat

a_number = 3


@dataclass(frozen=True, kw_only=True)
class Fur(Coat):
    """Not in the slot's room."""

    animal: str = "mink"
    """Whose."""


def white_fur() -> Fur:
    """Made by a function."""
    return Fur(animal="bear")
