"""Beside pattern scaling: a network of zeros is pattern scaling, which knows the training part only."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.data.climate_files import real, write_climate
from torch import Tensor, nn

from odfa import recipes, train
from odfa.data import FieldSplits
from odfa.session.assembly import build
from odfa.settings import apply
from odfa.tasks.climate import samples
from odfa.tasks.climate.forcings import forcing
from odfa.tasks.climate.north_america import GUARD, LAST_DECADES, load_climate, peek_climate
from odfa.tasks.climate.regress import Regress

HELD_OUT = ("decades", "A1B", "E1")
PARTS = ("train", "validation", "test")
PLAIN = "21dcf55703b2f9fbf1e3f5645d9b5450c82405f8e9d3e9eb020c0fa613aa2ebf"
"""Fingerprint of the default parts, without anything beside them."""


class Zero(nn.Module):
    """Predicts nothing, whatever comes in."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = nn.Parameter(torch.zeros(size))

    def forward(self, x_ND: Tensor) -> Tensor:
        return self.size.expand(len(x_ND), -1)


def _pair(held_out: str, path: Path | None = None) -> tuple[FieldSplits, FieldSplits]:
    return load_climate(path, held_out=held_out), load_climate(path, held_out=held_out, beside="pattern")


@pytest.mark.parametrize("held_out", HELD_OUT)
def test_a_network_of_zeros_is_pattern_scaling(held_out: str) -> None:
    plain, beside = _pair(held_out)
    zero = Zero(beside.test.y_N.shape[1])
    found = Regress(unit="K").evaluate(zero, beside.test)
    assert found["rmse_K"] == beside.references["pattern scaling"]
    assert beside.references == pytest.approx(plain.references, rel=1e-6)
    assert beside.shape == plain.shape


@pytest.mark.parametrize("held_out", HELD_OUT)
def test_targets_and_what_stands_beside_make_the_whole_change(held_out: str) -> None:
    plain, beside = _pair(held_out)
    for name in PARTS:
        ours, theirs = getattr(beside, name), getattr(plain, name)
        assert ours.names == theirs.names
        assert torch.allclose(ours.whole(ours.y_N), theirs.whole(theirs.y_N), atol=5e-6)
        assert torch.equal(ours.x_ND.view(len(ours), 6, -1)[:, 3:], theirs.x_ND.view(len(ours), 6, -1)[:, 3:])
        # the error of any prediction is that of the whole field
        change_NG = torch.randn(ours.y_N.shape, generator=torch.Generator().manual_seed(0))
        whole_NG = ours.whole(change_NG)
        assert ours.error(change_NG) == pytest.approx(theirs.error(whole_NG / theirs.unit), rel=1e-6)


def test_inputs_are_departures_at_their_own_forcing() -> None:
    plain, beside = _pair("E1")
    # least squares by hand, year by year
    n = 100
    scenario, _, rest = beside.train.names[n].partition(", ")
    year = int(rest[:4])
    kelvin = real(scenario).air_temperature.values.astype(np.float64)[:, :36, :48]
    base = kelvin[:40].mean(axis=0)
    forced, later = [], []
    for name in beside.train.names:
        first = int(name.partition(" to ")[2][:4])
        forced.append(forcing(scenario, np.arange(first, first + 5)).mean())
        later.append((kelvin[first - 1860 : first - 1855].mean(axis=0) - base).reshape(-1))
    slope_G, start_G = np.polyfit(forced, np.array(later), 1)
    inputs = beside.train.x_ND[n].view(6, -1).double().numpy()
    scales = []
    for channel, (first, last) in enumerate(((year - 4, year), (year - 9, year - 5), (year - 19, year - 10))):
        mean = (kelvin[first - 1860 : last - 1859].mean(axis=0) - base).reshape(-1)
        wanted = mean - start_G - slope_G * forcing(scenario, np.arange(first, last + 1)).mean()
        scales.append(wanted @ wanted / (wanted @ inputs[channel]))
        assert np.allclose(inputs[channel] * scales[-1], wanted, atol=2e-4)
    assert np.ptp(scales) < 1e-4
    assert beside.train.unit < plain.train.unit


def test_the_test_part_changes_nothing_else(tmp_path: Path) -> None:
    """A1B is held out and made warmer: what is trained on and what validates stay, to the last bit."""
    for name in ("as", "warmer"):
        (tmp_path / name).mkdir()

    def warmer(whole):
        return whole.assign(air_temperature=(whole.air_temperature + 3).assign_attrs(whole.air_temperature.attrs))

    straight = load_climate(write_climate(tmp_path / "as"), held_out="A1B", beside="pattern")
    changed = load_climate(write_climate(tmp_path / "warmer", warmer), held_out="A1B", beside="pattern")
    for part in ("train", "validation"):
        for name in ("x_ND", "y_N", "beside_NG"):
            assert torch.equal(getattr(getattr(straight, part), name), getattr(getattr(changed, part), name))
    assert not torch.equal(straight.test.y_N, changed.test.y_N)
    # the same change: warmth that pattern scaling does not know stands in every test target
    more = (changed.test.y_N - straight.test.y_N) * straight.test.unit
    assert torch.allclose(more, torch.full_like(more, 3.0), atol=1e-3)


def test_parts_are_cut_with_what_stands_beside() -> None:
    beside = load_climate(held_out="E1", beside="pattern")
    few = beside.limited(3).test
    assert few.beside_NG is not None
    assert beside.test.beside_NG is not None
    assert len(few.beside_NG) == len(few) == 3
    taken = beside.test.take(torch.tensor([5, 2]))
    assert taken.beside_NG is not None
    assert torch.equal(taken.beside_NG, beside.test.beside_NG[[5, 2]])


def test_default_is_the_whole_change() -> None:
    plain = load_climate().fingerprinted()
    assert recipes.get("climate_vit").data.beside is None  # type: ignore[attr-defined]
    assert plain.train.beside_NG is None
    assert plain.fingerprint == PLAIN
    assert plain.references["pattern scaling"] == pytest.approx(0.53242, abs=1e-5)


@pytest.mark.parametrize(("arm", "word"), [("bp", "head_scale=0.01"), ("odfa", "rule.scale=0.01")])
def test_a_run_starts_at_pattern_scaling(arm: str, word: str) -> None:
    base = recipes.get("climate_vit_tiny", arm)
    session = build(apply(base, ["held_out=E1", "beside=pattern", "limit=40", word]))
    start = session.task.evaluate(session.model, session.splits.test)["rmse_K"]
    zero = session.task.evaluate(Zero(1728), session.splits.test)["rmse_K"]
    assert start == pytest.approx(zero, rel=0.02)
    far = build(apply(replace(base, data=replace(base.data, limit=40)), ["held_out=E1"]))
    assert session.splits.fingerprint != far.splits.fingerprint


@pytest.mark.parametrize("held_out", HELD_OUT)
def test_the_last_decades_are_later_than_all_that_is_learned(held_out: str) -> None:
    last = load_climate(held_out=held_out, chosen_on="last")

    def targets(part: str) -> list[int]:
        return [int(name.partition(" to ")[2][:4]) for name in getattr(last, part).names]

    assert min(targets("validation")) >= LAST_DECADES[0]
    assert max(targets("train")) + 4 < LAST_DECADES[0] - GUARD
    assert last.shape == peek_climate(held_out=held_out, chosen_on="last")
    if held_out == "E1":
        told = {part: getattr(last, part).x_ND.view(len(getattr(last, part)), 6, -1)[:, 5] for part in PARTS}
        assert told["validation"].min() > told["train"].max()


def test_without_forcing_it_is_no_input() -> None:
    """Fields, lead time and targets stay; pattern scaling knows the forcing and stays too."""
    forced = load_climate(held_out="E1", beside="pattern")
    without = load_climate(held_out="E1", beside="pattern", forced=False)
    assert without.shape == peek_climate(held_out="E1", forced=False)
    assert without.shape.image == (4, 36, 48)
    for part in PARTS:
        ours, theirs = getattr(without, part), getattr(forced, part)
        assert torch.equal(ours.x_ND.view(len(ours), 4, -1), theirs.x_ND.view(len(ours), 6, -1)[:, :4])
        assert torch.equal(ours.y_N, theirs.y_N)
    assert without.references == forced.references


def test_maps_show_whole_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["held_out=E1", "beside=pattern", "limit=40", "steps=1", "evaluate_every=none", "checkpoint_every=none"]
    train.run(apply(recipes.get("climate_vit_tiny", "bp"), words), tmp_path / "run", progress=False)
    drawn: list[tuple[Tensor, Tensor]] = []
    monkeypatch.setattr(samples, "_draw", lambda *given: drawn.append((given[3], given[4])))
    told = samples.MapSamples(out=tmp_path / "maps.png", sample=7).make([tmp_path / "run"]).json["runs"][0]
    ((truth_HW, projected_RHW),) = drawn
    test = load_climate(held_out="E1").test
    assert torch.allclose(truth_HW.reshape(-1), test.y_N[7] * test.unit, atol=5e-6)
    one = test.take(torch.tensor([7]))
    assert told["rmse"] == pytest.approx(one.error(projected_RHW.view(1, -1) / one.unit), rel=1e-5)
