"""Tensors in safetensors files of bounded size, and folders whose every bit is checked before it is believed.

Neither direction holds more than one file's tensors in memory besides those that are saved or filled.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from odfa.errors import CheckpointError
from odfa.train.folder import folder_errors

SHARD_BYTES = 2**27
"""Size from which a group of tensors is split over several files, NAME-00001.safetensors and so on."""
_MANIFEST = "manifest.json"
_FORMAT = 1


def write_tensors(folder: Path, stem: str, tensors: dict[str, Tensor]) -> None:
    """Write `stem.safetensors`, or numbered shards where that would be larger than SHARD_BYTES.

    Raises:
        OSError: a file cannot be written.
    """
    groups = list(_groups(tensors))
    for number, group in enumerate(groups, 1):
        name = stem if len(groups) == 1 else f"{stem}-{number:05d}"
        write_durably(folder / f"{name}.safetensors", _bytes(group))


def read_tensors(files: dict[str, Path], stem: str) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors of `stem`, one after the other.

    Raises:
        CheckpointError: a file is not in safetensors form.
    """
    from safetensors import SafetensorError, safe_open

    for file in _shards(files, stem):
        try:
            with safe_open(file, "pt") as opened:
                for name in opened.keys():  # noqa: SIM118 - not a dict
                    yield name, opened.get_tensor(name)
        except SafetensorError as error:
            raise CheckpointError(
                f"{file.parent} is corrupt ({file.name}: {error}); remove it to use the one before"
            ) from error


def read_shapes(files: dict[str, Path], stem: str) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors of `stem`, without reading them."""
    from safetensors import safe_open

    found: dict[str, tuple[int, ...]] = {}
    for file in _shards(files, stem):
        with safe_open(file, "pt") as opened:
            found |= {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
    return found


def seal(folder: Path) -> None:
    """Write manifest.json with size and SHA-256 of every file, and sync the folder."""
    entries = {file.name: _entry(file) for file in folder.iterdir()}
    write_durably(folder / _MANIFEST, canonical({"format": _FORMAT, "files": entries}))
    sync_folder(folder)


def verify(path: Path) -> dict[str, Path]:
    """The files of a sealed folder by name, each checked against the manifest.

    Raises:
        CheckpointError: a file is missing, strange, or differs from the manifest by a single bit.
    """
    with folder_errors(path):
        present = {file.name: file for file in path.iterdir()} if path.is_dir() else {}
        if _MANIFEST not in present:
            raise CheckpointError(f"{path} is not a checkpoint: it has no {_MANIFEST}")
        raw = present.pop(_MANIFEST).read_bytes()
        actual = {name: _entry(file) for name, file in present.items()}
    try:
        manifest = json.loads(raw)
        intact = raw == canonical(manifest) and manifest["format"] == _FORMAT
        listed = manifest["files"] if intact else {}
    except (ValueError, KeyError, TypeError):
        intact, listed = False, {}
    if not intact or listed != actual:
        strange = sorted(name for name in {*actual, *listed} if actual.get(name) != listed.get(name))
        culprit = ", ".join(strange) if intact else _MANIFEST
        raise CheckpointError(f"{path} is corrupt ({culprit}); remove it to use the one before")
    return present


def write_durably(file: Path, content: bytes) -> None:
    """Write and sync."""
    with file.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def sync_folder(folder: Path) -> None:
    """Make the names in a folder last."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def canonical(value: Any) -> bytes:
    """The one spelling of a JSON value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


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
        # safetensors refuses shared storage (tied weights); the second name gets a copy
        plain[name] = dense.clone() if dense.untyped_storage().data_ptr() in seen else dense
        seen.add(dense.untyped_storage().data_ptr())
    return bytes(to_bytes(plain))


def _shards(files: dict[str, Path], stem: str) -> Iterable[Path]:
    return [
        file for name, file in sorted(files.items()) if name == f"{stem}.safetensors" or name.startswith(f"{stem}-")
    ]


def _entry(file: Path) -> dict[str, Any]:
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return {"size": file.stat().st_size, "sha256": digest}
