"""Yearly means of NetCDF files in every calendar, and every way such a file can be wrong."""

from pathlib import Path

import numpy as np
import pytest
import xarray

from odfa.data.netcdf import read_yearly
from odfa.errors import DataError

UNITS = {"K": 0.0, "degC": 273.15}


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
    read = read_yearly(_write(tmp_path / "a.nc", calendar=calendar, per_year=per_year), "tas", UNITS)
    assert read.year_Y.tolist() == [1990, 1991, 1992]
    values = np.arange(18 * per_year, dtype=np.float64).reshape(3, per_year, 2, 3)
    assert np.array_equal(read.value_YHW, values.mean(axis=1))
    assert (read.latitude_H.tolist(), read.longitude_W.tolist()) == ([10.0, 20.0], [0.0, 1.0, 2.0])


def test_celsius_becomes_kelvin_and_members_are_averaged(tmp_path: Path) -> None:
    whole = xarray.load_dataset(_write(tmp_path / "a.nc", units="degC"), engine="netcdf4", decode_times=False)
    both = xarray.concat([whole, whole + 2], dim="member")
    both["tas"].attrs["units"] = "degC"
    both.to_netcdf(tmp_path / "b.nc", engine="netcdf4")
    single, double = (read_yearly(tmp_path / f"{name}.nc", "tas", UNITS) for name in "ab")
    assert single.value_YHW[0, 0, 0] == 273.15
    assert np.allclose(double.value_YHW, single.value_YHW + 1)


def test_values_without_a_place_are_read(tmp_path: Path) -> None:
    time = ("time", [1850, 1851], {"units": "common"})
    xarray.Dataset({"CO2": ("time", [1.0, 2.0])}, {"time": time}).to_netcdf(tmp_path / "a.nc", engine="netcdf4")
    read = read_yearly(tmp_path / "a.nc", "CO2")
    assert (read.value_YHW.tolist(), read.year_Y.tolist()) == ([1.0, 2.0], [1850, 1851])
    assert read.latitude_H.size == 0


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ({"units": "F"}, "expected tas in K or degC, got F"),
        ({"values": np.full((3, 2, 3), np.nan, np.float32)}, "tas holds NaN or infinity in 1990"),
        ({"calendar": "mayan"}, "cannot read .*"),
    ],
)
def test_what_a_file_must_not_hold(tmp_path: Path, spoil: dict, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_yearly(_write(tmp_path / "a.nc", **spoil), "tas", UNITS)
    assert "\n" not in str(caught.value)


def test_years_that_are_missing_or_incomplete(tmp_path: Path) -> None:
    whole = xarray.load_dataset(_write(tmp_path / "a.nc", per_year=4), engine="netcdf4", decode_times=False)
    whole.isel(time=[0, 1, 2, 3, 8, 9, 10, 11]).to_netcdf(tmp_path / "b.nc", engine="netcdf4")
    whole.isel(time=slice(0, 11)).to_netcdf(tmp_path / "c.nc", engine="netcdf4")
    with pytest.raises(DataError, match="every year from 1990 to 1992, 1991 is missing"):
        read_yearly(tmp_path / "b.nc", "tas")
    with pytest.raises(DataError, match="as many values in every year, 1992 has 3"):
        read_yearly(tmp_path / "c.nc", "tas")


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is missing"):
        read_yearly(tmp_path / "a.nc", "tas")
    (tmp_path / "a.nc").write_bytes(b"CDF no more")
    with pytest.raises(DataError, match="cannot read"):
        read_yearly(tmp_path / "a.nc", "tas")
    cut = _write(tmp_path / "b.nc").read_bytes()
    (tmp_path / "b.nc").write_bytes(cut[: len(cut) // 2])
    with pytest.raises(DataError, match="cannot read") as caught:
        read_yearly(tmp_path / "b.nc", "tas")
    assert "\n" not in str(caught.value)


def test_a_variable_that_is_not_there_is_named_beside_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected the variable pr, found tas"):
        read_yearly(_write(tmp_path / "a.nc"), "pr")
