"""ClimateBench files of small size, made from real temperatures: what becomes of them, and what is refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray
from tests.data.climate_files import real, write_climatebench

from odfa import recipes, train
from odfa.data import climatebench, load_climatebench, peek_climatebench
from odfa.errors import DataError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_climatebench(tmp_path_factory.mktemp("bench")))


def test_parts_are_years_of_scenarios(folder: str) -> None:
    whole = load_climatebench(folder)
    assert whole.shape == peek_climatebench(folder)
    assert (whole.shape.image, whole.shape.field) == ((4, 12, 12), (1, 12, 12))
    years = {part: {n.split(", ")[0]: set() for n in getattr(whole, part).names} for part in ("train", "validation")}
    for part, of in years.items():
        for name in getattr(whole, part).names:
            of[name.split(", ")[0]].add(int(name.split(", ")[1]))
    assert set(years["train"]) == set(years["validation"]) == {"historical", "ssp126"}
    for scenario, held in years["validation"].items():
        assert all(year // 10 % 5 == 2 for year in held)
        near = {year + k for year in held for k in range(-climatebench.GUARD, climatebench.GUARD + 1)}
        assert not near & years["train"][scenario]
    assert len(whole.test) == 84


def test_a_sample_is_a_year_of_its_files(folder: str) -> None:
    whole = load_climatebench(folder)
    temperature = real("A1B").air_temperature.isel(latitude=slice(0, 36, 3), longitude=slice(0, 48, 4)).values
    place = whole.train.names.index("historical, 1890")
    wanted = temperature[30] - temperature[:40].mean(axis=0)  # the mean of the two members
    assert np.allclose(whole.train.y_N[place].numpy() * whole.train.unit, wanted.reshape(-1), atol=1e-4)
    inputs = whole.train.x_ND.view(len(whole.train), 4, -1).double()
    assert inputs.mean(dim=(0, 2)).abs().max() < 1e-5
    assert torch.allclose(inputs.square().mean(dim=(0, 2)), torch.ones(4, dtype=torch.float64), atol=1e-4)
    assert torch.equal(inputs[:, 0].amax(dim=1), inputs[:, 0].amin(dim=1))


def test_references_against_least_squares(folder: str) -> None:
    whole = load_climatebench(folder)
    co2_N, y_NG = whole.train.x_ND.view(len(whole.train), 4, -1)[:, 0, 0].double(), whole.train.y_N.double()
    ahead_N = whole.test.x_ND.view(len(whole.test), 4, -1)[:, 0, 0].double()
    centred_N = co2_N - co2_N.mean()
    slope_G = (centred_N[:, None] * (y_NG - y_NG.mean(0))).sum(0) / centred_N.square().sum()
    predicted_NG = y_NG.mean(0) + (ahead_N - co2_N.mean())[:, None] * slope_G
    assert whole.references["pattern scaling"] == pytest.approx(whole.test.error(predicted_NG), rel=1e-4)
    climatology_NG = y_NG.mean(0).expand(len(whole.test), -1)
    assert whole.references["climatology"] == pytest.approx(whole.test.error(climatology_NG), rel=1e-4)


def test_another_variable_is_another_target(folder: str) -> None:
    tas, pr = (load_climatebench(folder, variable=name) for name in ("tas", "pr"))
    assert torch.allclose(tas.test.y_N, pr.test.y_N, atol=1e-5)
    assert pr.test.unit == pytest.approx(2 * tas.test.unit, rel=1e-5)


def test_a_run_learns_from_the_files(folder: str, tmp_path: Path) -> None:
    config = recipes.get("climatebench_vit_tiny")
    config = replace(config, method="odfa", tensorboard=False, data=replace(config.data, path=folder))
    result = train.run(config, tmp_path / "run", progress=False)
    assert result.metric["name"] == "rmse"
    assert 0 < result.metric["value"] < 3 * load_climatebench(folder).references["climatology"]


def _spoil(folder: Path, name: str, change) -> None:
    whole = xarray.load_dataset(folder / name, engine="netcdf4")
    (folder / name).unlink()
    change(whole).to_netcdf(folder / name, engine="netcdf4")


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("outputs_ssp126.nc", lambda w: w.rename(tas="t2m"), "expected the variable tas, found pr, t2m"),
        ("inputs_ssp126.nc", lambda w: w.drop_vars("SO2"), "expected the variable SO2, found BC, CH4, CO2"),
        ("inputs_ssp126.nc", lambda w: w.isel(time=slice(9, None)), "has CO2 from 2024 to 2098, expected all of 2015"),
        ("inputs_ssp126.nc", lambda w: w.isel(time=[0, 1, *range(3, 84)]), "2017 is missing"),
        ("outputs_ssp126.nc", lambda w: w.isel(lat=slice(0, 6)), "on a grid of 12 x 12 at least in outputs_ssp126"),
        ("inputs_ssp126.nc", lambda w: w.isel(longitude=slice(0, 6)), "SO2 of inputs_ssp126.nc has another grid"),
    ],
)
def test_files_that_do_not_fit_are_refused(tmp_path: Path, name: str, change, message: str) -> None:
    _spoil(write_climatebench(tmp_path, ("ssp126", "ssp245")), name, change)
    with pytest.raises(DataError, match=message) as caught:
        load_climatebench(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_what_is_not_there_is_said(folder: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"say data.path=FOLDER"):
        load_climatebench(None)
    with pytest.raises(DataError, match=r"expected inputs_ssp245.nc and at least one more scenario, found none"):
        load_climatebench(str(tmp_path))
    with pytest.raises(DataError, match=r"expected inputs_ssp999.nc .* found historical, ssp126, ssp245"):
        load_climatebench(folder, test="ssp999")
    write_climatebench(tmp_path, ("ssp126", "ssp245"))
    for kind in ("inputs", "outputs"):
        _spoil(tmp_path, f"{kind}_ssp126.nc", lambda whole: whole.isel(time=slice(20, 40)))
    with pytest.raises(DataError, match="no year is left in one part; expected fifty years or more besides ssp245"):
        load_climatebench(str(tmp_path))
