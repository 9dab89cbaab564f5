"""ClimateBench files of small size, made from real temperatures: what becomes of them, and what is refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray
from tests.data.climate_files import real, write_climatebench

from odfa import recipes, train
from odfa.errors import DataError
from odfa.tasks.climate import climatebench
from odfa.tasks.climate.climatebench import load_climatebench, peek_climatebench


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
    config = recipes.get("climatebench_vit_tiny", "odfa")
    config = replace(config, tensorboard=False, data=replace(config.data, path=folder))
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
        (
            "inputs_ssp126.nc",
            lambda w: w.isel(time=slice(9, None)),
            "CO2 of inputs_ssp126.nc goes from 2024 to 2098; .* 2015 is missing",
        ),
        ("inputs_ssp126.nc", lambda w: w.isel(time=[0, 1, *range(3, 84)]), "2017 is missing"),
        (
            "outputs_ssp126.nc",
            lambda w: w.isel(lat=slice(0, 6)),
            "expected tas in outputs_ssp126.nc on 12 x 12 places at least, got ",
        ),
        ("inputs_ssp126.nc", lambda w: w.isel(longitude=slice(0, 6)), "SO2 of inputs_ssp126.nc has another grid"),
        ("inputs_ssp126.nc", lambda w: w.assign_coords(latitude=w.latitude + 1), "SO2 of .* expected the same places"),
        ("inputs_ssp126.nc", lambda w: w.assign(SO2=w.SO2.mean(("latitude", "longitude"))), "expected a map of it"),
        ("inputs_ssp126.nc", lambda w: w.assign(CO2=w.CO2 - 9999), "CO2 is -.* expected -100 to 100000"),
        (
            "outputs_ssp126.nc",
            lambda w: w.assign(tas=w.tas + 288),
            "tas of ssp126 is a temperature, that of ssp245 a ch",
        ),
        (
            "outputs_ssp126.nc",
            lambda w: w.assign(tas=w.tas.assign_attrs(units="K")),
            "one unit, got K in outputs_ssp126",
        ),
        (
            "outputs_ssp126.nc",
            lambda w: w.where((w.member != 1) | (w.lat > 20) | (w.time != 2030)),
            "in 2030, member 2 of",
        ),
    ],
)
def test_files_that_do_not_fit_are_refused(tmp_path: Path, name: str, change, message: str) -> None:
    _spoil(write_climatebench(tmp_path, ("ssp126", "ssp245")), name, change)
    with pytest.raises(DataError, match=message) as caught:
        load_climatebench(str(tmp_path))
    assert "\n" not in str(caught.value)


def _notebook_form(folder: Path, *, idealised: bool = True) -> None:
    """The five kinds of files that ClimateBench's notebooks write, on 12 x 12 places.

    Maps for historical and ssp runs; hist-GHG and hist-aer joined with a run of other years, so that what they have is
    missing there and what they lack is zeros without places; idealised runs of years from 1 on, some years lost.
    Outputs are changes without units; members end at different times; a scalar coordinate `quantile` is left over.
    """
    rng = np.random.default_rng(0)
    grid = {"lat": np.linspace(-90, 90, 12), "lon": np.arange(12) * 30.0}
    there = {"latitude": grid["lat"], "longitude": grid["lon"]}
    series, maps = ("time",), ("time", "latitude", "longitude")

    def save(name: str, years: np.ndarray, given: dict, members: int = 1, lost: slice = slice(0, 0)) -> None:
        whole = xarray.Dataset(
            given, {"time": years, **(there if any(len(v.dims) == 3 for v in given.values()) else {})}
        )
        whole.to_netcdf(folder / f"inputs_{name}.nc", engine="netcdf4")
        years = years[years >= 1850] if name.startswith("hist") else years
        change = rng.normal(size=(members, len(years), 12, 12)).astype(np.float32)
        change[-1, lost] = np.nan
        axes = {"member": np.arange(members) + 1, "time": years, **grid, "quantile": 0.9}
        out = {name: (("member", "time", "lat", "lon"), scale * change) for name, scale in (("tas", 1), ("pr90", 1e-7))}
        xarray.Dataset(out, axes).to_netcdf(folder / f"outputs_{name}.nc", engine="netcdf4")

    def field(years: np.ndarray) -> xarray.Variable:
        return xarray.Variable(maps, rng.random((len(years), 12, 12)) * 1e-11)

    def zeros(years: np.ndarray, of: np.ndarray) -> xarray.Variable:
        return xarray.Variable(series, np.where(np.isin(years, of), 0, np.nan))

    past, future, first = np.arange(1850, 2015), np.arange(2015, 2101), np.arange(1, 151)
    co2 = {int(year): 9.0 * n for n, year in enumerate(np.arange(1850, 2101))}
    for name, years in (("historical", past), ("ssp245", future), ("ssp370", future)):
        gases = {gas: xarray.Variable(series, scale * np.array([co2[y] for y in years])) for gas, scale in _GASES}
        lost = slice(40, None) if name == "ssp370" else slice(0, 0)
        save(name, years, {**gases, "SO2": field(years), "BC": field(years)}, members=3, lost=lost)
    both = np.concatenate([first, past])
    known = {
        gas: xarray.Variable(series, scale * np.array([co2.get(y, np.nan) for y in both])) for gas, scale in _GASES
    }
    save("hist-GHG", both, {**known, "SO2": zeros(both, first), "BC": zeros(both, first)})
    hollow = {name: xarray.Variable(maps, np.where(both[:, None, None] < 1850, np.nan, 1e-11) * np.ones((1, 12, 12)))
              for name in ("SO2", "BC")}  # fmt: skip
    save("hist-aer", both, {"CO2": zeros(both, first), "CH4": zeros(both, first), **hollow})
    if idealised:
        none = {name: zeros(first, first) for name in ("CH4", "SO2", "BC")}
        save("1pctCO2", first, {"CO2": xarray.Variable(series, 9.0 * first), **none}, lost=slice(0, 6))


_GASES = (("CO2", 1.0), ("CH4", 1e-4))


def test_the_forms_that_the_notebooks_write_are_read(tmp_path: Path) -> None:
    _notebook_form(tmp_path)
    whole = load_climatebench(str(tmp_path), test="ssp245")
    years = {
        scenario: {int(n.split(", ")[1]) for n in whole.train.names if n.split(", ")[0] == scenario}
        for scenario in ("hist-GHG", "hist-aer", "historical", "ssp370", "1pctCO2")
    }
    assert years["hist-GHG"] == years["hist-aer"] == years["historical"]
    assert min(years["1pctCO2"]) == 7  # the years that were lost are no samples
    assert max(years["ssp370"]) == 2100  # where one member has ended, the others go on
    outputs = xarray.load_dataset(tmp_path / "outputs_ssp370.nc", engine="netcdf4").tas.values
    for year, members in ((2050, slice(0, 3)), (2060, slice(0, 2))):
        found = whole.train.y_N[whole.train.names.index(f"ssp370, {year}")].numpy() * whole.train.unit
        wanted = np.sum(outputs[members, year - 2015].astype(np.float64), axis=0) / (members.stop)
        assert np.allclose(found, wanted.reshape(-1), atol=1e-5)
    inputs = whole.train.x_ND.view(len(whole.train), 4, -1)
    ghg, aer = (whole.train.names.index(f"{name}, 1900") for name in ("hist-GHG", "hist-aer"))
    assert torch.equal(inputs[ghg, :2], inputs[whole.train.names.index("historical, 1900"), :2])
    assert (inputs[aer, :2].unique(dim=1) == inputs[aer, :2, :1]).all()
    assert (inputs[aer, 2:] > inputs[ghg, 2:]).all()  # no aerosol in one, some in the other
    assert load_climatebench(str(tmp_path), variable="pr90").shape == whole.shape


@pytest.mark.parametrize("turned", [False, True], ids=["latitude", "longitude"])
def test_files_of_another_order_are_aligned_by_their_coordinates(folder: str, tmp_path: Path, turned: bool) -> None:
    write_climatebench(tmp_path)
    for kind, latitude, longitude in (("inputs", "latitude", "longitude"), ("outputs", "lat", "lon")):
        for name in ("historical", "ssp126") if kind == "outputs" else ("ssp126", "ssp245"):

            def change(whole, latitude=latitude, longitude=longitude):
                if not turned:
                    return whole.isel({latitude: slice(None, None, -1)})
                at = whole[longitude].values - 360
                return whole.assign_coords({longitude: at}).roll({longitude: 5}, roll_coords=True)

            _spoil(tmp_path, f"{kind}_{name}.nc", change)
    straight, found = load_climatebench(folder), load_climatebench(str(tmp_path))
    for part in ("train", "test"):
        assert torch.equal(getattr(found, part).x_ND, getattr(straight, part).x_ND)
        assert torch.equal(getattr(found, part).y_N, getattr(straight, part).y_N)


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
