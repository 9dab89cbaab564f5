"""key=value words behind recipes: what is run where it is small, a dry run where it is not."""

from functools import cache
from typing import Any

from hypothesis import strategies as st

from odfa import recipes
from odfa.settings import keys
from tests.fuzz.base import Draw, Room, Target
from tests.fuzz.odd import FEW, ODD_WORDS, fitting
from tests.fuzz.stock import SMALL, TEXT

_ARMS = ("dfa", "odfa", "bp", "shallow", "dfa:aligned", "tdfa:random", "identity")


@cache
def _hints(name: str, arm: str) -> dict[str, Any]:
    """Key → type, of one arm of a recipe."""
    return {
        key: place.hint
        for key, place in keys(recipes.get(name, arm)).items()
        if place.settings is None and key not in ("recipe", "steps", "epochs")
    }


_BEFORE = {
    "fashion": ("images", "validation=4", "batch_size=2", "limit=8"),
    "climatebench": ("climatebench", "batch_size=2", "limit=8"),
    "climate": ("climate", "batch_size=2", "limit=8"),
    "dialogue": ("corpus", *TEXT),
}
"""What makes a recipe small: its data out of stock, and settings."""
_NAMES = (
    "digits_tiny",
    *(name for name in recipes.listed() if name.endswith("_tiny")),
    "dialogue_llama",
    "fashion_unet",
)


class Overrides(Target):
    """{"recipe", "arm", "words", "dry"}."""

    name, share = "overrides", 8

    def draw(self, draw: Draw) -> Any:
        recipe = draw(st.sampled_from(("digits_tiny",) * 6 + _NAMES))
        arm = draw(st.sampled_from(_ARMS))
        hints = _hints(recipe, arm)
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
        return {
            "recipe": recipe,
            "arm": arm,
            "words": words,
            "dry": recipe != "digits_tiny" or draw(st.integers(0, 2)) == 2,
        }

    def lay(self, value: Any, room: Room) -> None:
        pass

    def run(self, value: Any, room: Room) -> Any:
        stock, *small = next(
            (row for start, row in _BEFORE.items() if value["recipe"].startswith(start)), (None, *SMALL)
        )
        before = small if stock is None else (f"data.path={getattr(room.stock, stock)}", *small)
        ranked = ("rank=2",) if "rule.rank" in _hints(value["recipe"], value["arm"]) else ()
        before = (f"arm={value['arm']}", *before, *ranked)
        words = ("train", value["recipe"], *before, *value["words"], "steps=1", "--json")
        return room.odfa(*words, *(("--dry-run",) if value["dry"] else ("--run-dir", str(room.given / "run"))))
