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
import json, os, sys, traceback
import sklearn.datasets, torch._dynamo
from odfa import train
from odfa.cli import main

def run(commands):
    for command in commands:
        try:
            code = main(command)
        except SystemExit as told:  # --help
            code = told.code
        assert not code, command

for number, commands in enumerate(json.loads(sys.argv[1])):
    os.mkdir(f"section{number}")
    if os.fork():
        os.wait()
        continue
    os.chdir(f"section{number}")
    said = os.open("said.txt", os.O_WRONLY | os.O_CREAT)
    os.dup2(said, 1), os.dup2(said, 2)
    try:
        run(commands)
        print("done", flush=True)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(0)
"""
"""A process for each section, a copy of one that has imported what takes time and nothing of the page's."""


def test_the_page_has_a_file_and_commands_for_each_of_the_six() -> None:
    names = ["signs", "largest", "dim", "rings", "ring_samples", "seconds"]
    assert list(FILES) == [f"my_lab/{name}.py" for name in names]
    assert [len(commands) for commands in COMMANDS.values()] == [0, 4, 2, 2, 5, 3, 1, 0]


TAKEN = [title for title, commands in COMMANDS.items() if commands]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the page's files lie, and a folder for each section in which its commands have run."""
    folder = tmp_path_factory.mktemp("lab")
    _write(folder)
    _install(folder / "my_lab-1.0.dist-info")
    words = [[shlex.split(command) for command in COMMANDS[title]] for title in TAKEN]
    assert {command[0] for commands in words for command in commands} == {"odfa"}
    rest = json.dumps([[command[1:] for command in commands] for commands in words])
    done = _python(DRIVER, rest, folder=folder)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return folder


@pytest.mark.parametrize("title", TAKEN)
def test_a_stranger_s_files_are_taken_without_an_edit_here(lab: Path, title: str) -> None:
    folder = lab / f"section{TAKEN.index(title)}"
    said = (folder / "said.txt").read_text(encoding="utf-8")
    assert said.endswith("done\n"), said
    for config in (folder / "runs").glob("*/config.json"):
        assert '"type": "my_lab.' in json.dumps(json.loads(config.read_text()))
    figures = {file.name for file in (folder / "runs/all").glob("*.png")}
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
    _write(tmp_path)
    code = "import sys\nfrom odfa.cli import main\nfor words in sys.argv[1:]: print(main(words.split()))"
    done = _python(code, *REFUSED, folder=tmp_path)
    assert done.stdout.split() == ["2"] * len(REFUSED), done.stderr
    assert done.stderr.splitlines() == [f"odfa: {told}" for told in REFUSED.values()]
    assert not (tmp_path / "runs").exists()


def _write(folder: Path) -> None:
    (folder / "my_lab").mkdir()
    (folder / "my_lab/__init__.py").touch()
    for name, source in FILES.items():
        (folder / name).write_text(source, encoding="utf-8")


def _python(code: str, *words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Code with these words, in a folder whose modules it finds."""
    places = os.pathsep.join([str(folder), str(ROOT / "src")])
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": places, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


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
