"""Yearly fields out of NetCDF files.

Shape letters: `T` values on the time axis · `M` members of an ensemble · `Y` years · `H W` latitudes, longitudes.
"""

import importlib
import unicodedata
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from odfa.data.extras import needs
from odfa.data.times import check_every_year, unreadable, years_and_days
from odfa.errors import DataError

if TYPE_CHECKING:
    import xarray

_AXES = (("time", "year"), ("latitude", "lat"), ("longitude", "lon"))
_KELVIN, _CELSIUS = {"k", "kelvin", "kelvins"}, {"c", "celsius", "centigrade"}
_ZERO_CELSIUS = 273.15
_UNREADABLE = (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, RuntimeError, OverflowError)
"""What xarray and its readers raise at files of any content."""
_MOST_VALUES = 2**28
"""Every value takes 8 bytes several times over; a file of a few kilobytes may declare any number of them."""
_SAME_PLACE = 1e-3
"""Degrees within which coordinates of two files, often float32 in one of them, are the same."""


@dataclass(frozen=True, kw_only=True)
class YearlyField:
    """One value per year and place; `latitude_H` and `longitude_W` in degrees, empty for values without a place."""

    value_YHW: np.ndarray
    year_Y: np.ndarray
    latitude_H: np.ndarray
    longitude_W: np.ndarray
    unit: str = ""
    """As the file spells it, kelvin and Celsius as K and degC; empty: it says none."""

    def on_grid_of(self, other: Self, said: str) -> Self:
        """The same field with its places in the order of `other`'s: latitudes flipped, longitudes counted on.

        Raises:
            DataError: the two are not the same places; `said` names both files, this field's first.
        """
        row_H = _places(self.latitude_H, other.latitude_H)
        column_W = _places(self.longitude_W, other.longitude_W)
        if row_H is None or column_W is None:
            grids = (f"{_extent(f.latitude_H)} N, {_extent(f.longitude_W)} E" for f in (self, other))
            raise DataError(f"{said}: expected the same places, got {' and '.join(grids)}")
        value_YHW = self.value_YHW[:, row_H][:, :, column_W]
        return replace(self, value_YHW=value_YHW, latitude_H=other.latitude_H, longitude_W=other.longitude_W)

    def cropped(self, step: int) -> Self:
        """The field without its last rows and columns, so that both sizes are multiples of `step`."""
        height, width = (size // step * step for size in self.value_YHW.shape[1:])
        return replace(
            self,
            value_YHW=self.value_YHW[:, :height, :width],
            latitude_H=self.latitude_H[:height],
            longitude_W=self.longitude_W[:width],
        )


def read_yearly(
    path: Path, variable: str, *, between: tuple[float, float], kelvin: bool = False, gaps: bool = False
) -> YearlyField:
    """Means over each year of a variable, weighted by days; any calendar, one or more values a year.

    Args:
        between: the least and the largest value that make sense (a fill value or another unit does not).
        kelvin: the variable is a temperature; Celsius is converted to kelvin.
        gaps: years may be missing between others, and members of an ensemble may lack whole years, as where runs of
            different length were joined; a year's mean is over the members that have it. False: neither.

    Raises:
        DataError: no such file or variable, other units, axes that are no time, latitude and longitude with values, a
            time that cannot be read, years that are missing, doubled or incomplete, values that are missing, not
            finite, or out of range.
        MissingExtra: xarray or netCDF4 is not installed.
    """
    with needs("odfa[climate]", "NetCDF files"):
        import xarray

        for reader in ("cftime", "netCDF4"):  # xarray reads calendars and files with them
            importlib.import_module(reader)
    if not path.is_file():
        raise DataError(f"{path} is missing; expected a NetCDF file with {variable}")
    where = str(path)
    try:
        with xarray.open_dataset(path, engine="netcdf4", decode_cf=False) as whole, warnings.catch_warnings():
            # of two fill values both are missing values, and those are refused here
            warnings.simplefilter("ignore", xarray.SerializationWarning)
            return _read(whole, variable, where, between=between, kelvin=kelvin, gaps=gaps)
    except DataError:
        raise
    except _UNREADABLE as error:
        reason = str(error).partition("\n")[0]
        raise DataError(f"cannot read {path}: {reason}; expected a NetCDF file that follows CF") from error


def same_unit(fields: dict[str, YearlyField], variable: str) -> None:
    """Refuse fields of several files in different units.

    Raises:
        DataError: two files say different units, or one says none.
    """
    (first, ours), *others = fields.items()
    for name, theirs in others:
        if theirs.unit != ours.unit:
            said = (f"{field.unit or 'no unit'} in {file}" for file, field in ((first, ours), (name, theirs)))
            raise DataError(f"expected {variable} in one unit, got {' and '.join(said)}; convert one of them")


def _read(
    whole: "xarray.Dataset", variable: str, where: str, *, between: tuple[float, float], kelvin: bool, gaps: bool
) -> YearlyField:
    # The order matters: sizes are checked before values are read, values before they are averaged, for a mean hides a
    # wrong unit or a fill value.
    bounds = {str(v.attrs["bounds"]) for v in whole.variables.values() if "bounds" in v.attrs}
    if variable not in whole.data_vars:
        names = ", ".join(sorted(str(n) for n, v in whole.data_vars.items() if v.ndim and n not in bounds)) or "none"
        raise DataError(f"{where}: expected the variable {variable}, found {names}")
    axes = [next((name for name in known if name in whole[variable].dims), None) for known in _AXES]
    order = [name for name in axes if name is not None]
    others = set(whole[variable].dims) - set(order) - {"member"}
    if axes[0] is None or others or len(order) == 2:
        raise DataError(f"{where}: expected {variable} over time, latitude and longitude, got {whole[variable].dims}")
    for name in order:
        if name not in whole.coords or not whole[name].size:
            raise DataError(f"{where}: the axis {name} of {variable} has no values; expected a coordinate {name}")
    if whole[variable].size > _MOST_VALUES:
        raise DataError(f"{where}: {variable} has {whole[variable].size:,} values; expected {_MOST_VALUES:,} at most")
    part, lost = _decoded(whole, variable, axes[0], where)
    unit, offset = _unit(part[variable], kelvin, where)
    period = part.get(str(part[axes[0]].attrs.get("bounds", "")))
    year_T, days_T = years_and_days(part[axes[0]], period, lost=lost, where=where)
    check_every_year(year_T, part[axes[0]], where, gaps=gaps)
    values = part[variable] if "member" in part[variable].dims else part[variable].expand_dims("member")
    value_MTHW = np.asarray(values.transpose("member", *order).values, np.float64) + offset
    _check_range(value_MTHW, year_T, between, f"{where}: {variable}", unit)
    year_Y, mean_YHW = _yearly(value_MTHW, year_T, days_T, f"{where}: {variable}", gaps=gaps)
    latitude_H, longitude_W = (_degrees(part[name], where) if name else np.empty(0) for name in axes[1:])
    return YearlyField(value_YHW=mean_YHW, year_Y=year_Y, latitude_H=latitude_H, longitude_W=longitude_W, unit=unit)


def _decoded(whole: "xarray.Dataset", variable: str, time: str, where: str) -> tuple["xarray.Dataset", str]:
    """The variable with its axes, fill values as NaN and times as dates; the name of bounds that are lost."""
    import netCDF4
    import xarray

    bounds = whole[time].attrs.get("bounds")
    lost = str(bounds) if bounds is not None and bounds not in whole.variables else ""
    part = whole[[variable] if bounds is None or lost else [variable, bounds]].copy()
    numbers = part[time].values
    fill = part[time].attrs.get("_FillValue", netCDF4.default_fillvals.get(numbers.dtype.str[1:]))
    if numbers.dtype.kind in "fiu" and not (np.isfinite(numbers) & (numbers != fill)).all():
        raise DataError(
            f"{where}: a {time} is missing; expected one for every value"
        )  # decoding would make it the first day
    kind = part[variable].dtype
    if not {"_FillValue", "missing_value"} & set(part[variable].attrs) and kind.itemsize > 1:
        # what was never written holds the library's own fill value, which need not be declared
        part[variable].attrs["_FillValue"] = kind.type(netCDF4.default_fillvals.get(kind.str[1:], np.nan))
    try:
        coder = xarray.coders.CFDatetimeCoder(use_cftime=True)
        return xarray.decode_cf(part, decode_times=coder, decode_timedelta=False), lost
    except (ValueError, OverflowError) as error:
        raise unreadable(part[time].attrs, where) from error


def _unit(values: "xarray.DataArray", kelvin: bool, where: str) -> tuple[str, float]:
    """The unit, kelvin and Celsius as one spelling, and what is added to the values."""
    given = str(values.attrs.get("units", "")).strip()
    # "º" is no letter here; NFKC makes one sign out of two for degrees Celsius, and a K of the kelvin sign
    plain = unicodedata.normalize("NFKC", given.replace("º", "°")).casefold()
    for degree in ("degrees", "degree", "deg", "°"):
        plain = plain.removeprefix(degree).lstrip(" _.")
    spelled = "K" if plain in _KELVIN else "degC" if plain in _CELSIUS else given
    if not kelvin:
        return spelled, 0.0
    if spelled not in ("K", "degC"):
        raise DataError(f"{where}: expected {values.name} in K or degC, got {given or 'no units'}")
    return "K", _ZERO_CELSIUS if spelled == "degC" else 0.0


def _yearly(
    value_MTHW: np.ndarray, year_T: np.ndarray, days_T: np.ndarray, said: str, *, gaps: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Years and means over them: over the times of a year by days, then over the members that have the year."""
    years, place_T = np.unique(year_T, return_inverse=True)
    total_YMHW = np.zeros((len(years), len(value_MTHW), *value_MTHW.shape[2:]))
    weight_T = days_T.reshape(-1, *[1] * (value_MTHW.ndim - 1))
    np.add.at(total_YMHW, place_T, np.moveaxis(value_MTHW, 1, 0) * weight_T)
    mean_YMHW = total_YMHW / np.bincount(place_T, days_T).reshape(-1, *[1] * (value_MTHW.ndim - 1))
    flat_YMG = mean_YMHW.reshape(*mean_YMHW.shape[:2], -1)
    absent_YM = np.logical_and.reduce(np.isnan(flat_YMG), axis=2) & gaps
    bad_YM = (~np.isfinite(flat_YMG)).any(axis=2) & ~absent_YM
    if bad_YM.any():
        year, member = np.argwhere(bad_YM)[0]
        who = f", member {member + 1} of {len(value_MTHW)}" if len(value_MTHW) > 1 else ""
        raise DataError(f"{said} holds missing values, NaN or infinity in {years[year]}{who}; repair it")
    there_Y = ~absent_YM.all(axis=1)
    if not there_Y.any():
        raise DataError(f"{said} holds missing values only")
    count_Y = (~absent_YM).sum(axis=1)[there_Y].reshape(-1, *[1] * (value_MTHW.ndim - 2))
    return years[there_Y], np.nansum(mean_YMHW[there_Y], axis=1) / count_Y


def _check_range(
    value_MTHW: np.ndarray, year_T: np.ndarray, between: tuple[float, float], said: str, unit: str
) -> None:
    low, high = between
    outside_MTHW = (value_MTHW < low) | (value_MTHW > high)
    if outside_MTHW.any():
        first = np.unravel_index(outside_MTHW.argmax(), outside_MTHW.shape)
        found = f"{value_MTHW[first]:.6g} {unit}".rstrip()
        raise DataError(
            f"{said} is {found} in {year_T[first[1]]}; expected {low:g} to {high:g}, look at its unit and fill value"
        )


def _degrees(axis: "xarray.DataArray", where: str) -> np.ndarray:
    """Coordinates in degrees, every place once."""
    values = np.asarray(axis.values, np.float64)
    unit = str(axis.attrs.get("units", "degrees"))
    most = 90.0 if axis.name in _AXES[1] else 360.0
    if not unit.startswith(("degree", "°")):
        raise DataError(f"{where}: expected {axis.name} in degrees, got {unit}")
    if values.ndim != 1 or not (np.abs(values) <= most).all():
        raise DataError(f"{where}: expected {axis.name} from -{most:g} to {most:g} degrees, got {_extent(values)}")
    turned = np.sort(values if most == 90 else values % 360)
    if len(turned) > 1 and np.diff([*turned, turned[0] + 360]).min() < _SAME_PLACE:
        raise DataError(f"{where}: expected every {axis.name} once, two are the same")
    return values


def _places(mine_P: np.ndarray, theirs_P: np.ndarray) -> np.ndarray | None:
    """For each of their coordinates the place of the same one of mine; None if they are not the same coordinates."""
    if len(mine_P) != len(theirs_P) or not len(mine_P):
        return None
    # counted from one of theirs, all are in one turn, and none lies at its seam
    mine_P, theirs_P = ((axis_P - theirs_P[0] + _SAME_PLACE) % 360 for axis_P in (mine_P, theirs_P))
    order_P, place_P = np.argsort(mine_P), np.empty(len(mine_P), int)
    place_P[np.argsort(theirs_P)] = order_P
    return place_P if np.abs(mine_P[place_P] - theirs_P).max() < _SAME_PLACE else None


def _extent(values: np.ndarray) -> str:
    return f"{len(values)} from {values[0]:g} to {values[-1]:g}" if len(values) else "none"
