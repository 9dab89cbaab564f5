"""ClimateBench files at a path: emissions of a year to that year's climate (Watson-Parris et al., JAMES 14, 2022).

`inputs_NAME.nc` hold CO2 and CH4 of the whole globe and SO2 and BC by place, `outputs_NAME.nc` tas, pr and others by
year and place, members averaged. Scenarios other than the test one are for training; of these, some decades are for
validation. Shape letters as in `fields.py`.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from odfa.data.fields import FieldSplit, FieldSplits, area_weights
from odfa.data.netcdf import read_yearly
from odfa.data.splits import DataShape
from odfa.errors import DataError

GASES, AEROSOLS = ("CO2", "CH4"), ("SO2", "BC")
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


def load_climatebench(path: str | None, *, variable: str = "tas", test: str = "ssp245") -> FieldSplits:
    """Years of all scenarios in the folder; the scenario `test` is the test part.

    Raises:
        DataError: no folder given, no files, no such scenario or variable, grids or years that do not fit each other.
        MissingExtra: xarray or netCDF4 is not installed.
    """
    folder, names = _find(path, test)
    scenarios = {name: _read(folder, name, variable) for name in names}
    grid = read_yearly(folder / f"outputs_{test}.nc", variable)
    latitude_H, longitude_W = (axis[: len(axis) // _EVEN * _EVEN] for axis in (grid.latitude_H, grid.longitude_W))
    size = (len(latitude_H), len(longitude_W))
    for name, scenario in scenarios.items():
        if scenario.y_YG.shape[1] != size[0] * size[1]:
            raise DataError(f"{folder}: {name} has another grid than {test}; expected one grid for all files")
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
    unit, weight_G = float(y_NG.std()) or 1.0, area_weights(latitude_H, size[1])
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
        latitude_H=latitude_H,
        longitude_W=longitude_W,
        references=_references(raw["train"], raw["test"][0], parts["test"]),
        source=str(folder),
    ).check()


@lru_cache(maxsize=4)
def peek_climatebench(path: str | None, *, variable: str = "tas", test: str = "ssp245") -> DataShape:
    """Sizes; the files are read.

    Raises:
        DataError, MissingExtra: what `load_climatebench` raises.
    """
    return load_climatebench(path, variable=variable, test=test).shape


def _find(path: str | None, test: str) -> tuple[Path, list[str]]:
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


def _read(folder: Path, name: str, variable: str) -> _Scenario:
    out = read_yearly(folder / f"outputs_{name}.nc", variable)
    if out.value_YHW.ndim != 3 or min(out.value_YHW.shape[1:]) < _EVEN:
        raise DataError(f"{folder}: expected {variable} on a grid of {_EVEN} x {_EVEN} at least in outputs_{name}.nc")
    height, width = (size // _EVEN * _EVEN for size in out.value_YHW.shape[1:])
    channels = []
    for gas in (*GASES, *AEROSOLS):
        given = read_yearly(folder / f"inputs_{name}.nc", gas)
        place = np.searchsorted(given.year_Y, out.year_Y)
        if (place >= len(given.year_Y)).any() or not np.array_equal(given.year_Y[place], out.year_Y):
            raise DataError(
                f"{folder}: inputs_{name}.nc has {gas} from {given.year_Y[0]} to {given.year_Y[-1]}, expected all of "
                f"{out.year_Y[0]} to {out.year_Y[-1]}"
            )
        value = given.value_YHW[place]
        if gas in GASES:
            value = np.broadcast_to(value.reshape(len(place), -1).mean(axis=1)[:, None, None], out.value_YHW.shape)
        elif value.shape != out.value_YHW.shape:
            raise DataError(f"{folder}: {gas} of inputs_{name}.nc has another grid than outputs_{name}.nc")
        channels.append(value[:, :height, :width].reshape(len(place), -1))
    y_YG = out.value_YHW[:, :height, :width].reshape(len(out.year_Y), -1)
    return _Scenario(x_YCG=np.stack(channels, axis=1), y_YG=y_YG, year_Y=out.year_Y)


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
