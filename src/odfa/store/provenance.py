"""Versions, commit and machine of a run, for environment.json."""

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

_PACKAGES = (
    *("odfa", "torch", "numpy", "scikit-learn", "safetensors", "rich", "tensorboard", "matplotlib"),
    *("transformers", "diffusers"),
)


def environment() -> dict[str, object]:
    """Time, versions of packages (None: not installed), commit of the source tree (None: no git) and machine."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "commit": _commit(),
        "cpu": _cpu(),
        "cpu_count": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "command": sys.argv[:1] and [Path(sys.argv[0]).name, *sys.argv[1:]],
    }


def computed_on(device: torch.device) -> dict[str, object]:
    """The device of a run and its name."""
    return {"device": str(device), "device_name": device_name(device)}


def device_name(device: torch.device) -> str:
    """Name of a processor or accelerator; that of Apple's chips is the processor's."""
    if device.type in ("cuda", "xpu"):
        return str(getattr(torch, device.type).get_device_name(device))
    return _cpu()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> dict[str, str | bool] | None:
    """Commit of the git tree that tracks this file, and whether files of the tree differ from it (dirty)."""
    # an installed package may lie inside another project's tree, whose commit says nothing about this code
    here = Path(__file__)
    if _git(here.parent, "ls-files", "--error-unmatch", here.name) is None:
        return None
    commit, changes = _git(here.parent, "rev-parse", "HEAD"), _git(here.parent, "status", "--porcelain", ":/")
    return {"id": commit, "dirty": bool(changes)} if commit else None


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
