"""config.json, data.json and tokenizer.json of a run folder: edited, or no JSON object at all."""

import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from odfa import recipes
from odfa.errors import OdfaError
from odfa.session import RunConfig
from odfa.settings import digest, from_dict, keys, to_dict
from odfa.store import load_run
from odfa.store.shards import seal
from tests.fuzz.base import Draw, Room, Target
from tests.fuzz.odd import (
    FEW,
    ODD_JSON,
    SPOILED_JSON,
    dumped,
    edited_json,
    fitting,
    json_edits,
    json_paths,
    spoiled_json,
)

_COMMANDS = ("resume", "resume", "align", "load")
_ARMS = {"bp": "bp", "dfa": "dfa", "odfa": "odfa", "aligned": "dfa:aligned", "text": "dfa"}
"""Kind of run in stock → its arm."""
_KINDS = st.sampled_from(tuple(_ARMS))


def commands(run: str, among: tuple[str, ...] = _COMMANDS) -> st.SearchStrategy[str]:
    """What can be done with a run: texts can also be sampled and exported."""
    return st.sampled_from((*among, *(("sample", "export") if run == "text" else ())))


def use(command: str, run: str, room: Room) -> Any:
    """Do one thing with a run folder."""
    if command == "load":
        return load_run(run).metrics
    words = {
        "resume": ("train", "--resume", run),
        "align": ("align", run),
        "sample": ("sample", run, "count=1", "tokens=2"),
        "image": ("align", run, f"out={room.given / 'angles.png'}"),
        "export": ("export", run, str(room.given / "exported")),
        "again": ("train", "digits_tiny", "--run-dir", run),
    }
    return room.odfa(*words[command], "--json")


class Configs(Target):
    """{"run", "command", "complete", "file"} and one of {"edits"}, {"places"}, {"settings", "owned"}, {"whole"}.

    A tokenizer.json is always the one that data.json names, as in a stranger's folder. Owned: the checkpoint is made to
    say that it belongs to the changed config, likewise.
    """

    name, share = "configs", 6

    def draw(self, draw: Draw) -> Any:
        kind = draw(_KINDS)
        value = {
            "run": kind,
            "command": draw(commands(kind)),
            "complete": draw(st.integers(0, 3)) == 3,
            "file": draw(
                st.sampled_from(("config", "config", "config", "data", "tokenizer")[: 5 if kind == "text" else 4])
            ),
        }
        if value["file"] != "config":
            if draw(st.integers(0, 5)) == 5:
                return {**value, "whole": draw(SPOILED_JSON)}
            # places are named by number, because the values are not known before there is a run
            edit = st.tuples(st.integers(0, 400), st.sampled_from(("set", "set", "set", "drop")), ODD_JSON)
            return {**value, "places": draw(st.lists(edit, min_size=1, max_size=2))}
        way = draw(st.sampled_from(("settings", "settings", "settings", "edits", "whole")))
        if way == "whole":
            return {**value, "whole": draw(SPOILED_JSON)}
        config = recipes.get("dialogue_tiny" if kind == "text" else "digits_tiny", _ARMS[kind])
        if way == "edits":
            return {**value, "edits": draw(st.lists(json_edits(to_dict(config)), min_size=1, max_size=2))}
        # a run that is asked to do more steps rightly takes longer
        hints = {
            key: place.hint
            for key, place in keys(config).items()
            if place.settings is None and key not in ("steps", "epochs")
        }
        settings = {}
        for _ in range(draw(FEW)):
            key = draw(st.sampled_from(list(hints)))
            settings[key] = draw(fitting(hints[key]))
        return {**value, "settings": settings, "owned": draw(st.integers(0, 3)) < 3}

    def lay(self, value: Any, room: Room) -> None:
        run = room.stock.copy_run(value["run"], room.given / "run", complete=value["complete"])
        file = run / f"{value['file']}.json"
        if not file.exists():
            return
        if "whole" in value:
            file.write_bytes(spoiled_json(value["whole"]))
        elif "places" in value:
            kept = json.loads(file.read_text())
            paths = list(json_paths(kept))
            edits = [(paths[place % len(paths)], action, what) for place, action, what in value["places"]]
            file.write_bytes(dumped(edited_json(kept, edits)))
        else:
            self._edit_config(file, value)
        if value["file"] == "tokenizer":
            named = json.loads((run / "data.json").read_text())
            named["tokenizer"] = hashlib.sha256(file.read_bytes()).hexdigest()
            (run / "data.json").write_bytes(dumped(named))

    def _edit_config(self, file: Path, value: Any) -> None:
        config = json.loads(file.read_text())
        edits = [(tuple(key.split(".")), "set", what) for key, what in value.get("settings", {}).items()]
        config = edited_json(config, value.get("edits", edits))
        file.write_bytes(dumped(config))
        if value.get("owned"):
            with contextlib.suppress(OdfaError):  # a config that no run can have belongs to nobody
                _own(file.parent, digest(from_dict(config, RunConfig)))

    def run(self, value: Any, room: Room) -> Any:
        return use(value["command"], str(room.given / "run"), room)


def _own(run: Path, name: str) -> None:
    for folder in (run / "checkpoints").iterdir():
        state = json.loads((folder / "state.json").read_text())
        (folder / "state.json").write_bytes(dumped({**state, "config": name}))
        (folder / "manifest.json").unlink()
        seal(folder)
