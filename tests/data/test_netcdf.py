"""Yearly means of NetCDF files in every calendar, and every way such a file can be wrong."""

from pathlib import Path

import netCDF4
import numpy as np
import pytest
import xarray

from odfa.data.netcdf import read_yearly
from odfa.errors import DataError

WIDE = {"between": (-1e3, 1e3)}


def _write(
    file: Path,
    *,
    calendar: str = "standard",
    per_year: int = 1,
    units: str = "K",
    values: np.ndarray | None = None,
) -> Path:
    """Three years from 1990 on a grid of two by three."""
    days = {"360_day": 360, "noleap": 365}.get(calendar, 365.25)
    count = 3 * per_year
    value_YHW = np.arange(count * 6, dtype=np.float32).reshape(-1, 2, 3) if values is None else values
    time = ("time", np.arange(count) * days / per_year + 15, {"units": "days since 1990-01-01", "calendar": calendar})
    whole = xarray.Dataset(
        {"tas": (("time", "lat", "lon"), value_YHW, {"units": units})},
        {"time": time, "lat": [10.0, 20.0], "lon": [0.0, 1.0, 2.0]},
    )
    whole.to_netcdf(file, engine="netcdf4")
    return file


@pytest.mark.parametrize("calendar", ["standard", "proleptic_gregorian", "noleap", "360_day", "all_leap"])
@pytest.mark.parametrize("per_year", [1, 4])
def test_means_over_the_years_of_any_calendar(tmp_path: Path, calendar: str, per_year: int) -> None:
    read = read_yearly(_write(tmp_path / "a.nc", calendar=calendar, per_year=per_year), "tas", **WIDE, kelvin=True)
    assert read.year_Y.tolist() == [1990, 1991, 1992]
    values = np.arange(18 * per_year, dtype=np.float64).reshape(3, per_year, 2, 3)
    assert np.array_equal(read.value_YHW, values.mean(axis=1))
    assert (read.latitude_H.tolist(), read.longitude_W.tolist()) == ([10.0, 20.0], [0.0, 1.0, 2.0])


def test_celsius_becomes_kelvin_and_members_are_averaged(tmp_path: Path) -> None:
    whole = xarray.load_dataset(_write(tmp_path / "a.nc", units="degC"), engine="netcdf4", decode_times=False)
    both = xarray.concat([whole, whole + 2], dim="member")
    both["tas"].attrs["units"] = "degC"
    both.to_netcdf(tmp_path / "b.nc", engine="netcdf4")
    single, double = (read_yearly(tmp_path / f"{name}.nc", "tas", **WIDE, kelvin=True) for name in "ab")
    assert single.value_YHW[0, 0, 0] == 273.15
    assert np.allclose(double.value_YHW, single.value_YHW + 1)


def _series(values: list[float], stamps: list, *, bounds: list | None = None, **attributes) -> xarray.Dataset:
    """Values of one place at these times; `attributes` are those of time."""
    if bounds is not None:
        attributes["bounds"] = "time_bnds"
    value_THW = np.array(values, np.float64)[:, None, None] * np.ones((1, 2, 3))
    variables = {"tas": (("time", "lat", "lon"), value_THW, {"units": "K"})}
    if bounds is not None:
        variables["time_bnds"] = (("time", "edge"), bounds)
    axes = {"time": ("time", stamps, attributes), "lat": [10.0, 20.0], "lon": [0.0, 1.0, 2.0]}
    return xarray.Dataset(variables, axes)


def _read(whole: xarray.Dataset, folder: Path, **how):
    whole.to_netcdf(folder / "series.nc", engine="netcdf4")
    return read_yearly(folder / "series.nc", "tas", **{**WIDE, **how})


NOLEAP = {"units": "days since 2000-01-01", "calendar": "noleap"}
LENGTHS = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]


def test_bounds_tell_the_year_of_a_stamp_at_the_end_of_its_period(tmp_path: Path) -> None:
    periods = [[0.0, 365.0], [365.0, 730.0], [730.0, 1095.0]]
    ends = _series([1, 2, 3], [365.0, 730.0, 1095.0], bounds=periods, **NOLEAP)
    read = _read(ends, tmp_path)
    assert (read.year_Y.tolist(), read.value_YHW[:, 0, 0].tolist()) == ([2000, 2001, 2002], [1, 2, 3])
    with pytest.raises(DataError, match=r"2001-01-01 .* begins one year and ends another, .* time_bnds are not in the"):
        _read(ends.drop_vars("time_bnds"), tmp_path)


@pytest.mark.parametrize("bounded", [False, True])
@pytest.mark.parametrize(
    ("calendar", "february"), [("noleap", 28), ("all_leap", 29), ("360_day", 30), ("standard", 29)]
)
def test_months_weigh_their_days(tmp_path: Path, calendar: str, february: int, bounded: bool) -> None:
    days = [30] * 12 if calendar == "360_day" else [31, february, *LENGTHS[2:]]
    edges = np.concatenate([[0.0], np.cumsum(days)])
    bounds = np.stack([edges[:-1], edges[1:]], axis=1) if bounded else None
    stamps = edges[1:] if bounded else edges[:-1] + 14
    read = _read(
        _series(range(1, 13), stamps, bounds=bounds, units="days since 2000-01-01", calendar=calendar), tmp_path
    )
    wanted = sum(month * length for month, length in enumerate(days, 1)) / sum(days)
    assert read.year_Y.tolist() == [2000]
    assert read.value_YHW[0, 0, 0] == pytest.approx(wanted, rel=1e-12)
    assert calendar != "noleap" or wanted == pytest.approx(6.526, abs=1e-3)


def test_every_day_of_leap_years_and_others_is_a_full_year(tmp_path: Path) -> None:
    days = np.arange(366 + 365 + 365)
    read = _read(_series(days / 2, days + 0.5, units="days since 2000-01-01", calendar="standard"), tmp_path)
    assert read.value_YHW[:, 0, 0].tolist() == [365 / 4, 183 + 91, 365.5 + 91]
    with pytest.raises(DataError, match="as many values in every year, 2002 has 364"):
        _read(_series(days[:-1] / 2, days[:-1] + 0.5, units="days since 2000-01-01", calendar="standard"), tmp_path)


YEARS = [2000, 2001, 2002]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: _series([1, 2, 3], YEARS).drop_vars("time"), "the axis time of tas has no values"),
        (lambda: _series([1, 2, 3], YEARS).drop_vars("lat"), "the axis lat of tas has no values"),
        (lambda: _series([1, 2, 3], YEARS).drop_vars("lon"), "the axis lon of tas has no values"),
        (lambda: _series([1, 2, 3, 4], [2000, 2000, 2001, 2001]), "expected every year once, 2000 comes 2 times"),
        (lambda: _series([1, 2], [10.0, 10.0], **NOLEAP), "expected every time once, 1 come again"),
        (lambda: _series([1, 2], [100.0, 101.0], **NOLEAP), None),
        (
            lambda: _series([1, 2, 3], [0.0, 1.0, 99.0], **NOLEAP),
            "1 to 98 days apart; expected months, even steps, or b",
        ),
        (lambda: _series([1, 2], [9.0, 9.5], bounds=[[0, 365], [0, 364]], **NOLEAP), "periods that end .* overlap"),
        (
            lambda: _series([1, 2], [9.0, 999.0], bounds=[[0, 365]] * 2, **NOLEAP),
            "expected 2002-09-27 .* in a period of",
        ),
        (lambda: _series([1], [9.0], bounds=[[0, 3650]], **NOLEAP), "in a period of a year at most, its bounds"),
        (lambda: _series([1, 2], [2000.5, 2001.5], units="years"), "a time is 2000.5 in 'years'; expected whole years"),
        (
            lambda: _series([1], [20000115.0], units="day as %Y%m%d.%f"),
            "time is float64 in 'day as %Y%m%d.%f'; expected",
        ),
        (lambda: _series([1], [20000115]), "a time is 20000115 without a unit; expected whole years"),
        (lambda: _series([1, 2], [-(2**63), 2000]), r"a time is -9.22337203685e\+18 without a unit"),  # has no abs
        (lambda: _series([1], [3], units="days"), "time is int64 in 'days'; expected whole years"),
        (lambda: _series([1], [3], units="months since 1850-01-01"), "cannot read times in 'months since 1850-01-01'"),
        (lambda: _series([1, 2], [3, np.nan], **NOLEAP), "a time is missing"),
        (lambda: _series([1], YEARS[:1]).assign_coords(lat=[10.0, 99.0]), "expected lat from -90 to 90 degrees"),
        (lambda: _series([1], YEARS[:1]).assign_coords(lon=[0.0, 1.0, 360.0]), "expected every lon once"),
        (
            lambda: _series([1], YEARS[:1]).assign_coords(lat=("lat", [0, 1], {"units": "radian"})),
            "degrees, got radian",
        ),
        (lambda: _series([1, 2, 1e4], YEARS), "tas is 10000 K in 2002; expected -1000 to 1000"),
        (lambda: _series([1, np.inf, 3], YEARS), "tas is inf K in 2001"),
    ],
)
def test_times_and_places_that_must_not_be_guessed(tmp_path: Path, make, message: str | None) -> None:
    if message is None:
        assert _read(make(), tmp_path).value_YHW[0, 0, 0] == 1.5
        return
    with pytest.raises(DataError, match=message) as caught:
        _read(make(), tmp_path)
    assert "\n" not in str(caught.value)


KELVINS = ["K", "kelvin", "Kelvin", "degK", "deg_K", "degrees_K", "\u212a", "degrees Kelvin", "deg K"]
CELSIUS = ["degC", "deg_C", "deg C", "°C", "ºC", "℃", "C", "celsius", "Celsius", "degrees_celsius", "degree_C"]


@pytest.mark.parametrize("spelled", [*KELVINS, *CELSIUS])
def test_spellings_of_kelvin_and_celsius(tmp_path: Path, spelled: str) -> None:
    whole = _series([10], YEARS[:1])
    whole["tas"].attrs["units"] = spelled
    assert _read(whole, tmp_path, kelvin=True).value_YHW[0, 0, 0] == (10 if spelled in KELVINS else 283.15)
    same = _read(whole, tmp_path)
    assert (same.value_YHW[0, 0, 0], same.unit) == (10, "K" if spelled in KELVINS else "degC")


@pytest.mark.parametrize("spelled", ["", "F", "degF", "rankine", "mK", "K s-1", "degrees", "1"])
def test_other_units_are_no_temperature(tmp_path: Path, spelled: str) -> None:
    whole = _series([10], YEARS[:1])
    whole["tas"].attrs["units"] = spelled
    with pytest.raises(DataError, match=f"expected tas in K or degC, got {spelled or 'no units'}"):
        _read(whole, tmp_path, kelvin=True)


@pytest.mark.parametrize("kind", ["f4", "f8", "i2", "i4"])
def test_what_was_never_written_is_missing(tmp_path: Path, kind: str) -> None:
    """The library fills what is not written, and says so in no attribute; also where integers stand for decimals."""
    with netCDF4.Dataset(tmp_path / "a.nc", "w") as file:
        for name, size in (("year", 3), ("lat", 2), ("lon", 2)):
            file.createDimension(name, size)
            file.createVariable(name, "f8", (name,))[:] = np.arange(size) + (2000 if name == "year" else 0)
        tas = file.createVariable("tas", kind, ("year", "lat", "lon"))
        tas.scale_factor = 0.01
        tas[:2] = np.full((2, 2, 2), 2.5)
    with pytest.raises(DataError, match="tas holds missing values, NaN or infinity in 2002"):
        read_yearly(tmp_path / "a.nc", "tas", **WIDE)


def test_a_member_that_lacks_a_cell_is_refused_and_one_that_lacks_a_year_only_where_runs_are_joined(tmp_path) -> None:
    value = np.arange(24.0).reshape(2, 3, 2, 2)
    axes = {"time": YEARS, "lat": [0.0, 1.0], "lon": [0.0, 1.0]}
    cell, year = value.copy(), value.copy()
    cell[1, 1, 0, 0] = year[1, 1] = np.nan
    for spoiled, gaps in ((cell, False), (cell, True), (year, False)):
        whole = xarray.Dataset({"tas": (("member", "time", "lat", "lon"), spoiled)}, axes)
        with pytest.raises(DataError, match="NaN or infinity in 2001, member 2 of 2"):
            _read(whole, tmp_path, gaps=gaps)
    whole = xarray.Dataset({"tas": (("member", "time", "lat", "lon"), year)}, axes)
    wanted = [value[:, 0].mean(axis=0), value[0, 1], value[:, 2].mean(axis=0)]
    assert np.array_equal(_read(whole, tmp_path, gaps=True).value_YHW, wanted)


def test_more_values_than_memory_are_not_read(tmp_path: Path) -> None:
    with netCDF4.Dataset(tmp_path / "a.nc", "w") as file:
        for name, size in (("year", 10**6), ("lat", 1000), ("lon", 1000)):
            file.createDimension(name, size)
            file.createVariable(name, "f4", (name,), chunksizes=(1000,))
        file.createVariable("tas", "f4", ("year", "lat", "lon"), chunksizes=(1, 1000, 1000))
    with pytest.raises(DataError, match="tas has 1,000,000,000,000 values; expected 268,435,456 at most"):
        read_yearly(tmp_path / "a.nc", "tas", **WIDE)


def test_values_without_a_place_are_read(tmp_path: Path) -> None:
    time = ("time", [1850, 1851], {"units": "common"})
    xarray.Dataset({"CO2": ("time", [1.0, 2.0])}, {"time": time}).to_netcdf(tmp_path / "a.nc", engine="netcdf4")
    read = read_yearly(tmp_path / "a.nc", "CO2", **WIDE)
    assert (read.value_YHW.tolist(), read.year_Y.tolist()) == ([1.0, 2.0], [1850, 1851])
    assert read.latitude_H.size == 0


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ({"units": "F"}, "expected tas in K or degC, got F"),
        ({"values": np.full((3, 2, 3), np.nan, np.float32)}, "tas holds missing values, NaN or infinity in 1990"),
        ({"calendar": "mayan"}, "cannot read .*"),
    ],
)
def test_what_a_file_must_not_hold(tmp_path: Path, spoil: dict, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_yearly(_write(tmp_path / "a.nc", **spoil), "tas", **WIDE, kelvin=True)
    assert "\n" not in str(caught.value)


def test_years_that_are_missing_or_incomplete(tmp_path: Path) -> None:
    whole = xarray.load_dataset(_write(tmp_path / "a.nc", per_year=4), engine="netcdf4", decode_times=False)
    whole.isel(time=[0, 1, 2, 3, 8, 9, 10, 11]).to_netcdf(tmp_path / "b.nc", engine="netcdf4")
    whole.isel(time=slice(0, 11)).to_netcdf(tmp_path / "c.nc", engine="netcdf4")
    with pytest.raises(DataError, match="every year from 1990 to 1992, 1991 is missing"):
        read_yearly(tmp_path / "b.nc", "tas", **WIDE)
    with pytest.raises(DataError, match="as many values in every year, 1992 has 3"):
        read_yearly(tmp_path / "c.nc", "tas", **WIDE)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is missing"):
        read_yearly(tmp_path / "a.nc", "tas", **WIDE)
    (tmp_path / "a.nc").write_bytes(b"CDF no more")
    with pytest.raises(DataError, match="cannot read"):
        read_yearly(tmp_path / "a.nc", "tas", **WIDE)
    cut = _write(tmp_path / "b.nc").read_bytes()
    (tmp_path / "b.nc").write_bytes(cut[: len(cut) // 2])
    with pytest.raises(DataError, match="cannot read") as caught:
        read_yearly(tmp_path / "b.nc", "tas", **WIDE)
    assert "\n" not in str(caught.value)


def test_a_variable_that_is_not_there_is_named_beside_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected the variable pr, found tas"):
        read_yearly(_write(tmp_path / "a.nc"), "pr", **WIDE)
