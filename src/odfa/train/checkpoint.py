"""Checkpoints: written whole or not at all, verified before they are believed, free of pickles.

checkpoints/step_0000100/
    model.safetensors       weights by name
    optimizer.safetensors   optimiser state, `<parameter index>.<name>`
    state.safetensors       tensors inside the feedback's state
    state.json              step, config digest, projection identity, feedback state, sizes of the logs
    manifest.json           size and SHA-256 of each file above, in canonical form
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from odfa.errors import CheckpointError, OdfaError
from odfa.train.build import Session
from odfa.train.folder import folder_errors
from odfa.train.overrides import digest

KEEP = 2
_MANIFEST = "manifest.json"
_FORMAT = 1
_TENSOR = "__tensor__"


def save(session: Session, checkpoints: Path, log_sizes: dict[str, int]) -> Path:
    """Write the checkpoint of `session.step` into a temporary sibling, sync, rename; keep the newest `KEEP`.

    Raises:
        RunFolderError: the folder cannot be written; nothing half-written stays.
    """
    final = checkpoints / f"step_{session.step:07d}"
    partial = checkpoints / f".{final.name}.partial"
    with folder_errors(checkpoints):
        if final.exists():
            return final
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            _write_files(partial, _contents(session, log_sizes))
            partial.rename(final)
            _sync_folder(checkpoints)
        except OSError:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        for old in find(checkpoints)[:-KEEP]:
            # renamed first: a checkpoint half removed must not look like one
            doomed = old.rename(old.with_name(f".{old.name}.removed"))
            shutil.rmtree(doomed)
    return final


def find(checkpoints: Path) -> list[Path]:
    """Finished checkpoints, oldest first."""
    return sorted(checkpoints.glob("step_*")) if checkpoints.is_dir() else []


def step_of(path: Path) -> int:
    """The step at which a finished checkpoint was written."""
    return int(path.name.removeprefix("step_"))


def clean(checkpoints: Path) -> None:
    """Remove what a killed process left half-written or half-removed."""
    with folder_errors(checkpoints):
        for pattern in (".step_*.partial", ".step_*.removed"):
            for leftover in checkpoints.glob(pattern):
                shutil.rmtree(leftover)


def restore(session: Session, path: Path) -> dict[str, int]:
    """Bring `session` to where `path` was written; returns the sizes of the logs at that moment.

    Raises:
        CheckpointError: corrupt, or of another config, model or projection. The session is then of no use.
    """
    files = read_files(path)
    state = _unpack(json.loads(files["state.json"]), _tensors(files["state.safetensors"], path))
    if state["config"] != digest(session.config):
        raise CheckpointError(f"{path} belongs to another config; resume it with the config it was made with")
    load_model(session.model, files, path)
    _load_optimizer(session.optimizer, _tensors(files["optimizer.safetensors"], path), path)
    if session.dfa:
        try:
            session.dfa.load_state_dict(state["dfa"])
        except OdfaError as error:
            raise CheckpointError(f"{path}: {error}") from error
    session.step, session.seconds = state["step"], state["seconds"]
    sizes: dict[str, int] = state["log_sizes"]
    return sizes


def read_files(path: Path) -> dict[str, bytes]:
    """The bytes of a checkpoint's files, each checked against the manifest.

    Raises:
        CheckpointError: a file is missing, strange, or differs from the manifest by a single bit.
    """
    with folder_errors(path):
        present = {file.name: file.read_bytes() for file in path.iterdir()} if path.is_dir() else {}
    if _MANIFEST not in present:
        raise CheckpointError(f"{path} is not a checkpoint: it has no {_MANIFEST}")
    raw = present.pop(_MANIFEST)
    try:
        manifest = json.loads(raw)
        intact = raw == _canonical(manifest) and manifest["format"] == _FORMAT
        listed = manifest["files"] if intact else {}
    except (ValueError, KeyError, TypeError):
        intact, listed = False, {}
    if not intact or listed != {name: _entry(content) for name, content in present.items()}:
        actual = {name: _entry(content) for name, content in present.items()}
        strange = sorted(name for name in {*actual, *listed} if actual.get(name) != listed.get(name))
        culprit = ", ".join(strange) if intact else _MANIFEST
        raise CheckpointError(f"{path} is corrupt ({culprit}); remove it to use the one before")
    return present


def load_model(model: torch.nn.Module, files: dict[str, bytes], path: Path) -> None:
    """Fill `model` with a checkpoint's weights.

    Raises:
        CheckpointError: names or shapes are another model's.
    """
    saved, ours = _tensors(files["model.safetensors"], path), model.state_dict()
    for name in (*ours, *saved):
        there, here = (f"{tuple(found[name].shape)}" if name in found else "nothing" for found in (saved, ours))
        if there != here:
            raise CheckpointError(f"{path} is of another model: {name} is {there} there and {here} here")
    model.load_state_dict(saved)


def _contents(session: Session, log_sizes: dict[str, int]) -> Iterator[tuple[str, bytes]]:
    yield "model.safetensors", _tensor_bytes(session.model.state_dict())
    states = session.optimizer.state_dict()["state"].items()
    moments = {
        f"{index}.{name}": value for index, entry in states for name, value in entry.items() if value is not None
    }
    yield "optimizer.safetensors", _tensor_bytes(moments)
    tensors: dict[str, Tensor] = {}
    state = {
        "step": session.step,
        "seconds": session.seconds,
        "config": digest(session.config),
        "projection": session.dfa.identity if session.dfa else None,
        "dfa": _pack(session.dfa.state_dict(), tensors) if session.dfa else None,
        "log_sizes": log_sizes,
    }
    yield "state.safetensors", _tensor_bytes(tensors)
    yield "state.json", _canonical(state)


def _write_files(folder: Path, contents: Iterator[tuple[str, bytes]]) -> None:
    entries = {}
    for name, content in contents:
        _write_durably(folder / name, content)
        entries[name] = _entry(content)
    _write_durably(folder / _MANIFEST, _canonical({"format": _FORMAT, "files": entries}))
    _sync_folder(folder)


def _write_durably(file: Path, content: bytes) -> None:
    with file.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _entry(content: bytes) -> dict[str, Any]:
    return {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _tensor_bytes(tensors: dict[str, Tensor]) -> bytes:
    from safetensors.torch import save as to_bytes

    seen: set[int] = set()
    plain = {}
    for name, tensor in tensors.items():
        dense = tensor.detach().cpu().contiguous()
        # safetensors refuses shared storage (tied weights); the second name gets a copy
        plain[name] = dense.clone() if dense.untyped_storage().data_ptr() in seen else dense
        seen.add(dense.untyped_storage().data_ptr())
    return bytes(to_bytes(plain))


def _tensors(content: bytes, path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load as from_bytes

    try:
        tensors: dict[str, Tensor] = from_bytes(content)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is corrupt ({error}); remove it to use the one before") from error
    return tensors


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], path: Path) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = tensor
    try:
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    except (ValueError, KeyError) as error:
        raise CheckpointError(f"{path} is of another optimiser: {error}") from error


def _pack(value: Any, tensors: dict[str, Tensor]) -> Any:
    """`value` as JSON, its tensors moved to `tensors` under running numbers."""
    if isinstance(value, Tensor):
        tensors[str(len(tensors))] = value
        return {_TENSOR: str(len(tensors) - 1)}
    if isinstance(value, dict):
        return {"items": [[key, _pack(item, tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return [_pack(item, tensors) for item in value]
    return value


def _unpack(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, dict) and _TENSOR in value:
        return tensors[value[_TENSOR]]
    if isinstance(value, dict):
        pairs = value["items"] if set(value) == {"items"} else value.items()
        return {key: _unpack(item, tensors) for key, item in pairs}
    if isinstance(value, list):
        return [_unpack(item, tensors) for item in value]
    return value
