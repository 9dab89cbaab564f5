"""What several tests of recipes ask."""

from collections.abc import Callable
from pathlib import Path

import pytest

from odfa.cli import main

Refused = Callable[[tuple[str, ...], str], None]


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Asserts that `odfa train` with these words says this, exits with 2 and leaves no run folder."""

    def check(words: tuple[str, ...], told: str) -> None:
        code = main(["train", *words, "--run-dir", str(tmp_path / "run")])
        said = capsys.readouterr().err
        assert (code, told in said) == (2, True), said
        assert not (tmp_path / "run").exists()

    return check
