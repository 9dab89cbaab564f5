"""`odfa env`: versions, machine and installed extras, for a report of a fault."""

from argparse import ArgumentParser, Namespace
from importlib.util import find_spec
from typing import Any

from odfa.cli.command import Command, Outcome, print_table
from odfa.cli.help import Help

_EXTRAS = {
    "language": ("transformers", "tokenizers", "accelerate"),
    "vision": ("transformers", "torchmetrics", "PIL"),
    "climate": ("transformers", "xarray", "netCDF4"),
    "diffusion": ("diffusers", "accelerate"),
    "features": ("numba",),
    "scaling": ("transformers", "simpy"),
    "bench": ("psutil",),
}


def _configure(parser: ArgumentParser) -> None:
    del parser  # this command takes no arguments


def _execute(_arguments: Namespace) -> Outcome:
    import torch

    from odfa.devices import accelerators, casts_to_bfloat16
    from odfa.store import environment
    from odfa.store.provenance import device_name
    from odfa.structured import compiler_on

    found = {extra: all(find_spec(module) for module in modules) for extra, modules in _EXTRAS.items()}
    here = accelerators()
    devices = [f"{device} ({device_name(device)})" for device in here]
    kernels = {str(device): compiler_on(device) for device in (torch.device("cpu"), *here)}
    cast = [str(device) for device in (torch.device("cpu"), *here) if casts_to_bfloat16(device)]
    lists = {"accelerators": devices, "projections_by": kernels, "autocast_on": cast, "extras": found}
    result = {**environment(), **lists}
    return Outcome(json=result, show=lambda: _show(result))


def _show(result: dict[str, Any]) -> None:
    flat = {**result, **result["packages"]}
    flat["extras"] = ", ".join(extra for extra, present in result["extras"].items() if present) or "none"
    flat["accelerators"] = ", ".join(result["accelerators"]) or "none"
    flat["autocast_on"] = ", ".join(result["autocast_on"]) or "none"
    flat["projections_by"] = ", ".join(f"{name} on {device}" for device, name in result["projections_by"].items())
    commit = result["commit"]
    flat["commit"] = commit["id"] + (" (with changes)" if commit["dirty"] else "") if commit else "not a git tree"
    flat["command"] = " ".join(result["command"])
    print_table(
        ("", ""), [(key, "absent" if value is None else value) for key, value in flat.items() if key != "packages"]
    )


ENV = Command(
    name="env",
    help=Help(
        summary="print versions, machine and extras",
        example="odfa env --json",
    ),
    configure=_configure,
    execute=_execute,
)
