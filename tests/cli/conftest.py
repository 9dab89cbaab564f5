import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from odfa.cli import main


@dataclass(frozen=True)
class Said:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output as one JSON object, on one line."""
        assert self.out.count("\n") == 1
        return json.loads(self.out)

    @property
    def complaint(self) -> str:
        """The line that begins with odfa:, after notes; there is one and no traceback."""
        lines = self.err.splitlines()
        assert [line.startswith("odfa: ") for line in lines] == [False] * (len(lines) - 1) + [True]
        assert "Traceback" not in self.err
        return lines[-1]


@pytest.fixture
def odfa(tmp_path, monkeypatch, capsys) -> Callable[..., Said]:
    """Run a command in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> Said:
        capsys.readouterr()
        code = main(list(words))
        captured = capsys.readouterr()
        return Said(code, captured.out, captured.err)

    return run
