"""NetCDF files of the forms that loaders expect, made small from the real fields of the package iris-sample-data."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import iris_sample_data
import numpy as np
import xarray

from odfa.tasks.climate.forcings import forcing

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


def write_climatebench(folder: Path, names: tuple[str, ...] = ("historical", "ssp126", "ssp245")) -> Path:
    """Files of the form of ClimateBench: the real temperatures as tas, forcings from the table as emissions."""
    for number, name in enumerate(names):
        scenario = SCENARIOS[number % 2]
        years = np.arange(1860, 2005) if name == "historical" else np.arange(2015, 2099)
        small = real(scenario).air_temperature.isel(latitude=slice(0, 36, 3), longitude=slice(0, 48, 4))
        kelvin = small.values[years - 1860] - small.values[:40].mean(axis=0)
        grid = {"lat": small.latitude.values.astype(float), "lon": small.longitude.values.astype(float)}
        carbon = forcing(scenario, years)
        shape = (len(years), 12, 12)
        inputs = {
            "CO2": ("time", 1000 * carbon),
            "CH4": ("time", 0.3 + 0.01 * carbon),
            "SO2": (("time", "latitude", "longitude"), np.broadcast_to(1 + np.sin(years / 30)[:, None, None], shape)),
            "BC": (("time", "latitude", "longitude"), np.broadcast_to(2 + np.cos(grid["lat"])[:, None], shape)),
        }
        places = {"latitude": grid["lat"], "longitude": grid["lon"]}
        xarray.Dataset(inputs, {"time": years, **places}).to_netcdf(folder / f"inputs_{name}.nc", engine="netcdf4")
        members = np.stack([kelvin - 0.25, kelvin + 0.25])
        axes = ("member", "time", "lat", "lon")
        outputs = {"tas": (axes, members), "pr": (axes, members * 2)}
        xarray.Dataset(outputs, {"time": years, **grid}).to_netcdf(folder / f"outputs_{name}.nc", engine="netcdf4")
    return folder
