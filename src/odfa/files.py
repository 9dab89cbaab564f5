"""Reading and writing in folders of unknown origin: links are never followed, files are written whole or not at all.

A run folder may have been unpacked from an archive or copied from somebody else. A path in it is opened only if it is a
regular file or a folder: no symbolic link, no hard link to a file elsewhere, no pipe. Files are not overwritten in
place: new content is written to a file of a random name that did not exist before, which is then renamed.
"""

import contextlib
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from odfa.errors import RunFolderError

_READ, _APPEND = "rb", "ab"
PARTIAL = ".partial"
"""Ending of the names of files and folders that are still being written."""


def read_file(path: Path) -> bytes:
    """The bytes of a file.

    Raises:
        RunFolderError: it is a link, a pipe or a folder. OSError: it cannot be read.
    """
    with open_to_read(path) as stream:
        return stream.read()


def open_to_read(path: Path) -> IO[bytes]:
    """A file as a stream of bytes.

    Raises:
        RunFolderError: it is a link, a pipe or a folder. OSError: it cannot be read.
    """
    return _opened(path, _READ)


def open_to_append(path: Path) -> IO[bytes]:
    """A file, made if it is missing, to write at its end without a buffer.

    Raises:
        RunFolderError: it is a link, a pipe, a folder, or has a second name. OSError: it cannot be written.
    """
    stream = _opened(path, _APPEND)
    if os.fstat(stream.fileno()).st_nlink > 1:
        stream.close()
        raise RunFolderError(f"{path} has a second name elsewhere (a hard link); put a copy in its place")
    return stream


def _opened(path: Path, mode: str) -> IO[bytes]:
    try:
        stream = open(path, mode, buffering=0, opener=_without_links)  # noqa: SIM115 - Path.open has no opener
    except OSError as error:
        if path.is_symlink():
            raise _is_link(path) from error
        if path.is_dir():
            raise RunFolderError(f"{path} is a folder; expected a file") from error
        raise
    if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        stream.close()
        raise RunFolderError(f"{path} is no regular file; put one in its place, or remove it")
    opened: IO[bytes] = stream
    return opened


def _without_links(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)  # a pipe must not be waited for


def write_file(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: under a new name beside it, synced, then renamed. A link is replaced.

    Raises:
        OSError: it cannot be written.
    """
    partial = _beside(path)
    try:
        write_new(partial, content)
        partial.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):  # the first error is the one to report
            partial.unlink(missing_ok=True)
        raise


def write_new(path: Path, content: bytes) -> None:
    """Write and sync a file that does not exist.

    Raises:
        OSError: the file exists, or cannot be written.
    """
    with path.open("xb") as stream:  # x: neither a file nor a link may be there
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A new folder beside `path`, which is renamed to `path` at the end of the block, or removed if the block raises.

    Raises:
        OSError: it cannot be made, or `path` exists.
    """
    partial = _beside(path)
    partial.mkdir()
    try:
        yield partial
        partial.rename(path)
        sync_folder(path.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def own_folder(path: Path, *, make: bool = False) -> bool:
    """True if a folder is there, after it was made if asked for.

    Raises:
        RunFolderError: a link is there. OSError: the folder cannot be made.
    """
    if path.is_symlink():
        raise _is_link(path)
    if make:
        path.mkdir(exist_ok=True)
    return path.is_dir()


def remove(path: Path) -> None:
    """Remove a file, a link (not what it points to) or a folder with what is in it.

    Raises:
        OSError: it cannot be removed.
    """
    if path.is_symlink() or not path.is_dir():
        path.unlink()
    else:
        shutil.rmtree(path)  # does not follow links either


def sync_folder(folder: Path) -> None:
    """Write the names in a folder to disk."""
    # syncing a file writes its content, not its name: after a crash a renamed file could be gone
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}{PARTIAL}")


def _is_link(path: Path) -> RunFolderError:
    return RunFolderError(f"{path} is a symbolic link; put what it points to in its place, or remove it")
