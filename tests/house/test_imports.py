"""Imports run one way, in no circles, and stay light."""

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "odfa"
BASE = {
    *("flow", "errors", "keys", "units", "fourier", "sparse", "files", "saved"),
    *("structured", "draws", "settings", "arguments", "devices"),
}
STAGES = {"error", "encode", "opu", "demodulate"}
BELOW_ENGINE = BASE | STAGES | {"project", "feedback"}
ALLOWED = {
    "__main__": {"cli"},
    **dict.fromkeys(BASE | STAGES, BASE),
    "data": {"errors", "keys"},
    "tasks": BASE | {"data"},
    "project": BASE | STAGES,
    "feedback": BASE | STAGES | {"project"},
    "features": BASE | STAGES | {"project"},
    "compat": BASE | STAGES | {"project"},
    "engine": BELOW_ENGINE,
    "session": BELOW_ENGINE | {"engine", "data", "tasks"},
    "store": BELOW_ENGINE | {"engine", "data", "tasks", "session"},
    "train": BELOW_ENGINE | {"engine", "data", "session", "store"},
    "arms": BELOW_ENGINE | {"engine", "session"},
    "recipes": BELOW_ENGINE | {"engine", "session", "data", "tasks", "arms"},
    "scaling": BELOW_ENGINE | {"engine", "session", "store", "train", "data", "tasks", "arms", "recipes"},
    "lab": BELOW_ENGINE | {"engine", "session", "store", "train", "data", "tasks", "arms"},
    "cli": BELOW_ENGINE
    | {"engine", "tasks", "session", "store", "train", "data", "arms", "recipes", "lab", "scaling", ""},  # "": version
}

ABOVE_RUNS = {"recipes": "recipes", "samples": "lab"}
"""Module of a task's folder → the room whose rules hold for it."""


def files() -> dict[str, Path]:
    """Module name → file."""
    return {
        ".".join(("odfa", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__"): path
        for path in sorted(SOURCE.rglob("*.py"))
    }


FILES = files()


def imported(path: Path, *, lazy: bool) -> set[str]:
    """Modules of the package that a file imports; with `lazy` also those inside functions and type checks."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = set()
    for node in ast.walk(tree) if lazy else tree.body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] == "odfa"}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write relative imports in full"
            if node.module and node.module.split(".")[0] == "odfa":
                names = {f"{node.module}.{alias.name}" for alias in node.names}
                found |= {name if name in FILES else node.module for name in names}
    return found


def room(module: str) -> str:
    """The first name; recipes and samples of a task stand above the runs that they are of, its rest below them."""
    names = [*module.split("."), ""]
    return ABOVE_RUNS.get(names[-2], "tasks") if names[1] == "tasks" else names[1]


@pytest.mark.parametrize("module", [name for name in FILES if name != "odfa"])
def test_a_room_imports_only_rooms_below_it(module):
    here = room(module)
    above = {name for name in imported(FILES[module], lazy=True) if room(name) not in ALLOWED[here] | {here}}
    assert not above, f"{module} must not import {sorted(above)}; see docs/design.md"


def test_the_stages_are_apart():
    for stage in STAGES:
        assert not ALLOWED[stage] & (STAGES | {"project"})


def test_encode_opu_and_demodulate_meet_in_one_file():
    meeting = {"encode", "opu", "demodulate"}
    project = [name for name in FILES if room(name) == "project"]
    places = [name for name in project if meeting <= {room(used) for used in imported(FILES[name], lazy=True)}]
    assert places == ["odfa.project.optical"]


def needed(name: str) -> set[str]:
    """What must have run before a module can: what it imports, at its top, inside functions and for type checks, and
    the packages that these lie in. Its own package collects it and may come later, if the module does not name it."""
    used = imported(FILES[name], lazy=True) - {name}
    packages = {module.rsplit(".", n)[0] for module in used for n in range(1, module.count("."))}
    return used | {package for package in packages if not f"{name}.".startswith(f"{package}.")}


def in_order(names: Iterable[str]) -> list[str]:
    """The modules so that each comes behind what it needs; raises CycleError if there is no such order."""
    return list(graphlib.TopologicalSorter({name: needed(name) for name in names}).static_order())


def test_there_are_no_circles():
    assert set(FILES) <= set(in_order(FILES))


@pytest.mark.parametrize(
    "texts",
    [
        {
            "odfa.ring.inside": "def later():\n    from odfa.ring import other\n",
            "odfa.ring.other": "if TYPE_CHECKING:\n    from odfa.ring.inside import later\n",
        },
        {"odfa.hall": "from odfa.hall.part import x\n", "odfa.hall.part": "from odfa.hall import x\n"},
        {
            "odfa.left": "from odfa.left.part import x\n",
            "odfa.left.part": "from odfa.right.part import x\n",
            "odfa.right": "from odfa.left import x\n",
            "odfa.right.part": "",
        },
    ],
    ids=["inside functions and for type checks", "a part and its package", "by the package that runs first"],
)
def test_a_circle_is_seen(texts, tmp_path, monkeypatch):
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
        monkeypatch.setitem(FILES, name, tmp_path / name)
    with pytest.raises(graphlib.CycleError):
        in_order(texts)


def _child(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    return done.stdout


def test_importing_odfa_loads_torch_and_numpy_and_nothing_else():
    before = "import sys, torch, numpy.random; before = set(sys.modules); "
    code = before + "import odfa; odfa.DFA; print(*sorted(set(sys.modules) - before))"
    new = {name.split(".")[0] for name in _child(code).split()}
    assert "odfa" in new
    assert new - set(sys.stdlib_module_names) - {"odfa", "torch", "numpy"} == set()


def test_importing_odfa_is_quick_beside_torch():
    code = (
        "import time; a = time.perf_counter(); import torch; b = time.perf_counter(); import odfa; odfa.DFA;"
        "c = time.perf_counter(); print(b - a, c - b)"
    )
    times_s = [[float(text) for text in _child(code).split()] for _ in range(3)]
    torch_s, odfa_s = (min(column) for column in zip(*times_s, strict=True))
    assert odfa_s < 0.5 * torch_s + 0.3
