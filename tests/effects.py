"""What a run does, as plain values that two trees of settings can be compared by; and other values for a setting."""

import hashlib
import os
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import pytest
import torch

from odfa import train
from odfa.errors import Drifted
from odfa.project.guard import DriftWarning
from odfa.session import RunConfig, dry_run
from odfa.settings import Settings
from odfa.settings.tree import Key

FREE = ("seconds", "compute_s", "peak_memory_bytes")


def leaves(config: Settings, prefix: str = "") -> Iterator[tuple[str, type[Settings]]]:
    """Dotted path of every single value, with the class that declares it."""
    for field in fields(config):
        value = getattr(config, field.name)
        if isinstance(value, Settings):
            yield from leaves(value, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, type(config)


def effect(config: RunConfig, folder: Path) -> dict[str, Any]:
    """Files, metrics, weights, light and threads of the run; the config itself and all clocks are left out."""
    threads: list[int] = []
    with pytest.MonkeyPatch.context() as patched, warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        patched.setattr(torch, "set_num_threads", threads.append)
        patched.setattr(os, "fsync", lambda _file: None)  # what takes time here, and no part of what a run does
        patched.setattr("odfa.train.loop.environment", dict)
        try:
            result = train.run(config, folder, progress=False).to_json()
        except Drifted as error:  # the guard acted
            result = {"status": str(error)}
    weights = hashlib.sha256()
    for file in sorted(folder.glob("checkpoints/*/model*.safetensors")):
        weights.update(file.read_bytes())
    files = sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if "events" not in file.name)
    done = {
        "files": files,
        "threads": threads,
        "warned": [str(one.message) for one in warned if issubclass(one.category, DriftWarning)],
        "metrics": (folder / "metrics.jsonl").read_text(),
        "weights": weights.hexdigest(),
        "plan": dry_run(config),
        "result": {name: value for name, value in result.items() if name not in FREE},
    }
    shutil.rmtree(folder)
    return done


def others(key: Key) -> Iterator[str]:
    """Words for other values of a setting, as they stand behind `key=`."""
    hint, value = key.hint, key.value
    for kind in [part for part in get_args(hint) if part is not NoneType] if NoneType in get_args(hint) else [hint]:
        if kind is bool:
            yield str(not value).lower()
        elif get_origin(kind) is Literal:
            yield from (str(word) for word in get_args(kind) if word != value)
        elif kind is int:
            yield from ("2", "3") if value is None else (str(value + 1), str(max(1, value // 2)), str(2 * value))
        elif kind is float:
            yield from ("0.5", "0.01") if value is None else (str(value * 1.5), str(value / 2), str(value + 0.25))
        elif get_origin(kind) is tuple and value:
            yield from (",".join(str(entry * factor) for entry in value) for factor in (2, 0.9))
            yield ",".join(str(entry // 2) for entry in value)
    if NoneType in get_args(hint) and value is not None:
        yield "none"
