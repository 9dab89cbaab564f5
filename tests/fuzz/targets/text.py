"""Text corpora: encodings, special tokens, lengths, folders of files, Cornell Movie-Dialogs."""

from typing import Any

from hypothesis import strategies as st

from odfa.tasks.language.dialogue import read_documents
from odfa.tasks.language.text import load_text
from tests.fuzz.base import Draw, Room, Target
from tests.fuzz.odd import BYTE_EDITS, edited_bytes
from tests.fuzz.stock import TEXT

_PIECES = (
    b"some words, and more of them\n", b"<|a|>hi<|b|>you\n", b"<|end|>", b"\xef\xbb\xbf", b"caf\xe9\n", b"\0\0",
    b"\r\n", b"\n\n\n", b" ", b"\xed\xa0\xbd", "\u2028\u202e\U0001f600é\n".encode(), b"x" * 3000, b"a\nb\nc\n" * 60,
    b"\xff\xfeh\0i\0", b"L1 +++$+++ u0 +++$+++ m0 +++$+++ A +++$+++ hi there\n",
    b"u0 +++$+++ u1 +++$+++ m0 +++$+++ ['L1', 'L1']\n",
    b"u0 +++$+++ u1 +++$+++ m0 +++$+++ __import__('payload')\n",
    b"u0 +++$+++ u1 +++$+++ m0 +++$+++ " + b"(" * 3000 + b"\n",
)  # fmt: skip
_NAMES = (
    "talk.txt",
    "a/b.txt",
    "movie_lines.txt",
    "movie_conversations.txt",
    "x.json",
    "odd\udcff.txt",
    "line\n.txt",
    "c.md",
)


def use(command: str, path: str, room: Room) -> Any:
    """Read a corpus, cut it into tokens, or train on it."""
    if command == "read":
        "".join(piece for document in read_documents(path) for _, piece in document).encode()  # what no tokenizer takes
        return None
    if command == "load":
        splits = load_text(path, context=8, vocabulary=270, holdout=0.2)
        return [splits.train.x_ND, splits.bytes_V if hasattr(splits, "bytes_V") else None]
    words = ("train", "dialogue_tiny", *TEXT, "rank=2", f"path={path}", "holdout=0.2", "steps=1")
    return room.odfa(
        *words, *(("--dry-run",) if command == "dry" else ("--run-dir", str(room.given / "run"))), "--json"
    )


class Text(Target):
    """{"files": {name: [(number of a piece, times)]}, "edits", "path": name or None for the folder, "command"}."""

    name, share = "text", 5

    def draw(self, draw: Draw) -> Any:
        pieces = st.lists(
            st.tuples(st.integers(0, len(_PIECES) - 1), st.sampled_from((1, 60, 3))), min_size=1, max_size=4
        )
        files = draw(st.dictionaries(st.sampled_from(_NAMES), pieces, min_size=1, max_size=3))
        return {
            "files": files,
            "many": draw(st.sampled_from((0, 0, 0, 45))),
            "edits": draw(st.lists(BYTE_EDITS, max_size=1)),
            "path": draw(st.none() | st.sampled_from(sorted(files))),
            "command": draw(st.sampled_from(("read", "read", "load", "load", "train", "dry"))),
        }

    def lay(self, value: Any, room: Room) -> None:
        folder = room.given / "corpus"
        for name, pieces in value["files"].items():
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(
                edited_bytes(b"".join(_PIECES[number] * times for number, times in pieces), value["edits"])
            )
        for number in range(value["many"]):
            (folder / f"{number}.txt").write_text("no words are lost here\n")

    def run(self, value: Any, room: Room) -> Any:
        return use(value["command"], str(room.given / "corpus" / (value["path"] or "")), room)
