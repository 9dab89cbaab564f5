"""docs/extending.md does what it says: its files, its commands, from outside the package."""

import json
import os
import re
import shlex
import subprocess
import sys
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


def test_the_page_has_a_file_and_commands_for_each_of_the_four() -> None:
    assert list(FILES) == ["my_lab/signs.py", "my_lab/largest.py", "my_lab/dim.py", "my_lab/rings.py"]
    assert [len(commands) for commands in COMMANDS.values()] == [4, 2, 2, 5, 0]


@pytest.mark.parametrize("title", [title for title, commands in COMMANDS.items() if commands])
def test_a_stranger_s_files_are_taken_without_an_edit_here(tmp_path: Path, title: str) -> None:
    (tmp_path / "my_lab").mkdir()
    (tmp_path / "my_lab/__init__.py").touch()
    for name, source in FILES.items():
        (tmp_path / name).write_text(source, encoding="utf-8")
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
