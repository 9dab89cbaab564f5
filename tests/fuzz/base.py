"""What a fuzzer's target is, and the room that an input is tried in.

An input is a plain value (tuples, dicts, text, bytes, numbers), so that its repr is the whole of it: what the campaign
prints can be given back to `python -m tests.fuzz.campaign replay TARGET INPUT`.
"""

import contextlib
import io
import pickle
import shutil
import sys
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from hypothesis import strategies as st

from odfa.cli import main
from tests.fuzz.stock import Stock

Draw = Callable[[st.SearchStrategy[Any]], Any]


@dataclass(frozen=True)
class Said:
    """What a command left behind."""

    words: tuple[str, ...]
    code: int | str | None
    out: str
    err: str


class Target(ABC):
    """One kind of input."""

    name: ClassVar[str]
    share: ClassVar[int] = 1
    """How many inputs it gets, beside the other targets' shares."""

    @abstractmethod
    def draw(self, draw: Draw) -> Any:
        """An input; small and harmless ones come first in every strategy."""

    @abstractmethod
    def lay(self, value: Any, room: "Room") -> None:
        """Put the input's files into `room.given`."""

    @abstractmethod
    def run(self, value: Any, room: "Room") -> Any:
        """Do what is done with such an input; what comes of it: `Said`, or values that must be finite."""

    def inputs(self) -> st.SearchStrategy[Any]:
        """The strategy made of `draw`."""
        return st.composite(lambda draw: self.draw(draw))()


class Room:
    """given/: what is asked to be read and written. cwd/ and outside/: what nobody may touch. Made anew for each input.

    given/ has another name each time, because readers remember what they found at a path.
    """

    def __init__(self, root: Path, stock: Stock) -> None:
        self.root, self.stock, self._number = root, stock, 0
        self.cwd, self.outside, self.marker = root / "cwd", root / "outside", root / "outside" / "executed"
        self.given = root / "given"

    def clear(self) -> None:
        """Empty rooms, and something to damage outside."""
        shutil.rmtree(self.given, ignore_errors=True)
        self._number += 1
        self.given = self.root / f"given-{self._number}"
        self.given.mkdir(parents=True)
        self.furnish()

    def furnish(self) -> None:
        """What nobody may touch, as new."""
        for folder in (self.cwd, self.outside):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        for name in ("victim.txt", "victim.json", "folder/kept.txt", "checkpoints/step_0000001/kept.txt"):
            file = self.outside / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text('{"kept": true}')
        (self.cwd / "payload.py").write_text(self.code)

    @property
    def code(self) -> str:
        """A module that tells on whoever runs it."""
        return f"open({str(self.marker)!r}, 'w').close()\nmake = Model = Config = None\n"

    @property
    def pickled(self) -> bytes:
        """A pickle that does."""
        return pickle.dumps(_Bomb(str(self.marker)))

    def odfa(self, *words: str) -> Said:
        """Run a command line."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code: Any = main(list(words))
            except SystemExit as left:  # --help
                code = left.code or 0
        return Said(words, code, out.getvalue(), err.getvalue())

    @contextlib.contextmanager
    def entered(self) -> Any:
        """As a process of its own would stand there: its current folder, its path of modules, nothing on its input."""
        path, modules, threads, stdin = list(sys.path), set(sys.modules), torch.get_num_threads(), sys.stdin
        sys.path.insert(0, str(self.cwd))
        sys.stdin = io.StringIO()
        torch.manual_seed(0)
        try:
            with contextlib.chdir(self.cwd), warnings.catch_warnings():
                warnings.simplefilter("default")
                yield
        finally:
            sys.path[:], sys.stdin = path, stdin
            torch.set_num_threads(threads)
            for name in set(sys.modules) - modules:
                if name.partition(".")[0] == "payload":
                    del sys.modules[name]


class _Bomb:
    def __init__(self, marker: str) -> None:
        self._marker = marker

    def __reduce__(self) -> Any:
        return open, (self._marker, "w")
