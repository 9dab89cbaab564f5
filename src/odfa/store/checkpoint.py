"""Checkpoints: written whole or not at all, without pickles, and compared with the run before they are used.

checkpoints/step_0000100/
    model.safetensors       weights by name
    average.safetensors     moving average of the weights by name, if the run keeps one
    optimizer.safetensors   optimiser state, `<parameter index or name>.<name>`
    state.safetensors       tensors of the feedback's state, by the numbers that state.json gives them
    state.json              step, config digest, projection identity, feedback state, sizes of the logs
    manifest.json           size and SHA-256 of each file above, in canonical form

The tensors of large models are split over numbered files, model-00001.safetensors and so on.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypedDict, TypeVar

import torch
from torch import Tensor

from odfa.errors import CheckpointError, NonFinite, OdfaError
from odfa.files import PARTIAL, new_folder, own_folder, read_file, remove, write_new
from odfa.saved import finite, from_json, misfit, shown, to_json, word
from odfa.session.assembly import Session
from odfa.session.handle import num_inputs, num_projected
from odfa.session.places import without_places
from odfa.settings import digest
from odfa.store.folder import LOGS, folder_errors
from odfa.store.optimizer_state import STEM, load_moments, moments, parameters_with
from odfa.store.shards import damaged, read_forms, read_tensors, seal, verify, write_tensors

KEEP = 2
"""Checkpoints that are kept: if the newest one is damaged, the run can go on from the one before."""
_TENSOR, _REMOVED = "__tensor__", ".removed"
_NAME = re.compile(r"step_(\d{7,18})")
_STATE = {
    "step": int,
    "seconds": float,
    "projecting_s": float,
    "config": str,
    "projection": (None, str),
    "dfa": object,
    "learned": [str, ...],
    "log_sizes": dict.fromkeys(LOGS, int),
}
_TRIES = 10
"""Times that `newest` looks again if a training run removes the checkpoint that it reads."""
T = TypeVar("T")


class _State(TypedDict):
    """state.json, once it has the form `_STATE`."""

    step: int
    seconds: float
    projecting_s: float
    config: str
    projection: str | None
    dfa: object
    learned: list[str]
    log_sizes: dict[str, int]


def save(session: Session, checkpoints: Path, log_sizes: dict[str, int]) -> Path:
    """Write the checkpoint of `session.step`, then remove all but the newest `KEEP`.

    It is written into a temporary folder beside its place, synced, and renamed: a folder of the final name is whole.

    Raises:
        NonFinite: a weight, a moment or the feedback's state is not finite; no run could go on from it.
        RunFolderError: the folder cannot be written. What was half written is removed.
    """
    final = checkpoints / f"step_{session.step:07d}"
    with folder_errors(checkpoints):
        if final in find(checkpoints):
            return final
        with new_folder(final) as partial:
            _write(partial, session, log_sizes)
        for old in find(checkpoints)[:-KEEP]:
            # renamed first: if the process is killed here, a half removed checkpoint must not look like a whole one
            remove(old.rename(old.with_name(f".{old.name}{_REMOVED}")))
    return final


def find(checkpoints: Path) -> list[Path]:
    """Finished checkpoints, oldest first.

    Raises:
        RunFolderError: the folder or one of them is a link.
    """
    if not own_folder(checkpoints):
        return []
    found = [path for path in checkpoints.iterdir() if _NAME.fullmatch(path.name) and own_folder(path)]
    return sorted(found, key=step_of)


def step_of(path: Path) -> int:
    """The step at which a finished checkpoint was written."""
    return int(path.name.removeprefix("step_"))


def newest(run_dir: Path, use: Callable[[Path], T]) -> T:
    """What `use` returns for the newest checkpoint of a run, which may still be training.

    Raises:
        CheckpointError: there is none yet; and what `use` raises.
    """
    # the training run may remove this checkpoint while it is read: then the error means nothing, and a newer one exists
    for tries_left in reversed(range(_TRIES)):
        with folder_errors(run_dir):
            found = find(run_dir / "checkpoints")
        if not found:
            raise CheckpointError(f"{run_dir} holds no checkpoint yet; train it first (odfa train --resume {run_dir})")
        try:
            return use(found[-1])
        except (OdfaError, OSError):
            if found[-1].exists() or not tries_left:
                raise
    raise AssertionError("the last try returns or raises")


def clean(checkpoints: Path) -> None:
    """Remove the folders that a killed process left half written or half removed."""
    with folder_errors(checkpoints):
        for ending in (PARTIAL, _REMOVED):
            for leftover in checkpoints.glob(f".step_*{ending}"):
                remove(leftover)


def restore(session: Session, path: Path) -> dict[str, int]:
    """Put `session` into the state saved at `path`; returns the sizes that the logs had then, in bytes.

    Raises:
        CheckpointError: it is corrupt, or of another config, model or projection. The session may be half filled then
            and must not be used.
    """
    # bits first, then numbers and the config, then tensors: a message names the most basic thing that is wrong
    files = verify(path)
    state = _read_state(session, path)
    load_model(session.model, files, path, "model")
    if session.average is not None:
        load_model(session.average.module, files, path, "average")
        session.average.n_averaged.fill_(state["step"])  # it was updated once in each step; its decay depends on this
    load_moments(session.optimizer, files, state["learned"], state["step"])
    feedback = _feedback(state["dfa"], files)
    if session.dfa:
        try:
            session.dfa.load_state_dict(feedback)
        except OdfaError as error:
            raise CheckpointError(f"{path}: {error}") from error
        _check_projection(session, state["projection"], path / "state.json")
    session.step, session.seconds, session.projecting_s = state["step"], state["seconds"], state["projecting_s"]
    return state["log_sizes"]


def _read_state(session: Session, path: Path) -> _State:
    """state.json, after its form and its values have been compared with the session."""
    file = path / "state.json"
    try:
        state: _State = from_json(read_file(file))
    except FileNotFoundError as error:
        raise damaged(file, f"{file.name} is missing") from error
    except ValueError as error:
        raise damaged(file, f"{file.name} is not JSON: {error}") from error
    wrong = misfit(state, _STATE, file.name)
    if wrong:
        raise damaged(file, wrong)
    # the step is in the name and in the file: a checkpoint that was renamed would repeat or skip steps
    if state["step"] != step_of(path) or state["step"] > session.total_steps:
        most = min(step_of(path), session.total_steps)
        raise damaged(file, f"{file.name}.step: expected {step_of(path)} of at most {most}, got {state['step']}")
    for name, value in (("seconds", state["seconds"]), ("projecting_s", state["projecting_s"])):
        if value < 0:
            raise damaged(file, f"{file.name}.{name}: expected zero or more, got {value}")
    # the digest compares all settings but paths, so data and calibration may have moved
    if state["config"] != digest(without_places(session.config)):
        raise CheckpointError(
            f"{path} belongs to another config than the run; resume it with the config that it was made with"
        )
    if (state["dfa"] is None) != (session.dfa is None):
        raise damaged(file, f"{file.name}.dfa: expected {'none' if session.dfa is None else 'the state of a feedback'}")
    return state


def _check_projection(session: Session, identity: str | None, file: Path) -> None:
    """Refuse a projection with another identity or another shape than the run's."""
    assert session.dfa is not None
    config, shape, projection = session.config, session.splits.shape, session.dfa.projection
    if identity != session.dfa.identity:
        raise damaged(file, f"{file.name}.projection: expected {session.dfa.identity}, got {shown(identity)}")
    if session.dfa.at_work.projection is not None:  # None if the rule needed it only to set the head at the start
        expected = (num_inputs(config, shape), num_projected(config, shape))
        found = (projection.num_inputs, projection.num_outputs)
        if found != expected:
            raise damaged(file, f"{file.name}.dfa: expected a projection of {expected}, got {found}")


def load_model(model: torch.nn.Module, files: dict[str, Path], path: Path, stem: str = "model") -> None:
    """Copy a checkpoint's weights into `model`, one after the other; `stem` is model or average.

    Raises:
        CheckpointError: names, types or shapes are another model's, and `model` is unchanged; or a weight is not
            finite, and `model` is half filled.
    """
    # all names and shapes before the first copy; values one by one, as a large model has no room for a second copy
    check_model(model, files, path, stem)
    ours = model.state_dict()
    with torch.no_grad():
        for name, tensor in read_tensors(files, stem):
            if not finite(tensor):
                raise damaged(path / f"{stem}.safetensors", f"{stem}.safetensors: {name} holds NaN or infinity")
            ours[name].copy_(tensor)


def check_model(model: torch.nn.Module, files: dict[str, Path], path: Path, stem: str = "model") -> None:
    """Compare names, types and shapes of a checkpoint's weights with those of `model`, which may be on the meta device.

    Raises:
        CheckpointError: they are another model's.
    """
    saved, ours = read_forms(files, stem), model.state_dict()
    for name in (*ours, *saved):
        there, here = (shown(of[name]) if name in of else "nothing" for of in (saved, ours))
        if there != here:
            raise CheckpointError(f"{path} is of another model: {word(name)} is {there} there and {here} here")


def _write(folder: Path, session: Session, log_sizes: dict[str, int]) -> None:
    _write_finite(folder, "model", session.model.state_dict())
    if session.average is not None:
        _write_finite(folder, "average", session.average.module.state_dict())
    remembered = moments(session.optimizer)
    _write_finite(folder, STEM, remembered)
    tensors: dict[str, Tensor] = {}
    state = {
        "step": session.step,
        "seconds": session.seconds,
        "projecting_s": session.projecting_s,
        "config": digest(without_places(session.config)),
        "projection": session.dfa.identity if session.dfa else None,
        "dfa": _pack(session.dfa.state_dict(), tensors) if session.dfa else None,
        "learned": parameters_with(remembered),
        "log_sizes": log_sizes,
    }
    _write_finite(folder, "state", tensors)  # after `_pack` above, which fills `tensors`
    write_new(folder / "state.json", to_json(state))
    seal(folder)


def _write_finite(folder: Path, stem: str, tensors: dict[str, Tensor]) -> None:
    odd = next((name for name, tensor in tensors.items() if not finite(tensor)), None)
    if odd is not None:
        raise NonFinite(f"{stem}: {word(odd)} holds NaN or infinity")
    write_tensors(folder, stem, tensors)


def _pack(value: object, tensors: dict[str, Tensor]) -> object:
    """`value` as JSON; its tensors are added to `tensors` under consecutive numbers, by which the JSON names them."""
    if isinstance(value, Tensor):
        tensors[str(len(tensors))] = value
        return {_TENSOR: str(len(tensors) - 1)}
    if isinstance(value, dict):
        # as pairs: keys may be integers, which a JSON object would turn into text
        return {"items": [[key, _pack(item, tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return [_pack(item, tensors) for item in value]
    return value


def _feedback(packed: object, files: dict[str, Path]) -> Any:
    """The value that `_pack` was given; each tensor of the file must be named once, no more and no less."""
    file, forms = files["state.json"], read_forms(files, "state")
    tensors = dict(read_tensors(files, "state"))
    # before they are unpacked: the parts of the feedback check shapes and types, but need not check values
    odd = next((name for name in forms if not finite(tensors[name])), None)
    if odd is not None:
        raise damaged(file, f"state.safetensors: {shown(odd)} holds NaN or infinity")
    try:
        value = _unpack(packed, tensors)
    except (ValueError, RecursionError) as error:
        raise damaged(file, f"{file.name}.dfa: {error}") from error
    if tensors:
        raise damaged(file, f"state.safetensors: {file.name} does not name {shown(next(iter(tensors)))}")
    return value


def _unpack(value: object, tensors: dict[str, Tensor]) -> object:
    """Inverse of `_pack`; each tensor that is named is taken out of `tensors`."""
    if isinstance(value, list):
        return [_unpack(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    wrong = misfit(value, {_TENSOR: str} if _TENSOR in value else {"items": [[str, object], ...]}, "an entry")
    if wrong:
        raise ValueError(wrong)
    if _TENSOR not in value:
        return {key: _unpack(item, tensors) for key, item in value["items"]}
    # also for a tensor that is named a second time, as the first time took it out
    if value[_TENSOR] not in tensors:
        raise ValueError(f"there is no tensor {shown(value[_TENSOR])}")
    return tensors.pop(value[_TENSOR])
