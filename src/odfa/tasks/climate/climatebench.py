"""ClimateBench files at a path: emissions of a year to that year's climate (Watson-Parris et al., JAMES 14, 2022).

`inputs_NAME.nc` hold CO2 and CH4 of the whole globe and SO2 and BC by place, `outputs_NAME.nc` tas, pr and others by
year and place, members averaged. Files are joined from runs of different length, whose other years are all missing; a
forcing that a scenario does not have is a series of zeros without places. Scenarios other than the test one are for
training; of these, some decades are for validation. Shape letters as in `odfa.data.fields`.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from odfa.data import DataShape, FieldSplit, FieldSplits
from odfa.data.fields import area_weights
from odfa.data.netcdf import YearlyField, read_yearly, same_unit
from odfa.errors import DataError
from odfa.tasks.base import LimitedData

GASES, AEROSOLS = ("CO2", "CH4"), ("SO2", "BC")
RANGES = {
    "CO2": (-100.0, 1e5),
    "CH4": (-1.0, 1e4),
    "SO2": (-1e-3, 1e3),
    "BC": (-1e-3, 1e3),
    "tas": (-100.0, 350.0),
    "diurnal_temperature_range": (-100.0, 100.0),
    "pr": (-200.0, 200.0),
    "pr90": (-500.0, 500.0),
}
"""Values that make sense in the units that the files are seen in: gigatonnes or megatonnes, kg a second and m² or
millimetres a day, kelvin, each as it is or as a change. A fill value does not."""
_ANYTHING = (-1e15, 1e15)
"""Of other variables only fill values are known to be wrong."""
_ABSOLUTE_K = 100.0
"""Temperatures above this are no changes."""
GUARD = 4
"""Years beside a validation decade that are in no part."""
_TENS, _HELD = 5, 2
"""Of five decades the third is for validation."""
_EVEN = 12


@dataclass(frozen=True, kw_only=True)
class _Scenario:
    x_YCG: np.ndarray
    y_YG: np.ndarray
    year_Y: np.ndarray


def load_climatebench(path: Path | str | None, *, variable: str = "tas", test: str = "ssp245") -> FieldSplits:
    """Years of all scenarios in the folder; the scenario `test` is the test part.

    Raises:
        DataError: no folder given, no files, no such scenario or variable, grids or years that do not fit each other.
        MissingExtra: xarray or netCDF4 is not installed.
    """
    folder, names = _find(path, test)
    outputs = _outputs(folder, names, variable, test)
    scenarios = _scenarios(folder, outputs, outputs[test])
    grid = outputs[test].cropped(_EVEN)
    size = grid.value_YHW.shape[1:]
    held = {name: _held(scenario.year_Y) for name, scenario in scenarios.items()}
    chosen = {
        "train": {name: held[name] == 0 for name in names if name != test},
        "validation": {name: held[name] == 1 for name in names if name != test},
        "test": {test: np.ones(len(scenarios[test].year_Y), bool)},
    }
    raw = {part: _gather(scenarios, of) for part, of in chosen.items()}
    if min(len(y_NG) for _, y_NG, _ in raw.values()) == 0:
        raise DataError(f"{folder}: no year is left in one part; expected fifty years or more besides {test}")
    x_NCG, y_NG, _ = raw["train"]
    mean_C, std_C = x_NCG.mean(axis=(0, 2)), x_NCG.std(axis=(0, 2))
    std_C[std_C == 0] = 1.0
    unit, weight_G = float(y_NG.std()) or 1.0, area_weights(grid.latitude_H, size[1])
    parts = {
        part: FieldSplit(
            x_ND=torch.tensor(((x - mean_C[:, None]) / std_C[:, None]).reshape(len(x), -1), dtype=torch.float32),
            y_N=torch.tensor(y / unit, dtype=torch.float32),
            weight_G=weight_G,
            unit=unit,
            names=labels,
        )
        for part, (x, y, labels) in raw.items()
    }
    return FieldSplits(
        train=parts["train"],
        validation=parts["validation"],
        test=parts["test"],
        num_classes=0,
        image=(x_NCG.shape[1], *size),
        field=(1, *size),
        latitude_H=grid.latitude_H,
        longitude_W=grid.longitude_W,
        references=_references(raw["train"], raw["test"][0], parts["test"]),
        source=str(folder),
    ).check()


@lru_cache(maxsize=4)
def peek_climatebench(path: Path | str | None, *, variable: str = "tas", test: str = "ssp245") -> DataShape:
    """Sizes; the files are read.

    Raises:
        DataError, MissingExtra: what `load_climatebench` raises.
    """
    return load_climatebench(path, variable=variable, test=test).shape


def _find(path: Path | str | None, test: str) -> tuple[Path, list[str]]:
    if path is None:
        raise DataError(
            "ClimateBench files come with no package; fetch them (Watson-Parris et al. 2022) and say "
            "data.path=FOLDER (with inputs_NAME.nc and outputs_NAME.nc)"
        )
    folder = Path(path).expanduser()
    names = sorted(file.stem.removeprefix("inputs_") for file in folder.glob("inputs_*.nc"))
    if test not in names or len(names) < 2:
        found = ", ".join(names) or "none"
        raise DataError(f"{folder}: expected inputs_{test}.nc and at least one more scenario, found {found}")
    return folder, names


def _outputs(folder: Path, names: list[str], variable: str, test: str) -> dict[str, YearlyField]:
    """The variable of every scenario, on the test scenario's grid."""
    fields = {}
    between = RANGES.get(variable, _ANYTHING)
    for name in names:
        fields[name] = read_yearly(folder / f"outputs_{name}.nc", variable, between=between, gaps=True)
        if fields[name].value_YHW.ndim != 3 or min(fields[name].value_YHW.shape[1:]) < _EVEN:
            raise DataError(
                f"{folder}: expected {variable} on a grid of {_EVEN} x {_EVEN} at least in outputs_{name}.nc"
            )
    same_unit({f"outputs_{name}.nc": field for name, field in fields.items()}, f"{folder}: {variable}")
    absolute = [name for name in names if variable == "tas" and fields[name].value_YHW.mean() > _ABSOLUTE_K]
    if absolute and len(absolute) < len(names):
        change = next(name for name in names if name not in absolute)
        raise DataError(
            f"{folder}: {variable} of {absolute[0]} is a temperature, that of {change} a change; convert one"
        )
    return {
        name: field.on_grid_of(fields[test], f"{folder}: outputs_{name}.nc and outputs_{test}.nc")
        for name, field in fields.items()
    }


def _scenarios(folder: Path, outputs: dict[str, YearlyField], grid: YearlyField) -> dict[str, _Scenario]:
    """Inputs and outputs of the years that the outputs have."""
    channels: dict[str, list[np.ndarray]] = {name: [] for name in outputs}
    for gas in (*GASES, *AEROSOLS):
        given = {
            f"inputs_{name}.nc": read_yearly(folder / f"inputs_{name}.nc", gas, between=RANGES[gas], gaps=True)
            for name in outputs
        }
        same_unit({file: field for file, field in given.items() if field.value_YHW.any()}, f"{folder}: {gas}")
        for (name, out), (file, field) in zip(outputs.items(), given.items(), strict=True):
            channels[name].append(_channel(gas, field, out, grid, f"{folder}: {gas} of {file}"))
    return {
        name: _Scenario(
            x_YCG=np.stack(channels[name], axis=1),
            y_YG=out.cropped(_EVEN).value_YHW.reshape(len(out.year_Y), -1),
            year_Y=out.year_Y,
        )
        for name, out in outputs.items()
    }


def _channel(gas: str, given: YearlyField, out: YearlyField, grid: YearlyField, said: str) -> np.ndarray:
    """One forcing (Y, G) in the years of the outputs: a gas is the same everywhere, an aerosol is where it is."""
    places = grid.cropped(_EVEN).value_YHW[0].size
    if given.value_YHW.ndim == 1 and not given.value_YHW.any():
        return np.zeros((len(out.year_Y), places))  # none of it, in whatever years the zeros stand
    missing = sorted(set(out.year_Y.tolist()) - set(given.year_Y.tolist()))
    if missing:
        years = f"{given.year_Y[0]} to {given.year_Y[-1]}"
        raise DataError(f"{said} goes from {years}, expected all years of the outputs, {missing[0]} is missing")
    given = replace(given, value_YHW=given.value_YHW[np.searchsorted(given.year_Y, out.year_Y)])
    if gas in GASES:
        value_Y = given.value_YHW
        if value_Y.ndim == 3:
            value_Y = np.average(value_Y.mean(axis=2), axis=1, weights=np.cos(np.deg2rad(given.latitude_H)))
        return np.repeat(value_Y[:, None], places, axis=1)
    if given.value_YHW.ndim != 3:
        raise DataError(f"{said} is one value a year and not zero; expected a map of it")
    on_grid = given.on_grid_of(grid, f"{said} has another grid than the outputs")
    return on_grid.cropped(_EVEN).value_YHW.reshape(len(out.year_Y), -1)


def _held(year_Y: np.ndarray) -> np.ndarray:
    """0: training, 1: validation, 2: in no part, because a validation decade is near."""
    inside_Y = year_Y // 10 % _TENS == _HELD
    near_Y = np.any([(year_Y + k) // 10 % _TENS == _HELD for k in range(-GUARD, GUARD + 1)], axis=0)
    return np.where(inside_Y, 1, np.where(near_Y, 2, 0))


def _gather(
    scenarios: dict[str, _Scenario], chosen: dict[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    inputs, targets = (
        [getattr(scenarios[name], key)[keep] for name, keep in chosen.items()] for key in ("x_YCG", "y_YG")
    )
    labels = tuple(f"{name}, {year}" for name, keep in chosen.items() for year in scenarios[name].year_Y[keep])
    return np.concatenate(inputs), np.concatenate(targets), labels


def _references(
    train: tuple[np.ndarray, np.ndarray, tuple[str, ...]], test_x_NCG: np.ndarray, part: FieldSplit
) -> dict[str, float]:
    """climatology: the mean of the training years. pattern scaling: a + b CO2 at each place, by least squares."""
    x_NCG, y_NG, _ = train
    design_N2 = np.stack([np.ones(len(x_NCG)), x_NCG[:, 0, 0]], axis=1)
    pattern_2G = np.linalg.lstsq(design_N2, y_NG, rcond=None)[0]
    predicted = {
        "climatology": np.broadcast_to(y_NG.mean(axis=0), (len(test_x_NCG), y_NG.shape[1])),
        "pattern scaling": pattern_2G[0] + pattern_2G[1] * test_x_NCG[:, 0],
    }
    return {name: part.error(torch.tensor(value / part.unit)) for name, value in predicted.items()}


@dataclass(frozen=True, kw_only=True)
class ClimateBenchData(LimitedData, kind="climatebench"):
    """Which ClimateBench files, and what is learned from them."""

    holds: ClassVar[str] = "fields"

    path: Path | None = None
    """Folder with inputs_NAME.nc and outputs_NAME.nc; there is no other source."""
    variable: str = "tas"
    """What is learned: tas, pr, diurnal_temperature_range, pr90 or another variable of the outputs."""
    scenario: str = "ssp245"
    """Scenario of the test part."""

    def load(self) -> FieldSplits:
        """The three parts."""
        return load_climatebench(self.path, variable=self.variable, test=self.scenario).limited(self.limit)

    def peek(self) -> DataShape:
        """Sizes of the three parts; the files are read."""
        return self.cut(peek_climatebench(self.path, variable=self.variable, test=self.scenario))
