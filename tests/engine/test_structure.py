"""The engine is made of small machines: what is counted stays small, and names are compared at home only."""

import ast
import dataclasses
import re
from pathlib import Path

from odfa.engine.step import Step

ENGINE = Path(__file__).parents[2] / "src" / "odfa" / "engine"
SOURCE = ENGINE.parent
FILES = {path.relative_to(SOURCE): path.read_text(encoding="utf-8") for path in sorted(SOURCE.rglob("*.py"))}


def test_a_step_has_few_fields() -> None:
    assert len(dataclasses.fields(Step)) <= 8


def test_hooks_are_short() -> None:
    tree = ast.parse((ENGINE / "hooks.py").read_text(encoding="utf-8"))
    lengths = {
        node.name: node.end_lineno - node.lineno + 1
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.end_lineno is not None
    }
    assert {name: length for name, length in lengths.items() if length > 30} == {}


def test_wirings_and_rules_are_never_compared() -> None:
    asks = r"(wiring|rule\.kind|execution)(\.name)? *(==|!=|is|in|not in) |isinstance\([^)]*(wiring|rule)\b"
    compared = re.compile(asks)
    found = {str(path): match.group() for path, text in FILES.items() if (match := compared.search(text))}
    assert {path for path in found if path.startswith("engine/")} == set()


def test_autograd_is_switched_in_one_place() -> None:
    switching = [str(path) for path, text in FILES.items() if "set_grad_enabled" in text]
    assert switching == ["engine/grad_mode.py"]
