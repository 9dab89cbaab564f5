"""docs/extending.md does what it says: its files, its commands, from outside the package."""

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"`(my_lab/\w+\.py)`:\n\n```python\n(.*?)```", PAGE, re.DOTALL))
SECTIONS = re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
COMMANDS = {
    title: [line[2:] for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    for title, text in SECTIONS
}

DRIVER = """
from odfa.cli import main

def run(commands):
    for command in commands:
        try:
            code = main(command)
        except SystemExit as told:  # --help
            code = told.code
        assert not code, command

run"""
"""One process for all commands of a section: starting Python is what takes time."""


def test_the_page_has_a_file_and_commands_for_each_of_the_six() -> None:
    names = ["signs", "largest", "dim", "rings", "ring_samples", "seconds"]
    assert list(FILES) == [f"my_lab/{name}.py" for name in names]
    assert [len(commands) for commands in COMMANDS.values()] == [0, 4, 2, 2, 5, 3, 1, 0]


@pytest.mark.parametrize("title", [title for title, commands in COMMANDS.items() if commands])
def test_a_stranger_s_files_are_taken_without_an_edit_here(tmp_path: Path, title: str) -> None:
    (tmp_path / "my_lab").mkdir()
    (tmp_path / "my_lab/__init__.py").touch()
    for name, source in FILES.items():
        (tmp_path / name).write_text(source, encoding="utf-8")
    _install(tmp_path / "my_lab-1.0.dist-info")
    places = os.pathsep.join([str(tmp_path), str(ROOT / "src")])
    words = [shlex.split(command) for command in COMMANDS[title]]
    assert {command[0] for command in words} == {"odfa"}
    done = subprocess.run(
        [sys.executable, "-c", f"{DRIVER}({[command[1:] for command in words]!r})"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": places, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    for config in (tmp_path / "runs").glob("*/config.json"):
        assert '"type": "my_lab.' in json.dumps(json.loads(config.read_text()))
    figures = {file.name for file in (tmp_path / "runs/all").glob("*.png")}
    assert figures == ({"comparison.png", "seconds.png"} if title.startswith("A figure") else set())


REFUSED = {
    "train my_lab.rings:rings layers=0": "network.layers: expected a positive number, got 0",
    "train my_lab.rings:rings width=-3": "network.width: expected a positive number, got -3",
    "train my_lab.rings:rings width=0": "network.width: expected a positive number, got 0",
    "train my_lab.rings:rings smoothing=2": "task.smoothing: expected a share in [0, 1), got 2.0",
    "train my_lab.rings:rings points=1.5": "data.points: expected an integer, got '1.5'",
    "train digits_tiny rule=my_lab.signs:Signs rule.strength=-1": "rule.strength: expected a positive number, got -1.0",
}


def test_the_page_s_classes_refuse_what_they_cannot_use(tmp_path: Path) -> None:
    (tmp_path / "my_lab").mkdir()
    (tmp_path / "my_lab/__init__.py").touch()
    for name, source in FILES.items():
        (tmp_path / name).write_text(source, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", f"from odfa.cli import main\nfor words in {[*REFUSED]!r}: print(main(words.split()))"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT / "src")]), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["2"] * len(REFUSED), done.stderr
    assert done.stderr.splitlines() == [f"odfa: {told}" for told in REFUSED.values()]
    assert not (tmp_path / "runs").exists()


def _install(info: Path) -> None:
    """The page's entry points, as pip would leave them."""
    (points,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    groups = tomllib.loads(points)["project"]["entry-points"]
    lines: list[str] = []
    for group, named in groups.items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in named.items())]
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-lab\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text("\n".join(lines), encoding="utf-8")
