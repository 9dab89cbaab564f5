"""NetCDF files of the forms that loaders expect, made small from the real fields of the package iris-sample-data."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import iris_sample_data
import xarray

SCENARIOS = ("A1B", "E1")


def real(scenario: str) -> Any:
    """The file as it is shipped."""
    coder = xarray.coders.CFDatetimeCoder(use_cftime=True)
    return xarray.load_dataset(
        Path(iris_sample_data.path) / f"{scenario}_north_america.nc", engine="netcdf4", decode_times=coder
    )


def write_climate(folder: Path, change: Callable[[Any], Any] = lambda whole: whole) -> Path:
    """Both scenarios on a thinned grid; `change` is done to A1B."""
    for scenario in SCENARIOS:
        small = real(scenario).isel(latitude=slice(0, 36, 3), longitude=slice(0, 48, 4))
        small = small[["air_temperature"]].drop_vars(["forecast_period", "forecast_reference_time"], errors="ignore")
        small = change(small) if scenario == "A1B" else small
        small.to_netcdf(folder / f"{scenario}_north_america.nc", engine="netcdf4")
    return folder
