"""Where something is computed: on the processor, or on an accelerator that torch knows."""

import re

import torch

from odfa.errors import ConfigError
from odfa.settings import require

TOLD = "cpu, cuda, cuda:N, mps, xpu, xpu:N or auto"
"""The devices that may be named."""
_OF_RUNS = "for a run that has begun, write another one into its config.json"
_NAMED = re.compile(r"auto|cpu|mps|(cuda|xpu)(:\d{1,3})?")


def is_device(name: str) -> bool:
    """Whether a device may be named so, on whatever machine."""
    return _NAMED.fullmatch(name) is not None


def accelerators() -> list[torch.device]:
    """All that torch sees here; the first one is what `auto` takes: cuda before mps before xpu."""
    cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    xpu = torch.xpu.device_count() if torch.xpu.is_available() else 0
    mps = int(torch.backends.mps.is_available())
    counts = {"cuda": cuda, "mps": mps, "xpu": xpu}
    return [torch.device(kind, number) for kind, count in counts.items() for number in range(count)]


def memory_bytes(device: torch.device) -> int | None:
    """Memory of an accelerator, where torch tells it."""
    if device.type not in ("cuda", "xpu"):
        return None
    return int(torch.get_device_module(device).get_device_properties(device).total_memory)


def casts_to_bfloat16(device: torch.device) -> bool:
    """Whether torch.autocast has bfloat16 there, multiplied by the device itself."""
    if not torch.amp.is_autocast_available(device.type):
        return False
    return device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)


def multiplies(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether rows of this half precision are multiplied there as they are: with sums in float32, and faster for it.

    float16 never is: it ends at 65504, which what is projected of a scaled loss may exceed.
    """
    # Processors compute in float32 instead: on one core products of 512 x 2048 x 256 to 1024 x 50304 x 768 in bfloat16
    # took 0.12 to 0.34 of the time with AVX512_BF16, 1.2 times as long with AVX512 alone and 45 times as long with AVX2
    # (oneDNN limited by ONEDNN_MAX_CPU_ISA), and results are to be the same on all of them.
    return dtype == torch.bfloat16 and device.type in ("cuda", "xpu") and casts_to_bfloat16(device)


def check_name(name: object) -> None:
    """Refuse a device that no machine has.

    Raises:
        SettingError: no name of a device.
    """
    require(isinstance(name, str) and is_device(name), "device", TOLD, name)


def device_named(name: str, otherwise: str = _OF_RUNS) -> torch.device:
    """The device with its number; auto: the first accelerator, or the processor where there is none.

    Args:
        name: as `TOLD` says.
        otherwise: what to do where it is absent.

    Raises:
        ConfigError: this machine has no such device.
    """
    if name == "cpu":  # no accelerator is looked for, which could take long
        return torch.device("cpu")
    here = accelerators()
    if name == "auto":
        return here[0] if here else torch.device("cpu")
    found = next((device for device in here if name in (device.type, str(device))), None)
    if found is None:
        known = dict.fromkeys(["cpu", "auto", *(word for one in here for word in (one.type, str(one)))])
        raise ConfigError(
            f"device: expected one of {', '.join(known)} on this machine, got {name}; torch {torch.__version__} sees "
            f"no such device ({otherwise})"
        )
    return found
