"""NetCDF files of both forms: attributes, values, names, times, bytes."""

import shutil
from typing import Any

import numpy as np
from hypothesis import strategies as st

from odfa.data.netcdf import read_yearly
from odfa.tasks.climate.climatebench import load_climatebench
from odfa.tasks.climate.north_america import load_climate
from tests.fuzz.base import Draw, Room, Target
from tests.fuzz.odd import BYTE_EDITS, INF, NAN, edited_bytes

_NAMES = {
    "climate": ("air_temperature", "time", "latitude", "longitude", "time_bnds"),
    "climatebench": ("tas", "pr", "CO2", "SO2", "BC", "time", "lat", "lon", "latitude", "longitude", "member"),
}
_ATTRIBUTES = (
    "units",
    "calendar",
    "bounds",
    "scale_factor",
    "add_offset",
    "missing_value",
    "coordinates",
    "valid_range",
)
_CONTENTS = (
    "K", "degC", "Celsius", "furlong", "", "days since 1860-01-01", "days since 0000-00-00", "years since 1", "noleap",
    "proleptic", "time_bnds", "nothing", 0, 1, -1, 1e30, NAN, INF, 10**12, "\U0001f600", [1, 2],
)  # fmt: skip
_VALUES = (NAN, INF, 9.96921e36, 1e38, -1e38, 0.0, -999.0)
_FILES = {
    "climate": ("A1B_north_america.nc", "E1_north_america.nc"),
    "climatebench": ("inputs_ssp126.nc", "outputs_ssp126.nc", "outputs_ssp245.nc", "inputs_historical.nc"),
}


class NetCdf(Target):
    """{"form", "file", "command"} and {"edits": [(variable, action, with what, place)]} or {"bytes"}."""

    name, share = "netcdf", 5

    def draw(self, draw: Draw) -> Any:
        form = draw(st.sampled_from(("climate", "climatebench")))
        value = {
            "form": form,
            "file": draw(st.sampled_from(_FILES[form])),
            "command": draw(st.sampled_from(("read", "read", "read", "load", "dry"))),
        }
        if draw(st.integers(0, 4)) == 4:
            return {**value, "bytes": draw(st.lists(BYTE_EDITS, min_size=1, max_size=2))}
        edit = st.one_of(
            st.tuples(st.sampled_from(_ATTRIBUTES), st.sampled_from(_CONTENTS)).map(lambda pair: ("attribute", *pair)),
            st.tuples(st.sampled_from(("fill", "one", "row")), st.sampled_from(_VALUES), st.integers(0, 200)),
            st.tuples(
                st.sampled_from(("rename", "rename dimension", "without", "same", "reverse")), st.just(0.0), st.just(0)
            ),
        )
        edits = st.lists(st.tuples(st.sampled_from(_NAMES[form]), edit), min_size=1, max_size=2)
        return {**value, "edits": draw(edits)}

    def lay(self, value: Any, room: Room) -> None:
        import netCDF4

        shutil.copytree(getattr(room.stock, value["form"]), room.given / "data")
        file = room.given / "data" / value["file"]
        if "bytes" in value:
            file.write_bytes(edited_bytes(file.read_bytes(), value["bytes"]))
            return
        with netCDF4.Dataset(file, "a") as whole:
            whole.set_auto_maskandscale(False)
            for name, (action, what, place) in value["edits"]:
                _edit(whole, name, action, what, place)

    def run(self, value: Any, room: Room) -> Any:
        folder, form = room.given / "data", value["form"]
        if value["command"] == "dry":
            return room.odfa(
                "train", f"{form}_vit_tiny", f"path={folder}", "steps=1", "batch_size=2", "--dry-run", "--json"
            )
        if value["command"] == "read":
            known = {"climate": "air_temperature", "climatebench": "tas" if "outputs" in value["file"] else "SO2"}
            return read_yearly(folder / value["file"], known[form], between=(-1e9, 1e9), gaps=form == "climatebench")
        splits = (load_climate if form == "climate" else load_climatebench)(str(folder))
        return [(part.x_ND, part.y_N, part.weight_G) for part in (splits.train, splits.validation, splits.test)]


def _edit(whole: Any, name: str, action: str, what: Any, place: Any) -> None:
    if action == "rename dimension" and name in whole.dimensions:
        whole.renameDimension(name, f"{name}_x")
    if name not in whole.variables:
        return
    variable = whole.variables[name]
    if action == "attribute":
        attribute, content = what, place
        variable.setncattr(attribute, content)
    elif action == "rename":
        whole.renameVariable(name, f"{name}_x")
    elif action == "without":
        for attribute in variable.ncattrs():
            if attribute != "_FillValue":
                variable.delncattr(attribute)
    elif variable.dtype.kind in "fi" and variable.ndim:
        values = np.asarray(variable[:])
        with np.errstate(all="ignore"):
            odd = np.asarray(what).astype(values.dtype)
        if action == "reverse":
            values = values[::-1]
        elif action in ("fill", "same"):
            values[...] = values.flat[0] if action == "same" else odd
        elif action == "row":
            values[place % len(values)] = odd
        else:
            values.flat[place % values.size] = odd
        variable[:] = values
