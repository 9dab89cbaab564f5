"""docs/bench.md does what it says: its code, its package, its commands."""

import re
import shlex
import sys
import tomllib
from pathlib import Path

import pytest

from odfa.cli import main
from odfa.errors import ConfigError
from odfa.opu import opu_settings
from odfa.settings import apply

PAGE = (Path(__file__).parents[2] / "docs" / "bench.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def table(tmp_path, monkeypatch):
    """The page's package, installed as pip would leave it."""
    project = tomllib.loads(blocks("toml")[0])
    assert project["tool"]["setuptools"]["py-modules"] == ["my_table"]
    (tmp_path / "my_table.py").write_text(blocks("python")[0], encoding="utf-8")
    points = project["project"]["entry-points"]["odfa.opus"]
    info = tmp_path / "my_table-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-table\nVersion: 1.0\n", encoding="utf-8")
    lines = ["[odfa.opus]", *(f"{name} = {value}" for name, value in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_table", raising=False)
    monkeypatch.chdir(tmp_path)


def test_the_worked_example_goes_from_two_parts_to_a_run(table, capsys):
    commands = [line.removeprefix("$ ") for line in blocks("console")[0].splitlines()]
    assert commands[0] == "pip install -e ."
    said = {}
    for command in commands[1:]:
        words = shlex.split(command)
        assert words[0] == "odfa"
        code = main(words[1:])
        said[words[1], words[2]] = capsys.readouterr()
        assert code == 0, said
    assert "my-table: my_table:table_3" in said["opu", "list"].out
    assert said["opu", "check"].out.rstrip().endswith("pass")
    assert "complete" in Path(next(Path("runs").rglob("status.json"))).read_text(encoding="utf-8")


def test_the_worked_example_works_from_python(table):
    scope: dict[str, object] = {}
    exec(blocks("python")[1], scope)  # the page's own code
    bench = scope["bench"]
    assert bench.frame_lag == 0
    assert not bench.is_open
    assert "table 3 of 2 May" in repr(scope["feedback"])


def test_settings_of_a_table_are_reached(table):
    import my_table

    exec(next(block for block in blocks("python") if "class TableSettings" in block), vars(my_table))
    found = apply(opu_settings("my_table:TableSettings"), ["timeout_s=30"])
    assert found.build()._timeout_s == 30.0
    with pytest.raises(ConfigError, match="timeout_s: expected a time below ten minutes"):
        apply(found, ["timeout_s=0"])


def test_an_opu_is_named_by_its_module_or_told_where_to_register(table, capsys):
    assert main(["opu", "check", "my_table:table_3"]) == 0
    capsys.readouterr()
    assert main(["opu", "check", "my_table"]) == 2
    assert "a package registers its own: docs/bench.md" in capsys.readouterr().err
    assert main(["opu", "check", "my_table:table_4"]) == 2
    assert "cannot be imported" in capsys.readouterr().err


def test_the_methods_that_the_page_names_are_those_of_the_classes():
    from odfa import opu

    for row in re.findall(r"^\| `(Abstract\w+)` \|(.*)\|$", PAGE, re.MULTILINE):
        written = row[1].split("|")[1]
        assert set(re.findall(r"(_\w+_hw)\(", written)) == set(getattr(opu, row[0]).__abstractmethods__)
        assert all(hasattr(getattr(opu, row[0]), name) for name in re.findall(r"(_\w+_hw)\(", row[1]))
