"""Climate samples against their definition, written out year by year; what no test sample may share with training."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.data.climate_files import real, write_climate

from odfa.data.fields import area_weights
from odfa.errors import DataError, MissingExtra
from odfa.tasks.climate import north_america as climate
from odfa.tasks.climate.forcings import forcing
from odfa.tasks.climate.north_america import load_climate, peek_climate

HELD_OUT = ("decades", "A1B", "E1")


@pytest.fixture(scope="module")
def splits():
    return {held_out: load_climate(held_out=held_out) for held_out in HELD_OUT}


def _read_name(name: str) -> tuple[str, int, int]:
    """Scenario, year t and first target year of a sample."""
    scenario, _, rest = name.partition(", ")
    year, _, target = rest.partition(" to ")
    return scenario, int(year), int(target[:4])


def test_sizes_are_known_and_parts_are_apart(splits) -> None:
    for held_out, whole in splits.items():
        assert whole.shape == peek_climate(held_out=held_out)
        assert whole.shape.image == (6, 36, 48)
        assert whole.shape.field == (1, 36, 48)
        names = [name for part in (whole.train, whole.validation, whole.test) for name in part.names]
        assert len(set(names)) == len(names) == sum(map(len, (whole.train, whole.validation, whole.test)))


def test_a_sample_is_what_its_name_says(splits) -> None:
    whole = splits["decades"]
    years = {name: {int(t.year): n for n, t in enumerate(real(name).time.values)} for name in ("A1B", "E1")}
    kelvin = {name: real(name).air_temperature.values.astype(np.float64)[:, :36, :48] for name in ("A1B", "E1")}
    base = np.mean([kelvin[name][:40] for name in ("A1B", "E1")], axis=(0, 1))

    def mean(scenario: str, first: int, last: int) -> np.ndarray:
        return np.mean([kelvin[scenario][years[scenario][year]] for year in range(first, last + 1)], axis=0)

    scales = []
    for n in (0, 41, 170, len(whole.train) - 1):
        scenario, year, target = _read_name(whole.train.names[n])
        change = mean(scenario, target, target + 4) - mean(scenario, year - 4, year)
        assert np.allclose(whole.train.y_N[n].numpy() * whole.train.unit, change.reshape(-1), atol=2e-5)
        windows = ((year - 4, year), (year - 9, year - 5), (year - 19, year - 10))
        inputs = whole.train.x_ND[n].view(6, -1).double().numpy()
        for channel, (first, last) in enumerate(windows):
            wanted = (mean(scenario, first, last) - base).reshape(-1)
            scales.append(wanted @ wanted / (wanted @ inputs[channel]))
            assert np.allclose(inputs[channel] * scales[-1], wanted, atol=2e-4)
    assert np.ptp(scales) < 1e-4  # one scale for all three windows and all samples


def test_forcing_and_lead_are_told_in_order(splits) -> None:
    part = splits["decades"].train
    told = part.x_ND.view(len(part), 6, -1)
    assert torch.equal(told[:, 3:].amax(dim=2), told[:, 3:].amin(dim=2))
    leads, forced = [], []
    for name in part.names:
        scenario, year, target = _read_name(name)
        leads.append(target + 4 - year)
        forced.append(forcing(scenario, np.arange(target, target + 5)).mean())
    for channel, wanted in ((3, leads), (5, forced)):
        assert np.corrcoef(told[:, channel, 0].numpy(), wanted)[0, 1] > 1 - 1e-6


def test_no_year_of_a_held_out_decade_is_learned(splits) -> None:
    whole = splits["decades"]
    decades = {
        "test": [set(range(first, first + 10)) for first in climate.TEST_DECADES],
        "validation": [set(range(first, first + 10)) for first in climate.VALIDATION_DECADES],
    }
    for part in ("test", "validation"):
        for name in getattr(whole, part).names:
            _, _, target = _read_name(name)
            assert any(set(range(target, target + 5)) <= decade for decade in decades[part])
    held = set().union(*decades["test"], *decades["validation"])
    guarded = {year + k for year in held for k in range(-climate.GUARD, climate.GUARD + 1)}
    for name in whole.train.names:
        _, year, target = _read_name(name)
        assert not guarded & set(range(target, target + 5))
        assert not held & set(range(year - 4, year + 1))


@pytest.mark.parametrize("held_out", ["A1B", "E1"])
def test_a_held_out_scenario_is_in_the_test_part_only(splits, held_out: str) -> None:
    whole = splits[held_out]
    assert {_read_name(name)[0] for name in whole.test.names} == {held_out}
    assert held_out not in {_read_name(name)[0] for part in (whole.train, whole.validation) for name in part.names}
    assert min(_read_name(name)[2] for name in whole.test.names) == climate.FIRST_FUTURE


def test_the_error_is_weighted_by_area(splits) -> None:
    whole = splits["decades"]
    weight_G = np.repeat(np.cos(np.deg2rad(whole.latitude_H)), 48)
    truth_NG = whole.test.y_N.double().numpy() * whole.test.unit
    naive = np.sqrt(np.mean([(row**2 * weight_G).sum() / weight_G.sum() for row in truth_NG]))
    assert whole.references["persistence"] == pytest.approx(naive, rel=1e-6)
    assert area_weights(np.array([0.0, 60.0]), 1).tolist() == pytest.approx([4 / 3, 2 / 3])
    assert whole.test.error(whole.test.y_N) == 0


def test_trend_and_pattern_scaling_are_exact_where_their_assumption_holds() -> None:
    """A field that grows by a straight line is foretold by the trend, one that follows the forcing by the pattern."""
    years = np.arange(1860, 2100)
    rng = np.random.default_rng(0)
    pattern_HW = rng.uniform(0.5, 2, (12, 12))
    for law, name in ((0.02 * (years - 1860.0), "trend"), (forcing("A1B", years), "pattern scaling")):
        made = climate.YearlyField(
            value_YHW=280 + law[:, None, None] * pattern_HW,
            year_Y=years,
            latitude_H=np.linspace(15, 60, 12),
            longitude_W=np.linspace(225, 315, 12),
        )
        fields = {"A1B": made, "E1": replace(made, value_YHW=made.value_YHW)}
        samples = climate._parts("E1", fields)
        base = np.zeros((12, 12)) + 280
        train, test = (climate._arrays(samples[part], fields, base) for part in ("train", "validation"))
        part = climate.FieldSplit(
            x_ND=torch.zeros(len(test[1]), 1),
            y_N=torch.tensor(test[1]),
            weight_G=area_weights(made.latitude_H, 12),
            unit=1.0,
            names=(),
        )
        found = climate._references(train, test, samples["validation"], part)
        # five-year means of a concave forcing are not quite the forcing of the middle year
        assert found[name] < 1e-6 if name == "trend" else found[name] < 1e-9
        assert found["persistence"] > 0.05


def test_forcing_knows_its_source_years() -> None:
    wanted = 5.35 * np.log(np.array([354 - 0.1, 532.0]) / 278.0)
    assert forcing("A1B", np.array([1990, 2050])) == pytest.approx(wanted)
    assert forcing("E1", np.array([1950])) == forcing("A1B", np.array([1950]))
    assert forcing("E1", np.array([2099])) < forcing("A1B", np.array([2099])) - 2
    assert forcing("A1B", np.array([2025])) == pytest.approx(5.35 * np.log((420 + 454) / 2 / 278))


def test_a_folder_of_ones_own_is_read(tmp_path: Path) -> None:
    small = load_climate(str(write_climate(tmp_path)))
    assert small.shape.field == (1, 12, 12)
    assert small.references["pattern scaling"] < small.references["persistence"]


def _celsius(whole):
    return whole.assign(air_temperature=(whole.air_temperature - 273.15).assign_attrs(units="deg C"))


def _unlike(file):
    return file.isel(latitude=slice(None, None, -1)).assign_coords(longitude=file.longitude - 360)


@pytest.mark.parametrize("change", [_celsius, _unlike], ids=["celsius", "turned"])
def test_one_file_in_another_unit_or_order_changes_nothing(tmp_path: Path, change) -> None:
    for name in ("as", "changed"):
        (tmp_path / name).mkdir()
    straight = load_climate(str(write_climate(tmp_path / "as")))
    found = load_climate(str(write_climate(tmp_path / "changed", change)))
    atol = 1e-4 if change is _celsius else 0.0
    order = np.arange(144).reshape(12, 12)[:: -1 if change is _unlike else 1].reshape(-1)  # A1B is the first file
    assert torch.allclose(found.train.y_N, straight.train.y_N[:, order], atol=atol)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.rename(air_temperature="tas"), "expected the variable air_temperature, found tas"),
        (lambda w: w.assign(air_temperature=w.air_temperature.assign_attrs(units="degF")), "in K or degC.*, got degF"),
        (lambda w: w.isel(time=[*range(50), *range(51, 240)]), "1910 is missing"),
        (lambda w: w.isel(latitude=slice(0, 5)), "expected a grid of 12 x 12 at least, got 5 x 12"),
        (
            lambda w: w.isel(time=slice(0, 25)),
            "expected the same years in A1B and E1, got 25 years from 1860 on and 240 years",
        ),
        (lambda w: w.isel(longitude=0, drop=True), "expected air_temperature over time, latitude and longitude"),
        (lambda w: w.mean("longitude", keep_attrs=True), "expected air_temperature over time, latitude and longitude"),
        (
            lambda w: w.assign_coords(latitude=w.latitude + 1),
            "expected the same places, got 12 from 15 .* and 12 from 16",
        ),
        (lambda w: w.assign_coords(latitude=w.latitude * 10), "expected latitude from -90 to 90 degrees"),
        (lambda w: w - 273.15, r"air_temperature is .* K in 1860; expected 150 to 350"),
        (lambda w: w.drop_vars("longitude"), "the axis longitude of air_temperature has no values"),
        (lambda w: w.where(w.time != w.time[7]), "holds missing values, NaN or infinity in 1867"),
    ],
)
def test_files_that_hold_something_else_are_refused(tmp_path: Path, change, message: str) -> None:
    def with_units(whole):
        changed = change(whole)
        for name in changed.data_vars:
            changed[name].attrs.setdefault("units", "K")
        return changed

    folder = write_climate(tmp_path, with_units)
    with pytest.raises(DataError, match=message) as caught:
        load_climate(str(folder))
    assert "\n" not in str(caught.value)


def test_what_is_missing_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"A1B_north_america.nc is missing"):
        load_climate(str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="pip install iris-sample-data"):
        load_climate()
