"""A measurement of an accelerator: what is timed there, by whose clock, and what follows from it."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tests.far import DEVICE, one_accelerator
from tests.scaling.test_fit import TINY, measurement

from odfa.cli import main
from odfa.errors import ConfigError
from odfa.scaling import PROCESSORS, measure_machine
from odfa.scaling.actions import MeasureSettings
from odfa.scaling.measure import check_peaks_told, peak_bytes, time_projections, time_steps
from odfa.scaling.measurement import planned, read
from odfa.scaling.timed import TimedShapes, timed_on
from odfa.settings import SettingError

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture
def far(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One accelerator, whose random numbers are the processor's."""
    monkeypatch.setattr("odfa.scaling.measure._LEAST_S", 0.0)
    with one_accelerator(monkeypatch):
        yield


class Event:
    """A mark of an accelerator's clock, which stands until somebody waits for it."""

    count = 0

    def __init__(self) -> None:
        Event.count += 1
        self.at, self.waited = Event.count, False

    def synchronize(self) -> None:
        """Wait."""
        self.waited = True

    def elapsed_time(self, end: "Event") -> float:
        """Milliseconds: a second for each mark in between."""
        assert end.waited
        return 1000.0 * (end.at - self.at)


@pytest.mark.usefixtures("far")
def test_steps_and_projections_are_timed_by_the_clock_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("odfa.engine.unseen.moment", lambda _device: Event())
    timings = time_steps([(TINY, ("bp", "dfa"))], repeats=2, note=lambda _line: None, device=DEVICE)
    bp, dfa = timings
    assert (bp.forward_s, bp.backward_s, bp.update_s) == (1.0, 1.0, 1.0)
    assert (dfa.forward_s, dfa.update_s) == (1.0, 1.0)
    assert dfa.backward_s >= 3.0  # the projection within it marks too
    (projected,) = time_projections(1, DEVICE, [(8, 16, 8)])
    assert projected.digital_s == 1.0
    assert projected.twin_s >= 1.0


@pytest.mark.usefixtures("far")
def test_an_accelerator_is_measured_and_its_rates_are_fitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep, wide = replace(TINY, depth=2), replace(TINY, width=128)
    shapes = TimedShapes(fitted=[TINY, deep], checked=[wide], peaked=[], projected=[(8, 16, 8), (4, 8, 16)])
    monkeypatch.setattr("odfa.scaling.measurement.timed_on", lambda _device: shapes)
    measured = measure_machine(memory=False, repeats=2, note=lambda _line: None, device=DEVICE)
    assert [timing.gpt for timing in measured.checked] == [wide] * 4
    assert {timing.method for timing in measured.fitted} == {"bp", "shallow", "dfa", "odfa", "inputs"}
    assert measured.environment["device"] == str(DEVICE)
    assert measured.environment["projections_by"]
    measured.write(tmp_path / "there.json")
    machine = read(tmp_path / "there.json").machine()
    assert machine.matmul_flops_per_s > 0
    assert machine.source.startswith("measured: ")
    assert machine.source.endswith("power and links as assumed of h100")


def test_what_is_not_measured_is_of_the_preset_of_that_name() -> None:
    names = {"NVIDIA A100-SXM4-80GB": "a100", "Tesla V100-SXM2-32GB": "v100", "NVIDIA H200": "h100"}
    for name, preset in names.items():
        told = {"device": "cuda:0", "device_name": name, "device_memory_bytes": 12_000_000_000}
        machine = replace(measurement(), environment=told)._start()
        assert (machine.power_w, machine.link_bytes_per_s) == (
            PROCESSORS[preset].power_w,
            PROCESSORS[preset].link_bytes_per_s,
        )
        assert machine.memory_bytes == 12e9
        assert machine.source == f"measured: {name}; power and links as assumed of {preset}"
        again = replace(measurement(), environment={**told, "device_memory_bytes": None})._start()
        assert again.memory_bytes == PROCESSORS[preset].memory_bytes
    assert measurement()._start().source == "measured: made up"


def test_an_accelerator_is_given_more_to_do_and_is_not_checked_by_what_is_fitted() -> None:
    near, there = timed_on(CPU), timed_on(CUDA)
    assert min(gpt.tokens for gpt in there.fitted) >= max(gpt.tokens for gpt in near.fitted)
    for shapes in (near, there):
        assert not set(shapes.fitted) & set(shapes.checked)
        assert set(shapes.peaked) <= set(shapes.checked)
    found = planned(memory=False, repeats=2, device=CUDA)
    assert found["device"] == "cuda:0"
    assert len(found["fitted"]) == len(there.fitted)


@pytest.mark.usefixtures("far")
def test_peak_memory_of_an_accelerator_is_what_two_steps_allocate(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    told = {"memory_allocated": 100, "max_memory_allocated": 700, "reset_peak_memory_stats": None}

    def told_by(name: str) -> object:
        return lambda device: (asked.append(f"{name} {device}"), told[name])[1]

    module = SimpleNamespace(**{name: told_by(name) for name in told})
    monkeypatch.setattr("odfa.scaling.measure._module", lambda _device: module)
    monkeypatch.setattr("odfa.scaling.measure._SMALL", TINY)
    assert peak_bytes(TINY, "bp", DEVICE) == 600
    assert asked == [
        f"{name} {DEVICE}" for name in ("memory_allocated", "reset_peak_memory_stats", "max_memory_allocated")
    ]


def test_peak_memory_is_refused_before_anything_is_timed_where_nobody_tells_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("odfa.scaling.measure._module", lambda _device: SimpleNamespace())
    for act in (
        lambda: check_peaks_told(DEVICE),
        lambda: planned(memory=True, repeats=2, device=DEVICE),
        lambda: measure_machine(memory=True, repeats=2, note=print, device=DEVICE),
    ):
        with pytest.raises(ConfigError, match=r"torch does not tell the peak memory of mps:0; leave memory out"):
            act()
    check_peaks_told(CPU)


def test_an_absent_device_is_refused_in_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ["study", "measure", f"out={tmp_path / 'here.json'}", "device=cuda:99"]
    for more in ([], ["--dry-run"]):
        assert main([*words, *more]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f"got cuda:99; torch {torch.__version__} sees no such device (see odfa env)" in line
    assert main([*words[:3], "precision=tf32", "--dry-run"]) == 2
    assert "precision=tf32: expected a cuda or xpu device, got cpu; say precision=float32" in capsys.readouterr().err
    assert planned(memory=False, repeats=2, device=CUDA, precision="tf32")["precision"] == "tf32"
    with pytest.raises(SettingError, match="device: expected cpu, cuda"):
        MeasureSettings(device="gpu")
    assert list(tmp_path.iterdir()) == []
