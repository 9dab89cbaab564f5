"""The size budget: files and functions that fit on a screen or two."""

import ast
import statistics
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src" / "odfa"
PATHS = sorted(SOURCE.rglob("*.py"))


def _functions() -> dict[str, int]:
    """Function → lines, its docstring aside."""
    lengths = {}
    for path in PATHS:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                first = node.body[0]
                has_docstring = ast.get_docstring(node, clean=False) is not None
                docstring = first.end_lineno - first.lineno + 1 if has_docstring else 0
                lengths[f"{path.relative_to(SOURCE)}:{node.lineno} {node.name}"] = (
                    node.end_lineno - node.lineno + 1 - docstring
                )
    return lengths


def test_files_are_at_most_400_lines_and_mostly_at_most_150():
    lengths = {str(path.relative_to(SOURCE)): len(path.read_text(encoding="utf-8").splitlines()) for path in PATHS}
    assert {name: length for name, length in lengths.items() if length > 400} == {}
    assert statistics.median(lengths.values()) <= 150


def test_functions_are_at_most_60_lines_and_mostly_at_most_12():
    lengths = _functions()
    assert {name: length for name, length in lengths.items() if length > 60} == {}
    assert statistics.median(lengths.values()) <= 12
