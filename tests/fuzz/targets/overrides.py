"""key=value words behind recipes: what is run where it is small, a dry run where it is not."""

from typing import Any

from hypothesis import strategies as st

from odfa import recipes
from odfa.settings import keys
from tests.fuzz.base import Draw, Room, Target
from tests.fuzz.odd import FEW, ODD_WORDS, fitting
from tests.fuzz.stock import SMALL, TEXT

_KEYS = {
    name: {
        key: place.hint
        for key, place in keys(recipe.make()).items()
        if place.settings is None and key not in ("recipe", "steps", "epochs")
    }
    for name, recipe in recipes.listed().items()
}
_BEFORE = {
    "fashion": ("images", "validation=4", "batch_size=2", "limit=8"),
    "climatebench": ("climatebench", "batch_size=2", "limit=8"),
    "climate": ("climate", "batch_size=2", "limit=8"),
    "dialogue": ("corpus", *TEXT, "rank=2"),
}
"""What makes a recipe small: its data out of stock, and settings."""
_NAMES = ("digits_tiny", *(name for name in _KEYS if name.endswith("_tiny")), "dialogue_llama", "fashion_unet")


class Overrides(Target):
    """{"recipe", "words", "dry"}."""

    name, share = "overrides", 8

    def draw(self, draw: Draw) -> Any:
        recipe = draw(st.sampled_from(("digits_tiny",) * 6 + _NAMES))
        hints = _KEYS[recipe]
        words = []
        for _ in range(draw(FEW)):
            key = draw(st.sampled_from(list(hints)))
            value = draw(fitting(hints[key]))
            text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
            if draw(st.integers(0, 4)) == 4:
                text = draw(ODD_WORDS)
            elif draw(st.integers(0, 9)) == 9:
                key = draw(st.sampled_from((key.rpartition(".")[2], key + "s", "." + key, key.upper(), "")))
            words.append(f"{key}={text}")
        return {"recipe": recipe, "words": words, "dry": recipe != "digits_tiny" or draw(st.integers(0, 2)) == 2}

    def lay(self, value: Any, room: Room) -> None:
        pass

    def run(self, value: Any, room: Room) -> Any:
        stock, *small = next(
            (row for start, row in _BEFORE.items() if value["recipe"].startswith(start)), (None, *SMALL)
        )
        before = small if stock is None else (f"data.path={getattr(room.stock, stock)}", *small)
        words = ("train", value["recipe"], *before, *value["words"], "steps=1", "--json")
        return room.odfa(*words, *(("--dry-run",) if value["dry"] else ("--run-dir", str(room.given / "run"))))
