"""Folders of idx files: headers, labels, lengths, compression, kinds of files."""

import gzip
from typing import Any

from hypothesis import strategies as st

from odfa.tasks.vision.fashion import load_fashion
from tests.fuzz.base import Draw, Room, Target
from tests.fuzz.odd import BYTE_EDITS, edited_bytes
from tests.garments import idx

_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
_LENGTHS = st.sampled_from((0, 1, 2, 7, 8, 2**31, 2**32 - 1)) | st.integers(0, 12)


class Idx(Target):
    """{"side", "train", "test", "edits": {number of a file: (declared lengths, edits of bytes, form)}, "command"}."""

    name, share = "idx", 4

    def draw(self, draw: Draw) -> Any:
        edit = st.tuples(
            st.none() | st.lists(_LENGTHS, min_size=1, max_size=4),
            st.lists(BYTE_EDITS, max_size=2),
            st.sampled_from(("plain", "plain", "gzip", "cut gzip", "folder", "missing", "link", "pickle")),
        )
        return {
            "side": draw(st.sampled_from((8, 1, 2, 28))),
            "train": draw(st.sampled_from((12, 1, 5))),
            "test": draw(st.sampled_from((6, 1))),
            "edits": draw(st.dictionaries(st.integers(0, 3), edit, max_size=2)),
            "command": draw(st.sampled_from(("load", "load", "train", "dry"))),
        }

    def lay(self, value: Any, room: Room) -> None:
        for number, name in enumerate(_FILES):
            count, side = value["train" if number < 2 else "test"], value["side"]
            shape = (count, side, side) if number % 2 == 0 else (count,)
            values = bytes(k % 10 for k in range(count * (side * side if number % 2 == 0 else 1)))
            lengths, edits, form = value["edits"].get(number, (None, [], "plain"))
            content = edited_bytes(idx(shape if lengths is None else tuple(lengths), values), edits)
            file = room.given / (f"{name}.gz" if form.endswith("gzip") else name)
            if form == "folder":
                file.mkdir()
            elif form == "link":
                file.symlink_to(room.outside / "victim.txt")
            elif form != "missing":
                packed = gzip.compress(content, mtime=0) if form.endswith("gzip") else content
                file.write_bytes(packed[:-5] if form == "cut gzip" else room.pickled if form == "pickle" else packed)

    def run(self, value: Any, room: Room) -> Any:
        if value["command"] == "load":
            splits = load_fashion(str(room.given), validation=2).standardised()
            return [splits.train.x_ND, splits.validation.x_ND, splits.test.x_ND]
        words = (
            "train",
            "fashion_mlp_tiny",
            f"path={room.given}",
            "validation=2",
            "batch_size=2",
            "widths=6",
            "steps=1",
        )
        end = (
            ("--dry-run",) if value["command"] == "dry" else ("--run-dir", str(room.given / "run"), "tensorboard=false")
        )
        return room.odfa(*words, *end, "--json")
