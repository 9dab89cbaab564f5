"""Yearly fields out of NetCDF files.

Shape letters: `Y` years · `H W` latitudes, longitudes.
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from odfa.data.extras import needs
from odfa.errors import DataError

_AXES = (("time", "year"), ("latitude", "lat"), ("longitude", "lon"))


@dataclass(frozen=True, kw_only=True)
class YearlyField:
    """One value per year and place; `latitude_H` and `longitude_W` in degrees, empty for values without a place."""

    value_YHW: np.ndarray
    year_Y: np.ndarray
    latitude_H: np.ndarray
    longitude_W: np.ndarray


def read_yearly(path: Path, variable: str, units: Mapping[str, float] | None = None) -> YearlyField:
    """Means over each year of a variable; any calendar, one or more values a year, members averaged.

    Args:
        units: units that are understood, and what is added to convert them into the first one; None: any.

    Raises:
        DataError: no such file or variable, other units, axes that are no time, latitude and longitude, a time that
            cannot be read, years that are missing, doubled or incomplete, values that are not finite.
        MissingExtra: xarray or netCDF4 is not installed.
    """
    with needs("odfa[climate]", "NetCDF files"):
        import xarray

        for reader in ("cftime", "netCDF4"):  # xarray reads calendars and files with them
            importlib.import_module(reader)
    if not path.is_file():
        raise DataError(f"{path} is missing; expected a NetCDF file with {variable}")
    try:
        with xarray.open_dataset(
            path, engine="netcdf4", decode_times=xarray.coders.CFDatetimeCoder(use_cftime=True)
        ) as whole:
            return _read(whole, variable, units, str(path))
    except DataError:
        raise
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(f"cannot read {path}: {reason}; expected a NetCDF file with CF times") from error


def _read(whole: Any, variable: str, units: Mapping[str, float] | None, where: str) -> YearlyField:
    if variable not in whole.data_vars:
        names = ", ".join(sorted(str(name) for name in whole.data_vars)) or "none"
        raise DataError(f"{where}: expected the variable {variable}, found {names}")
    values, offset = whole[variable], 0.0
    if units is not None:
        given = str(values.attrs.get("units", "none"))
        if given not in units:
            raise DataError(f"{where}: expected {variable} in {' or '.join(units)}, got {given}")
        offset = units[given]
    if "member" in values.dims:
        values = values.mean("member")
    axes = [next((name for name in known if name in values.dims), None) for known in _AXES]
    order = [name for name in axes if name is not None]
    if axes[0] is None or set(order) != set(values.dims) or len(order) == 2:
        raise DataError(f"{where}: expected {variable} over time, latitude and longitude, got {values.dims}")
    values = values.transpose(*order)
    year_Y, mean_Y = _yearly(values[axes[0]].values, np.asarray(values.values, np.float64), where)
    if not np.isfinite(mean_Y).all():
        raise DataError(f"{where}: {variable} holds NaN or infinity in {year_Y[~_finite(mean_Y)][0]}; repair it")
    places = [np.asarray(whole[name].values, np.float64) if name else np.empty(0) for name in axes[1:]]
    return YearlyField(value_YHW=mean_Y + offset, year_Y=year_Y, latitude_H=places[0], longitude_W=places[1])


def _yearly(time: np.ndarray, values: np.ndarray, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Years and means over them; every year must be there, with as many values as the others."""
    stamps = [int(getattr(stamp, "year", stamp)) for stamp in time.tolist()]
    years, place, count = np.unique(stamps, return_inverse=True, return_counts=True)
    missing = sorted(set(range(years[0], years[-1] + 1)) - set(years.tolist()))
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise DataError(f"{where}: expected every year from {years[0]} to {years[-1]}, {missing[0]}{more} is missing")
    if count.min() != count.max():
        odd = years[count != np.bincount(count).argmax()][0]
        raise DataError(f"{where}: expected as many values in every year, {odd} has {count[years == odd][0]}")
    total = np.zeros((len(years), *values.shape[1:]))
    np.add.at(total, place, values)
    return years, total / count[0]


def _finite(value: np.ndarray) -> np.ndarray:
    finite: np.ndarray = np.isfinite(value).reshape(len(value), -1).all(axis=1)
    return finite
