"""dataset.json of the form of chitchat."""

from typing import Any

from hypothesis import strategies as st

from tests.fuzz.base import Draw, Room, Target
from tests.fuzz.odd import SPOILED_JSON, dumped, edited_json, json_edits, spoiled_json
from tests.fuzz.targets.text import use

_SOUND = {
    f"c{k}": {
        "messages": [
            [{"sender": "ann", "text": f"is {k} more than {k % 3}?"}, {"sender": "ann", "text": "well?"}],
            [{"sender": "bob", "text": f"no, {k % 7} <|end|>"}],
        ]
    }
    for k in range(30)
}
_FIRST = {"c0": _SOUND["c0"]}


class Dialogue(Target):
    """{"edits" of the first conversation or "whole", "command"}."""

    name, share = "dialogue", 4

    def draw(self, draw: Draw) -> Any:
        value = {"command": draw(st.sampled_from(("read", "read", "load", "train")))}
        if draw(st.integers(0, 5)) == 5:
            return {**value, "whole": draw(SPOILED_JSON)}
        return {**value, "edits": draw(st.lists(json_edits(_FIRST), min_size=1, max_size=3))}

    def lay(self, value: Any, room: Room) -> None:
        whole = spoiled_json(value["whole"]) if "whole" in value else dumped(edited_json(_SOUND, value["edits"]))
        (room.given / "dataset.json").write_bytes(whole)

    def run(self, value: Any, room: Room) -> Any:
        return use(value["command"], str(room.given / "dataset.json"), room)
