"""Reading the time axis of a NetCDF file: the year of each value, and how many days it stands for.

Shape letters: `T` values on the time axis.
"""

from collections.abc import Mapping
from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from odfa.errors import DataError

if TYPE_CHECKING:
    import cftime
    import xarray

_YEARS = {"", "1", "year", "years", "yr", "yrs", "a", "common", "common_year", "common_years", "year as %y"}
"""Units under which whole numbers are years themselves."""
_LAST_YEAR = 9999
_DAY, _HOUR = timedelta(days=1), timedelta(hours=1)
_LONGEST_DAYS = 366 + 31
"""Longest period of one value that counts as a year, which need not begin in January; with a month to spare."""
_MONTHS = 12
_GOOD = "expected whole years, or a CF time ('days since 1850-01-01')"


def years_and_days(
    time: "xarray.DataArray", bounds: "xarray.DataArray | None", *, lost: str, where: str
) -> tuple[np.ndarray, np.ndarray]:
    """Years (T,) and the weights (T,) with which values enter the mean of their year.

    Where there are bounds, a value belongs to the year in which the middle of its period lies, and weighs the days of
    its period. Without bounds the stamp lies in its period; twelve values a year weigh the days of their months, evenly
    spaced ones weigh alike.

    Args:
        time: the decoded coordinate, an xarray DataArray.
        bounds: its decoded bounds (T, 2); None if there are none.
        lost: the name of bounds that the file mentions but does not hold; "" otherwise.

    Raises:
        DataError: times in no unit that is understood, missing, doubled, out of their bounds, of overlapping periods,
            on the edge of a year where bounds are lost, or unevenly spaced without bounds.
    """
    stamps = time.values
    if stamps.dtype != object:
        return _whole_years(stamps, bounds, str(time.attrs.get("units", "")), where)
    if any(getattr(stamp, "year", None) is None for stamp in stamps):
        raise DataError(f"{where}: a time is missing; expected one for every value")
    twice = len(stamps) - len(set(stamps.tolist()))
    if twice:
        raise DataError(f"{where}: expected every time once, {twice} come again; keep one value of each")
    if bounds is not None:
        return _periods(stamps, bounds.values, where)
    edge = next((t for t in stamps if (t.month, t.day, t.hour, t.minute, t.second) == (1, 1, 0, 0, 0)), None)
    if lost and edge is not None:
        raise DataError(f"{where}: {edge} begins one year and ends another, and its bounds {lost} are not in the file")
    year_T = np.array([stamp.year for stamp in stamps])
    return year_T, _days(stamps, year_T, where)


def unreadable(attributes: Mapping[str, object], where: str) -> DataError:
    """The error for times that cannot be decoded."""
    unit, calendar = attributes.get("units"), attributes.get("calendar", "standard")
    return DataError(f"{where}: cannot read times in '{unit}' of the calendar '{calendar}'; {_GOOD}")


def check_every_year(year_T: np.ndarray, time: "xarray.DataArray", where: str, *, gaps: bool) -> None:
    """Refuse years that are missing or have fewer values than others.

    Raises:
        DataError: a year between the first and the last is missing (unless `gaps`), or incomplete.
    """
    years, counts = np.unique(year_T, return_counts=True)
    missing = sorted(set(range(years[0], years[-1] + 1)) - set(years.tolist()))
    if missing and not gaps:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise DataError(f"{where}: expected every year from {years[0]} to {years[-1]}, {missing[0]}{more} is missing")
    full = counts / (_lengths(years, time.values[0]) if time.values.dtype == object else 1)
    if counts.min() == counts.max() or np.ptp(full) < 1e-9:  # so many a year, or so many a day
        return
    odd = np.abs(full - np.median(full)).argmax()
    raise DataError(f"{where}: expected as many values in every year, {years[odd]} has {counts[odd]}")


def _whole_years(
    stamps: np.ndarray, bounds: "xarray.DataArray | None", unit: str, where: str
) -> tuple[np.ndarray, np.ndarray]:
    said = f"in '{unit}'" if unit else "without a unit"
    if stamps.dtype.kind not in "iuf" or unit.strip().casefold() not in _YEARS:
        raise DataError(f"{where}: time is {stamps.dtype} {said}; {_GOOD}")
    if bounds is not None:
        stamps = np.floor(np.asarray(bounds.values, np.float64).mean(axis=1))
    odd = stamps[~((stamps == np.round(stamps)) & (stamps >= -_LAST_YEAR) & (stamps <= _LAST_YEAR))]
    if len(odd):
        raise DataError(f"{where}: a time is {odd[0]:.12g} {said}; {_GOOD}")
    years, counts = np.unique(stamps.astype(int), return_counts=True)
    if counts.max() > 1:
        raise DataError(f"{where}: expected every year once, {years[counts > 1][0]} comes {counts.max()} times")
    return stamps.astype(int), np.ones(len(stamps))


def _periods(stamps: np.ndarray, bounds_T2: np.ndarray, where: str) -> tuple[np.ndarray, np.ndarray]:
    if bounds_T2.shape != (len(stamps), 2) or bounds_T2.dtype != object:
        raise DataError(
            f"{where}: expected bounds of ({len(stamps)}, 2) times, got {bounds_T2.dtype} {bounds_T2.shape}"
        )
    periods = [(min(pair), max(pair)) for pair in bounds_T2.tolist()]
    for stamp, (begin, end) in zip(stamps.tolist(), periods, strict=True):
        if not (begin - _HOUR <= stamp <= end + _HOUR and begin < end and (end - begin) / _DAY <= _LONGEST_DAYS):
            raise DataError(
                f"{where}: expected {stamp} in a period of a year at most, its bounds are {begin} and {end}"
            )
    in_order = sorted(periods)
    for (_, end), (begin, _) in pairwise(in_order):
        if end > begin + _HOUR:
            raise DataError(f"{where}: expected every time once, the periods that end {end} and begin {begin} overlap")
    year_T = np.array([(begin + (end - begin) / 2).year for begin, end in periods])
    return year_T, np.array([(end - begin) / _DAY for begin, end in periods])


def _days(stamps: np.ndarray, year_T: np.ndarray, where: str) -> np.ndarray:
    """Days that each value stands for, as far as its time shows; only ratios within a year matter."""
    days_T = np.ones(len(stamps))
    for year in np.unique(year_T):
        (place,) = np.nonzero(year_T == year)
        mine = sorted(stamps[place].tolist())
        if len({stamp.month for stamp in mine}) == len(mine) == _MONTHS:
            days_T[place] = [stamp.daysinmonth for stamp in stamps[place]]
            continue
        steps = [(later - earlier) / _DAY for earlier, later in pairwise(mine)]
        if steps and max(steps) - min(steps) > 0.5:
            raise DataError(
                f"{where}: the times of {year} are {min(steps):.3g} to {max(steps):.3g} days apart; expected months, "
                "even steps, or bounds that say how many days each value stands for"
            )
    return days_T


def _lengths(years: np.ndarray, stamp: "cftime.datetime") -> np.ndarray:
    """Days of each year in the calendar of the stamp."""
    first = [stamp.replace(year=int(year), month=1, day=1, hour=0) for year in years]
    return np.array([(day.replace(year=day.year + 1) - day) / _DAY for day in first])
