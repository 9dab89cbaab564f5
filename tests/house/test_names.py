"""What a rule, a projection or an arm is called matters in its own file only: everybody else asks the object."""

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
