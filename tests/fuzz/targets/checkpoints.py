"""Checkpoints whose tensors and state were changed, behind a manifest that was made anew (or left as it was)."""

import json
from typing import Any

from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from odfa.store.shards import seal
from tests.fuzz.base import Draw, Room, Target
from tests.fuzz.odd import (
    BYTE_EDITS,
    ODD_JSON,
    SPOILED_JSON,
    TENSOR_EDITS,
    dumped,
    edited_bytes,
    edited_json,
    edited_tensors,
    json_paths,
    spoiled_json,
)
from tests.fuzz.targets.configs import commands, use

_TENSORS = ("model", "optimizer", "state", "average")
_FIXED = (("step",), ("seconds",), ("projecting_s",), ("config",), ("projection",), ("dfa",), ("log_sizes",))
_INNER = (("log_sizes", "metrics"), ("log_sizes", "timing"), ("dfa", "items"), ("dfa", "items", 0), ("dfa", "items", 1))


class Checkpoints(Target):
    """{"run", "command", "sealed"} and {"file", "tensors"}, {"file", "bytes"}, {"state"}, {"whole"} or {"name"}."""

    name, share = "checkpoints", 9

    def draw(self, draw: Draw) -> Any:
        kind = draw(st.sampled_from(("dfa", "bp", "odfa", "aligned", "text")))
        value = {
            "run": kind,
            "command": draw(commands(kind, ("resume", "resume", "resume", "align", "load"))),
            "sealed": draw(st.integers(0, 9)) < 9,
        }
        way = draw(st.sampled_from(("tensors", "tensors", "tensors", "state", "state", "bytes", "whole", "name")))
        file = draw(st.sampled_from(_TENSORS))
        if way == "tensors":
            return {**value, "file": file, "tensors": draw(st.lists(TENSOR_EDITS, min_size=1, max_size=2))}
        if way == "bytes":
            return {**value, "file": file, "bytes": draw(st.lists(BYTE_EDITS, min_size=1, max_size=2))}
        if way == "state":
            # deeper places are named by number, because each rule has another state
            path = draw(st.sampled_from(_FIXED + _INNER) | st.integers(0, 200))
            edit = draw(st.tuples(st.sampled_from(("set", "set", "drop")), ODD_JSON))
            return {**value, "state": (path, *edit)}
        if way == "whole":
            return {**value, "whole": draw(SPOILED_JSON)}
        return {**value, "name": draw(st.sampled_from(("step_0000000", "step_0000002", "step_9999999", "step_-1")))}

    def lay(self, value: Any, room: Room) -> None:
        run = room.stock.copy_run(value["run"], room.given / "run", complete=False)
        folder = run / "checkpoints" / "step_0000001"
        state, file = folder / "state.json", folder / f"{value.get('file', 'model')}.safetensors"
        if "tensors" in value:
            save_file(edited_tensors(load_file(file) if file.exists() else {}, value["tensors"]), file)
        elif "bytes" in value:
            file.write_bytes(edited_bytes(file.read_bytes() if file.exists() else b"", value["bytes"]))
        elif "state" in value:
            state.write_bytes(dumped(self._edited_state(json.loads(state.read_text()), *value["state"])))
        elif "whole" in value:
            state.write_bytes(spoiled_json(value["whole"]))
        if value["sealed"]:
            (folder / "manifest.json").unlink()
            seal(folder)
        if "name" in value:
            folder.rename(folder.with_name(value["name"]))

    def _edited_state(self, state: Any, place: Any, action: str, what: Any) -> Any:
        paths = list(json_paths(state))
        return edited_json(state, [(paths[place % len(paths)] if isinstance(place, int) else place, action, what)])

    def run(self, value: Any, room: Room) -> Any:
        return use(value["command"], str(room.given / "run"), room)
