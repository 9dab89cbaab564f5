"""Names and words: kinds and arms are named in their own files only, functions are not called as their module is,
and no docstring is as short as a name."""

import ast
from pathlib import Path

import pytest

from odfa.arms import ARMS
from odfa.engine.rules import AbstractRule
from odfa.project import ProjectionSettings
from odfa.settings import kinds_of

SOURCE = Path(__file__).parents[2] / "src" / "odfa"
OWN = {"arms.py"}
"""The one file that knows the arms."""
ROOMS = ("engine/rules/", "project/")
"""Where each kind has its file."""
OTHER_WORDS = ("scaling/", "lab/scaling.py")
"""The planner's ways to train (`scaling/method.py`) are words of its own; they tell of offloading too."""
STATE_KEYS = {"store/checkpoint.py": {"dfa"}, "engine/dfa.py": {"identity"}}
"""Keys of saved states that happen to be spelled alike."""


def _names() -> set[str]:
    return {*kinds_of(AbstractRule), *kinds_of(ProjectionSettings), *ARMS}


def _classes() -> set[str]:
    return {kind.__name__ for slot in (AbstractRule, ProjectionSettings) for kind in kinds_of(slot).values()}


def compared(source: str) -> list[str]:
    """Names of rules, projections or arms that code compares with, looks up by, or tests the class of."""
    found = []
    for node in ast.walk(ast.parse(source)):
        parts: list[ast.expr] = []
        if isinstance(node, ast.Compare):
            parts = [node.left, *node.comparators]
        elif isinstance(node, ast.Dict):
            parts = [key for key in node.keys if key is not None]
        elif isinstance(node, ast.MatchValue):
            parts = [node.value]
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("isinstance", "issubclass"):
            found += [n.id for part in node.args[1:] for n in ast.walk(part) if isinstance(n, ast.Name)]
        inner = [leaf for part in parts for leaf in ([part] if not hasattr(part, "elts") else part.elts)]
        found += [leaf.value for leaf in inner if isinstance(leaf, ast.Constant) and isinstance(leaf.value, str)]
    return [name for name in found if name in _names() | _classes()]


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_nobody_asks_for_the_name_of_a_rule_or_an_arm(path: Path) -> None:
    name = str(path.relative_to(SOURCE))
    if name in OWN or name.startswith((*ROOMS, *OTHER_WORDS)):
        return
    assert set(compared(path.read_text(encoding="utf-8"))) <= STATE_KEYS.get(name, set())


def test_the_test_finds_what_it_looks_for() -> None:
    assert compared("if run.method == 'odfa': pass") == ["odfa"]
    assert compared("x = rule in ('aligned', 'b')") == ["aligned"]
    assert compared("x = {'bp': 1}[name]") == ["bp"]
    assert compared("isinstance(rule, RandomFeedback)") == ["RandomFeedback"]


def _own_name(path: Path) -> str:
    """What a module is called: its file, or the folder of a package."""
    return path.parent.name if path.stem == "__init__" else path.stem


def of_the_modules_name(source: str, name: str) -> list[str]:
    """Functions of a module that bear its name; underscores around it make no other name of it."""
    functions = (node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return [node.name for node in functions if node.name.strip("_") == name.strip("_")]


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_no_function_bears_the_name_of_its_module(path: Path) -> None:
    assert of_the_modules_name(path.read_text(encoding="utf-8"), _own_name(path)) == []


def test_functions_of_a_modules_name_are_found() -> None:
    assert of_the_modules_name("def walk(): pass", "walk") == ["walk"]
    assert of_the_modules_name("async def _walk(): pass", "walk") == ["_walk"]
    assert of_the_modules_name("class A:\n    def walk(self): pass\ndef walk_run(): pass", "walk") == []


def said_too_shortly(source: str) -> list[str]:
    """Functions, classes and the module itself whose docstring has one or two words."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module):
            told = ast.get_docstring(node)
            if told is not None and len(told.split()) <= 2:
                found.append(f"{getattr(node, 'name', 'module')}: {told}")
    return found


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_no_docstring_has_one_or_two_words(path: Path) -> None:
    assert said_too_shortly(path.read_text(encoding="utf-8")) == []


def test_short_docstrings_are_found() -> None:
    assert said_too_shortly('"""Sizes."""\nclass A:\n    """The class."""\n    def a(): "It is long enough."') == [
        "module: Sizes.",
        "A: The class.",
    ]
