"""Surface temperature over North America under two emission scenarios, predicted from past decades.

The package `iris-sample-data` has yearly means of two simulations of the Met Office Unified Model, 1860-2099: A1B,
where emissions grow, and E1, where they fall. A sample is a year t of a scenario and a lead time. Its input channels
are the mean fields of the five years that end at t, of the five before and of the ten before those, the lead time, and
the mean CO2 forcing of the five years that end at t and of those that end at t + lead. Its target is the mean field of
the five years that end at t + lead, minus that of the five that end at t. With `beside=pattern` the three input fields
are departures from pattern scaling at their own forcing, and the target is the later field's departure. Shape letters
as in `odfa.data.fields`, `Y` years of a scenario.
"""

import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from odfa.data import DataShape, FieldSplit, FieldSplits
from odfa.data.fields import area_weights
from odfa.data.netcdf import YearlyField, read_yearly
from odfa.errors import DataError, MissingExtra
from odfa.tasks.base import LimitedData
from odfa.tasks.climate.forcings import PATHWAYS, forcing

LEADS = (5, 10, 15, 20, 25, 30)
"""Lead times in years."""
TEST_DECADES, VALIDATION_DECADES = (1900, 1960, 2020, 2070), (1930, 1990, 2045)
"""First years of the decades that are held out, in both scenarios."""
LAST_DECADES = (2070, 2080, 2090)
"""Validation decades of `chosen_on=last`: where emissions grow, their forcing is above that of all training years."""
GUARD = 4
"""Number of years on each side of a held-out decade in which no training target may lie."""
FIRST_FUTURE = 2005
"""First target year of a held-out scenario: before it both scenarios are the same history."""
_KELVIN = (150.0, 350.0)
"""Range of plausible air temperatures near the ground; values in Celsius that are labelled kelvin lie outside."""
_WINDOWS = ((0, 5), (5, 10), (10, 20))
"""The three input means: from how many years back, and up to how many, counted from t."""
_CLIMATOLOGY = 40
"""First years of the trained scenarios, whose mean field is subtracted from all input fields."""
_EVEN = 12
"""Grids are cut to a multiple of this, so that patches of 2, 3, 4, 6 or 12 tile them."""


@dataclass(frozen=True)
class _Sample:
    """A year of a scenario from which the prediction is made, and its lead time in years."""

    scenario: str
    year: int
    lead: int

    @property
    def target(self) -> range:
        """The five years whose mean is predicted."""
        return range(self.year + self.lead - 4, self.year + self.lead + 1)

    @property
    def last(self) -> range:
        """The five years whose mean is subtracted from the target."""
        return range(self.year - 4, self.year + 1)


def load_climate(
    path: Path | str | None = None,
    *,
    held_out: str = "decades",
    chosen_on: str = "decades",
    beside: str | None = None,
    forced: bool = True,
) -> FieldSplits:
    """Samples of both scenarios; `held_out` says what only the test part has.

    decades: four decades, in both scenarios. A1B or E1: the future of that scenario, of which nothing is trained on;
    decades of the other scenario are the validation part. beside=pattern: the departure from pattern scaling, fitted on
    the training part, takes the place of fields and targets. chosen_on=last: `LAST_DECADES` are the validation part.
    forced=False: the two forcings are no inputs.

    Raises:
        DataError: files are missing or hold something else. MissingExtra: no path is given and the package is not
            installed; or xarray or netCDF4 is not installed.
    """
    fields = _read(path)
    samples = _parts(held_out, fields, VALIDATION_DECADES if chosen_on == "decades" else LAST_DECADES)
    climatology = np.mean([fields[name].value_YHW[:_CLIMATOLOGY] for name in _trained(held_out)], axis=(0, 1))
    whole = {part: _arrays(listed, fields, climatology) for part, listed in samples.items()}
    added: dict[str, np.ndarray | None] = dict.fromkeys(whole)
    built = whole
    if beside is not None:
        pattern_2G = _pattern(*whole["train"])
        built, added = {}, {}
        for part, arrays in whole.items():
            built[part], added[part] = _departures(samples[part], fields, arrays, pattern_2G)
    if not forced:
        built = {part: (x_NCG[:, :4], y_NG) for part, (x_NCG, y_NG) in built.items()}
    # one scale for the three fields: scaled one by one, their differences, which carry the trend, would be distorted
    x_NCG, y_NG = built["train"]
    field_std, unit = x_NCG[:, :3].std(), float(y_NG.std())
    others = [(x_NCG[:, c].mean(), x_NCG[:, c].std()) for c in range(3, x_NCG.shape[1])]
    height, width = climatology.shape
    weight_G = area_weights(fields["A1B"].latitude_H, width)
    parts = {}
    for part, (part_x_NCG, part_y_NG) in built.items():
        scaled = part_x_NCG / field_std
        for channel, (mean, std) in enumerate(others, start=3):
            scaled[:, channel] = (part_x_NCG[:, channel] - mean) / std
        parts[part] = FieldSplit(
            x_ND=torch.tensor(scaled.reshape(len(scaled), -1), dtype=torch.float32),
            y_N=torch.tensor(part_y_NG / unit, dtype=torch.float32),
            weight_G=weight_G,
            unit=unit,
            names=tuple(f"{s.scenario}, {s.year} to {s.target[0]}-{s.target[-1]}" for s in samples[part]),
            beside_NG=None if (more_NG := added[part]) is None else torch.tensor(more_NG / unit, dtype=torch.float32),
        )
    return FieldSplits(
        train=parts["train"],
        validation=parts["validation"],
        test=parts["test"],
        num_classes=0,
        image=(x_NCG.shape[1], height, width),
        field=(1, height, width),
        latitude_H=fields["A1B"].latitude_H,
        longitude_W=fields["A1B"].longitude_W,
        references=_references(whole["train"], whole["test"], samples["test"], parts["test"]),
        source=str(_folder(path)),
    ).check()


@lru_cache(maxsize=4)
def peek_climate(
    path: Path | str | None = None, *, held_out: str = "decades", chosen_on: str = "decades", forced: bool = True
) -> DataShape:
    """Sizes of the parts; the files are small and are read once.

    Raises:
        DataError, MissingExtra: what `load_climate` raises.
    """
    return load_climate(path, held_out=held_out, chosen_on=chosen_on, forced=forced).shape


def _folder(path: Path | str | None) -> Path:
    if path is not None:
        return Path(path).expanduser()
    spec = importlib.util.find_spec("iris_sample_data")
    if spec is None or spec.origin is None:
        raise MissingExtra(
            "climate runs need iris-sample-data, which is missing; pip install iris-sample-data, or say "
            "data.path=FOLDER (with A1B_north_america.nc and E1_north_america.nc)"
        )
    return Path(spec.origin).with_name("sample_data")


def _read(path: Path | str | None) -> dict[str, YearlyField]:
    """Both scenarios on the grid of the first, cut to a multiple of `_EVEN`."""
    folder = _folder(path)
    files = {name: f"{name}_north_america.nc" for name in PATHWAYS}
    fields = {
        name: read_yearly(folder / file, "air_temperature", between=_KELVIN, kelvin=True)
        for name, file in files.items()
    }
    # a copy of the files may list latitudes in another order, or count longitudes from another meridian
    (first, ours), *others = fields.items()
    if ours.value_YHW.ndim != 3 or min(ours.value_YHW.shape[1:]) < _EVEN:
        size = " x ".join(map(str, ours.value_YHW.shape[1:])) or "none"
        raise DataError(f"{folder}: expected a grid of {_EVEN} x {_EVEN} at least, got {size}")
    for name, theirs in others:
        fields[name] = theirs.on_grid_of(ours, f"{folder}: {files[name]} and {files[first]}")
        if not np.array_equal(ours.year_Y, theirs.year_Y):
            said = (f"{len(f.year_Y)} years from {f.year_Y[0]} on" for f in (ours, theirs))
            raise DataError(f"{folder}: expected the same years in {first} and {name}, got {' and '.join(said)}")
    return {name: field.cropped(_EVEN) for name, field in fields.items()}


def _trained(held_out: str) -> list[str]:
    return [name for name in PATHWAYS if name != held_out]


def _samples(scenario: str, field: YearlyField) -> Iterator[_Sample]:
    first, last = int(field.year_Y[0]), int(field.year_Y[-1])
    for lead in LEADS:
        for year in range(first + _WINDOWS[-1][1] - 1, last - lead + 1):
            yield _Sample(scenario, year, lead)


def _parts(
    held_out: str, fields: dict[str, YearlyField], chosen: Sequence[int] = VALIDATION_DECADES
) -> dict[str, list[_Sample]]:
    """The samples of each part.

    Test and validation: the five target years lie in one of the part's decades, or in the future of the held-out
    scenario. Training: no target year lies in a held-out decade or within `GUARD` years of one, and none of the five
    years that the target is the change from lies in a held-out decade. All other samples are in no part.
    """
    parts: dict[str, list[_Sample]] = {"train": [], "validation": [], "test": []}
    test = TEST_DECADES if held_out == "decades" else ()
    for scenario, field in fields.items():
        for sample in _samples(scenario, field):
            if scenario == held_out:
                if sample.target[0] >= FIRST_FUTURE:
                    parts["test"].append(sample)
            elif _inside(sample.target, test):
                parts["test"].append(sample)
            elif _inside(sample.target, chosen):
                parts["validation"].append(sample)
            elif not _touches(sample.target, (*test, *chosen), GUARD) and not _touches(
                sample.last, (*test, *chosen), 0
            ):
                parts["train"].append(sample)
    return parts


def _inside(years: range, decades: Sequence[int]) -> bool:
    return any(first <= years[0] and years[-1] < first + 10 for first in decades)


def _touches(years: range, decades: Sequence[int], guard: int) -> bool:
    return any(years[-1] >= first - guard and years[0] < first + 10 + guard for first in decades)


def _arrays(
    samples: list[_Sample], fields: dict[str, YearlyField], climatology: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Inputs (N, 6, G): three anomalies in kelvin, lead in years, two forcings in W/m². Targets (N, G) in kelvin."""
    if not samples:
        raise DataError("no sample is left in one part; expected files with yearly fields from 1860 to 2099")
    x_NCG = np.empty((len(samples), 6, climatology.size))
    y_NG = np.empty((len(samples), climatology.size))
    forced = {name: forcing(name, field.year_Y) for name, field in fields.items()}
    for n, sample in enumerate(samples):
        field = fields[sample.scenario]
        # `now` is the index after the last known year, so that slices end with year t
        now = sample.year - int(field.year_Y[0]) + 1
        ahead = slice(now + sample.lead - 5, now + sample.lead)
        means = [(field.value_YHW[now - to : now - since].mean(0) - climatology).reshape(-1) for since, to in _WINDOWS]
        x_NCG[n, :3] = means
        f_Y = forced[sample.scenario]
        x_NCG[n, 3:] = np.array([sample.lead, f_Y[now - 5 : now].mean(), f_Y[ahead].mean()])[:, None]
        y_NG[n] = (field.value_YHW[ahead].mean(0) - climatology).reshape(-1) - means[0]
    return x_NCG, y_NG


def _pattern(x_NCG: np.ndarray, y_NG: np.ndarray) -> np.ndarray:
    """a and b of each place, (2, G): a + b F is the least-squares fit of the later field (Santer et al. 1990)."""
    forcing_N, target_NG = x_NCG[:, 5, 0], y_NG + x_NCG[:, 0]
    design_N2 = np.stack([np.ones_like(forcing_N), forcing_N], axis=1)
    pattern_2G: np.ndarray = np.linalg.lstsq(design_N2, target_NG, rcond=None)[0]
    return pattern_2G


def _departures(
    samples: list[_Sample],
    fields: dict[str, YearlyField],
    arrays: tuple[np.ndarray, np.ndarray],
    pattern_2G: np.ndarray,
) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """Inputs and targets as departures from pattern scaling, and the change that it predicts (N, G), in kelvin."""
    x_NCG, y_NG = arrays
    forced = {name: forcing(name, field.year_Y) for name, field in fields.items()}
    departed_NCG = x_NCG.copy()
    for n, sample in enumerate(samples):
        now = sample.year - int(fields[sample.scenario].year_Y[0]) + 1
        for channel, (since, to) in enumerate(_WINDOWS):
            mean = forced[sample.scenario][now - to : now - since].mean()
            departed_NCG[n, channel] -= pattern_2G[0] + pattern_2G[1] * mean
    beside_NG = _scaled(pattern_2G, x_NCG)
    return (departed_NCG, y_NG - beside_NG), beside_NG


def _scaled(pattern_2G: np.ndarray, x_NCG: np.ndarray) -> np.ndarray:
    """The change that pattern scaling predicts: a + b F(target) minus the last five years."""
    change_NG: np.ndarray = pattern_2G[0] + pattern_2G[1] * x_NCG[:, 5] - x_NCG[:, 0]
    return change_NG


def _references(
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    samples: list[_Sample],
    part: FieldSplit,
) -> dict[str, float]:
    """Test errors in kelvin of predictions that need no network.

    persistence: the last five years do not change. trend: the straight line through the three input means continues;
    it is fitted by least squares, each mean weighted by its number of years. pattern scaling: a + b F(target) minus the
    last five years, with a and b of each place fitted to the training part (Santer et al. 1990).
    """
    seen_NCG = test[0]
    middle_3 = np.array([-(since + to - 1) / 2 for since, to in _WINDOWS])
    years_3 = np.array([float(to - since) for since, to in _WINDOWS])
    offset_3 = middle_3 - np.average(middle_3, weights=years_3)
    # weighted least squares in closed form: the slope is a fixed linear combination of the three means
    slope_3 = years_3 * offset_3 / (years_3 * offset_3**2).sum()
    slope_NG = np.einsum("c,ncg->ng", slope_3, seen_NCG[:, :3])
    lead_N1 = np.array([[float(sample.lead)] for sample in samples])
    predicted = {
        "persistence": np.zeros_like(test[1]),
        "trend": slope_NG * lead_N1,
        "pattern scaling": _scaled(_pattern(*train), seen_NCG),
    }
    # targets are departures from pattern scaling, or the changes themselves
    beside_NG = 0.0 if part.beside_NG is None else predicted["pattern scaling"]
    return {name: part.error(torch.tensor((y_NG - beside_NG) / part.unit)) for name, y_NG in predicted.items()}


@dataclass(frozen=True, kw_only=True)
class ClimateData(LimitedData, kind="climate"):
    """Surface temperature over North America in two climate simulations."""

    holds: ClassVar[str] = "fields"

    path: Path | None = None
    """Folder with A1B_north_america.nc and E1_north_america.nc; none: the package iris-sample-data."""
    held_out: Literal["decades", "A1B", "E1"] = "decades"
    """What only the test part has: four decades of both scenarios, or the future of one scenario."""
    chosen_on: Literal["decades", "last"] = "decades"
    """Where the validation part lies: decades between those of training, or the decades from 2070 on, later than all
    years of training in that scenario."""
    forced: bool = True
    """Whether the forcing at the start and at the target are inputs of the network; pattern scaling reads it anyway."""
    beside: Literal["pattern"] | None = None
    """What stands beside the network and is added to its output: pattern: pattern scaling, fitted on the training part;
    input fields are then departures from it, too. none: the network predicts the whole change."""

    def load(self) -> FieldSplits:
        """Read the files and cut them into the three parts."""
        return load_climate(self.path, beside=self.beside, **self._chosen).limited(self.limit)

    def peek(self) -> DataShape:
        """Sizes of the parts; the files are read."""
        return self.cut(peek_climate(self.path, **self._chosen))

    @property
    def _chosen(self) -> dict[str, Any]:
        return {"held_out": self.held_out, "chosen_on": self.chosen_on, "forced": self.forced}
