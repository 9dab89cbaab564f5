"""The docs tell the truth: names exist, rooms exist, the first example runs."""

import inspect
import re
import runpy
import tomllib
from pathlib import Path

import pytest

import odfa

ROOT = Path(__file__).parents[2]
DOCS = "\n".join(
    path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
)


def test_the_front_door_is_small():
    assert len(odfa.__all__) <= 40
    assert len(set(odfa.__all__)) == len(odfa.__all__)


@pytest.mark.parametrize("name", odfa.__all__)
def test_public_names_are_documented(name):
    value = getattr(odfa, name)
    if not isinstance(value, str):
        assert inspect.getdoc(value), f"odfa.{name} has no docstring"
        assert "__doc__" not in vars(value) or vars(value)["__doc__"], f"odfa.{name} has no docstring of its own"
    assert re.search(rf"\b{name}\b", DOCS), f"odfa.{name} does not appear in README.md or docs/"


def test_every_public_method_of_the_front_door_has_a_docstring():
    silent = [
        f"{name}.{method}"
        for name in odfa.__all__
        if inspect.isclass(getattr(odfa, name))
        for method, value in vars(getattr(odfa, name)).items()
        if inspect.isfunction(value) and not method.startswith("_") and not inspect.getdoc(value)
    ]
    assert silent == []


def test_the_design_names_the_rooms_that_exist():
    text = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`odfa/(\w+)(?:/|\.py)`", text))
    source = ROOT / "src" / "odfa"
    rooms = {path.stem for path in source.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert named == rooms - {"__init__", "__main__"}


def test_files_that_the_docs_link_to_exist():
    pages = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
    links = [
        (page, link) for page in pages for link in re.findall(r"\]\(([^)#:\s]+)\)", page.read_text(encoding="utf-8"))
    ]
    assert [f"{page.name} → {link}" for page, link in links if not (page.parent / link).exists()] == []


def test_the_first_block_of_the_readme_runs_and_learns(tmp_path, capsys):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    script = tmp_path / "first_block.py"
    script.write_text(re.search(r"```python\n(.*?)```", text, re.DOTALL).group(1), encoding="utf-8")
    names = runpy.run_path(str(script))
    assert names["accuracy"] > 0.8
    assert "held-out digits" in capsys.readouterr().out


def test_one_version_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE).group(
        1
    )
    assert odfa.__version__ == project["version"] == citation
