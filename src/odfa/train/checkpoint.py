"""Checkpoints: written whole or not at all, verified before they are believed, free of pickles.

checkpoints/step_0000100/
    model.safetensors       weights by name
    average.safetensors     their moving average by name, where one is kept
    optimizer.safetensors   optimiser state, `<parameter index or name>.<name>`
    state.safetensors       tensors inside the feedback's state
    state.json              step, config digest, projection identity, feedback state, sizes of the logs
    manifest.json           size and SHA-256 of each file above, in canonical form

Large models have numbered shards, model-00001.safetensors and so on.
"""

import json
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from odfa.engine import FusedOptimizer
from odfa.errors import CheckpointError, OdfaError
from odfa.train.build import Session
from odfa.train.folder import folder_errors
from odfa.train.overrides import digest
from odfa.train.shards import (
    canonical,
    read_shapes,
    read_tensors,
    seal,
    sync_folder,
    verify,
    write_durably,
    write_tensors,
)

KEEP = 2
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
            _write(partial, session, log_sizes)
            partial.rename(final)
            sync_folder(checkpoints)
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
    files = verify(path)
    state = _unpack(json.loads(files["state.json"].read_bytes()), dict(read_tensors(files, "state")))
    if state["config"] != digest(session.config):
        raise CheckpointError(f"{path} belongs to another config; resume it with the config it was made with")
    load_model(session.model, files, path, "model")
    if session.average is not None:
        load_model(session.average.module, files, path, "average")
        session.average.n_averaged.fill_(state["step"])
    _load_optimizer(session.optimizer, files, path)
    if session.dfa:
        try:
            session.dfa.load_state_dict(state["dfa"])
        except OdfaError as error:
            raise CheckpointError(f"{path}: {error}") from error
    session.step, session.seconds, session.projecting_s = (
        state["step"],
        state["seconds"],
        state.get("projecting_s", 0.0),
    )
    sizes: dict[str, int] = state["log_sizes"]
    return sizes


def load_model(model: torch.nn.Module, files: dict[str, Path], path: Path, stem: str = "model") -> None:
    """Fill `model` with a checkpoint's weights, one after the other; `stem` is model or average.

    Raises:
        CheckpointError: names or shapes are another model's; the model has not been touched.
    """
    saved, ours = read_shapes(files, stem), model.state_dict()
    for name in (*ours, *saved):
        there = f"{saved[name]}" if name in saved else "nothing"
        here = f"{tuple(ours[name].shape)}" if name in ours else "nothing"
        if there != here:
            raise CheckpointError(f"{path} is of another model: {name} is {there} there and {here} here")
    with torch.no_grad():
        for name, tensor in read_tensors(files, stem):
            ours[name].copy_(tensor)


def _write(folder: Path, session: Session, log_sizes: dict[str, int]) -> None:
    write_tensors(folder, "model", session.model.state_dict())
    if session.average is not None:
        write_tensors(folder, "average", session.average.module.state_dict())
    write_tensors(folder, "optimizer", _moments(session.optimizer))
    tensors: dict[str, Tensor] = {}
    state = {
        "step": session.step,
        "seconds": session.seconds,
        "projecting_s": session.projecting_s,
        "config": digest(session.config),
        "projection": session.dfa.identity if session.dfa else None,
        "dfa": _pack(session.dfa.state_dict(), tensors) if session.dfa else None,
        "log_sizes": log_sizes,
    }
    write_tensors(folder, "state", tensors)
    write_durably(folder / "state.json", canonical(state))
    seal(folder)


def _moments(optimizer: torch.optim.Optimizer | FusedOptimizer) -> dict[str, Tensor]:
    """State tensors by `<parameter index>.<name>`, with updates fused into backward by `<parameter name>.<name>`."""
    if isinstance(optimizer, FusedOptimizer):
        states = {name: one["state"].get(0, {}) for name, one in optimizer.state_dict().items()}
    else:
        states = optimizer.state_dict()["state"]
    return {f"{of}.{name}": value for of, entry in states.items() for name, value in entry.items() if value is not None}


def _load_optimizer(optimizer: torch.optim.Optimizer | FusedOptimizer, files: dict[str, Path], path: Path) -> None:
    """Fill `optimizer`; one that is fused parameter by parameter, so that its state is never all here twice."""
    try:
        if isinstance(optimizer, FusedOptimizer):
            for of, entry in _entries(files):
                _fill(optimizer.optimizers[of], {0: entry})
        else:
            _fill(optimizer, {int(of): entry for of, entry in _entries(files)})
    except (ValueError, KeyError) as error:
        raise CheckpointError(f"{path} is of another optimiser: {error}") from error


def _entries(files: dict[str, Path]) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Each parameter's state once the last of it is read: files sort by type first, and shards cut anywhere."""
    complete = Counter(key.rpartition(".")[0] for key in read_shapes(files, "optimizer"))
    begun = defaultdict[str, dict[str, Tensor]](dict)
    for key, tensor in read_tensors(files, "optimizer"):
        of, _, name = key.rpartition(".")
        begun[of][name] = tensor
        if len(begun[of]) == complete[of]:
            yield of, begun.pop(of)


def _fill(optimizer: torch.optim.Optimizer, state: dict[int, dict[str, Tensor]]) -> None:
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


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
