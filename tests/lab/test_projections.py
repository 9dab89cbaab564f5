"""Projections timed on a device: what runs there, and what is left out."""

from collections.abc import Iterator

import pytest
from tests.far import DEVICE, one_accelerator

from odfa.cli import main
from odfa.lab import projections
from odfa.lab.projections import ProjectionBenchSettings, run


@pytest.fixture
def far(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One accelerator, whose random numbers are the processor's."""
    with one_accelerator(monkeypatch):
        yield


@pytest.mark.usefixtures("far")
def test_an_accelerator_projects_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(projections.SIZES, "1e3x1e3", (70, 40, 3))
    found = {}
    for device in ("cpu", "auto"):
        rows = run(ProjectionBenchSettings(sizes=("1e3x1e3",), repeats=1, device=device))
        found[device] = {row.name: row for row in rows}
    near, there = found.values()
    assert {row.device for row in near.values()} == {"cpu"}
    assert {row.device for row in there.values()} == {str(DEVICE)}
    assert {"hadamard", "rademacher", "torch float32", "complex64 simulator"} <= set(there) < set(near)
    assert not any(name.startswith(("scikit-learn", "fht", "hadamard int16")) for name in there)
    for name in ("hadamard", "rademacher"):
        assert there[name].max_rel_error < 1e-5
        assert all(row.per_second > 0 for row in there.values())


def test_an_absent_device_is_refused_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for name, told in (("cuda:99", "got cuda:99; torch"), ("gpu", "got 'gpu'")):
        assert main(["project", "bench", f"device={name}"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("odfa: device: expected")
        assert told in line
