"""Run folders from strangers: links to elsewhere, pipes, folders for files, files for folders, odd contents."""

import os
from typing import Any

from hypothesis import strategies as st

from tests.fuzz.base import Draw, Room, Target
from tests.fuzz.targets.configs import commands, use

_STEP = "checkpoints/step_0000001"
_PLACES = (
    *(".lock", ".status.json.partial", ".result.json.partial", ".environment.json.partial", ".config.json.partial"),
    *("status.json", "result.json", "environment.json", "config.json", "metrics.jsonl", "timing.jsonl", "tb"),
    *("checkpoints", _STEP, f"{_STEP}/model.safetensors", f"{_STEP}/state.json", f"{_STEP}/manifest.json"),
    *("checkpoints/.step_0000002.partial", "checkpoints/step_0000002", "checkpoints/.step_0000001.removed"),
    *(
        f"{_STEP}/extra",
        "checkpoints/step_x",
        "checkpoints/step_",
        "checkpoints/step_0000009",
        "tokenizer.json",
        "data.json",
    ),
)
_FORMS = ("link", "folder link", "dangling", "loop", "pipe", "folder", "empty", "odd", "pickle", "missing", "lines")
_COMMANDS = ("resume", "resume", "resume", "align", "align", "image", "load", "again")
_LINES = (
    b'{"step": 1}\n', b'{"step": NaN}\n', b"[1]\n", b'{"step": 1', b"\xff\n", b'{"step": 1, "loss": Infinity}\n',
    b'{"status": "complete", "step": 2}', b'{"status": 3}', b'{"sessions": {}}', b'{"sessions": [1]}', b"{}",
    b'{"status": "complete", "steps": 2, "metric": null}', b'{"fingerprint": "x"}',
)  # fmt: skip


class Folders(Target):
    """{"run", "command", "complete", "places": [(place, form, number)]}."""

    name, share = "folders", 7

    def draw(self, draw: Draw) -> Any:
        place = st.tuples(st.sampled_from(_PLACES), st.sampled_from(_FORMS), st.integers(0, len(_LINES) - 1))
        kind = draw(st.sampled_from(("dfa", "bp", "odfa", "text")))
        return {
            "run": kind,
            "command": draw(commands(kind, _COMMANDS)),
            "complete": draw(st.integers(0, 3)) == 3,
            "places": draw(st.lists(place, min_size=1, max_size=2)),
        }

    def lay(self, value: Any, room: Room) -> None:
        run = room.stock.copy_run(value["run"], room.given / "run", complete=value["complete"])
        for name, form, number in value["places"]:
            path = run / name
            if not path.parent.is_dir() or path.parent.is_symlink():
                continue
            if path.is_dir() and not path.is_symlink():
                path.rename(room.given / f"moved-{len(list(room.given.iterdir()))}")
            else:
                path.unlink(missing_ok=True)
            self._make(path, form, number, room)

    def _make(self, path: Any, form: str, number: int, room: Room) -> None:
        if form == "link":
            path.symlink_to(room.outside / ("victim.json" if path.suffix == ".json" else "victim.txt"))
        elif form == "folder link":
            path.symlink_to(room.outside / ("checkpoints" if path.name == "checkpoints" else "folder"))
        elif form == "dangling":
            path.symlink_to(room.outside / "new.txt")
        elif form == "loop":
            path.symlink_to(path.name)
        elif form == "pipe":
            os.mkfifo(path)
        elif form == "folder":
            path.mkdir()
            (path / "inner.txt").write_text("x")
        elif form != "missing":
            odd = {"empty": b"", "odd": b"\x80\x02\0odd", "pickle": room.pickled, "lines": _LINES[number]}
            path.write_bytes(odd[form])

    def run(self, value: Any, room: Room) -> Any:
        return use(value["command"], str(room.given / "run"), room)
