"""Tensors in safetensors files of bounded size, and folders sealed by a manifest of sizes and checksums.

Writing and reading hold the tensors of one file in memory, besides those that are saved or filled.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from odfa.errors import CheckpointError
from odfa.files import open_to_read, own_folder, read_file, sync_folder, write_new
from odfa.saved import from_json, shown, to_json
from odfa.store.folder import folder_errors

SHARD_BYTES = 2**27
"""Size from which a group of tensors is split over several files, NAME-00001.safetensors and so on."""
_MANIFEST = "manifest.json"
_FORMAT = 2
"""Number of this form of checkpoints, in the manifest; a change of the form raises it."""
_TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "C64": torch.complex64,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""Name of a type in safetensors files → torch's type, for all types that are saved."""


def write_tensors(folder: Path, stem: str, tensors: dict[str, Tensor]) -> None:
    """Write `stem.safetensors`, or numbered shards where that would be larger than SHARD_BYTES.

    Raises:
        OSError: a file cannot be written.
    """
    groups = list(_groups(tensors))
    for number, group in enumerate(groups, 1):
        name = stem if len(groups) == 1 else f"{stem}-{number:05d}"
        write_new(folder / f"{name}.safetensors", _bytes(group))


def read_tensors(files: dict[str, Path], stem: str) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors of `stem`, one after the other, file by file.

    Raises:
        CheckpointError: a file is not in safetensors form.
    """
    for file in _files_of(files, stem):
        with _opened(file) as opened:
            for name in opened.keys():  # noqa: SIM118 - not a dict
                yield name, opened.get_tensor(name)


def read_forms(files: dict[str, Path], stem: str) -> dict[str, Tensor]:
    """The tensors of `stem` on the meta device: shapes and types, without reading the values.

    Raises:
        CheckpointError: a file is not in safetensors form, holds a type that is never saved or a name twice.
    """
    found: dict[str, Tensor] = {}
    for file in _files_of(files, stem):
        with _opened(file) as opened:
            for name in opened.keys():  # noqa: SIM118 - not a dict
                entry = opened.get_slice(name)
                if entry.get_dtype() not in _TYPES or name in found:
                    odd = f"{shown(name)} twice" if name in found else f"{shown(name)} of type {entry.get_dtype()}"
                    raise damaged(file, f"{file.name} holds {odd}")
                try:
                    found[name] = torch.empty(entry.get_shape(), dtype=_TYPES[entry.get_dtype()], device="meta")
                except (RuntimeError, TypeError) as error:  # no values, and more axes or larger ones than torch has
                    raise damaged(file, f"{file.name}: {shown(name)} has shape {shown(entry.get_shape())}") from error
    return found


@contextmanager
def _opened(file: Path) -> Iterator[Any]:  # safe_open, whose methods carry no types
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "pt") as opened:
            yield opened
    except SafetensorError as error:
        raise damaged(file, f"{file.name}: {' '.join(str(error).split())}") from error


def damaged(file: Path, how: str) -> CheckpointError:
    """An error that says what is wrong with a file of a checkpoint, and what to do."""
    return CheckpointError(f"{file.parent} is damaged ({how}); remove it to go on from the checkpoint before it")


def seal(folder: Path) -> None:
    """Write manifest.json with size and SHA-256 of every file, then sync the folder so that its entries are durable."""
    entries = {file.name: _entry(file) for file in folder.iterdir()}
    write_new(folder / _MANIFEST, to_json({"format": _FORMAT, "files": entries}))
    sync_folder(folder)


def verify(path: Path) -> dict[str, Path]:
    """The files of a sealed folder by name, each checked against the manifest.

    Raises:
        CheckpointError: a file is missing, strange, or differs from the manifest by a single bit.
    """
    with folder_errors(path):
        present = {name: path / name for name in os.listdir(path)} if own_folder(path) else {}
        if _MANIFEST not in present:
            raise CheckpointError(f"{path} is not a checkpoint: it has no {_MANIFEST}")
        raw = read_file(present.pop(_MANIFEST))
        actual = {name: _entry(file) for name, file in present.items()}
    try:
        manifest = from_json(raw)
        # only our own spelling counts: a flipped bit may leave valid JSON with equal values
        intact = raw == to_json(manifest)
        number, listed = manifest["format"], dict(manifest["files"])
    except (ValueError, KeyError, TypeError, RecursionError):
        intact, number, listed = False, _FORMAT, {}
    if intact and number != _FORMAT:
        raise CheckpointError(
            f"{path} was written by another version (expected form {_FORMAT}, got {shown(number)}); train the run anew"
        )
    if not intact or listed != actual:
        strange = sorted(name for name in {*actual, *listed} if actual.get(name) != listed.get(name))
        culprit = ", ".join(name if name.isprintable() else shown(name) for name in strange) if intact else _MANIFEST
        raise CheckpointError(f"{path} is corrupt ({culprit}); remove it to go on from the checkpoint before it")
    return present


def _groups(tensors: dict[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    group, size = dict[str, Tensor](), 0
    for name, tensor in tensors.items():
        more = tensor.numel() * tensor.element_size()
        if group and size + more > SHARD_BYTES:
            yield group
            group, size = {}, 0
        group[name] = tensor
        size += more
    yield group


def _bytes(tensors: dict[str, Tensor]) -> bytes:
    from safetensors.torch import save as to_bytes

    seen: set[int] = set()
    plain = {}
    for name, tensor in tensors.items():
        dense = tensor.detach().cpu().contiguous()
        # safetensors refuses tensors that share storage (tied weights), so the second name gets a copy
        plain[name] = dense.clone() if dense.untyped_storage().data_ptr() in seen else dense
        seen.add(dense.untyped_storage().data_ptr())
    return bytes(to_bytes(plain))


def _files_of(files: dict[str, Path], stem: str) -> Iterable[Path]:
    return [
        file for name, file in sorted(files.items()) if name == f"{stem}.safetensors" or name.startswith(f"{stem}-")
    ]


def _entry(file: Path) -> dict[str, int | str]:
    with open_to_read(file) as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]
        return {"size": os.fstat(stream.fileno()).st_size, "sha256": digest}
