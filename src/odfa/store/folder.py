"""The run folder: config, data, environment, logs, checkpoints and result of one run.

config.json         all settings of the run, defaults included
began.json          those with which the run began, without paths: config.json is compared with them
data.json           fingerprint, source and sizes of the data; language runs also have tokenizer.json
environment.json    versions, commit, machine; one entry for the start and for each time the run was resumed
metrics.jsonl       figures that the run computed; equal runs give the same bytes
timing.jsonl        time and memory, which differ between equal runs and therefore have a file of their own
status.json         running | interrupted | failed | complete; the step of the newest checkpoint; the reason
result.json         the final figures
checkpoints/        step_0000100/ …, the newest two
tb/                 TensorBoard events
"""

import contextlib
import errno
import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from odfa.errors import CheckpointError, RunFolderError
from odfa.files import PARTIAL, open_to_append, own_folder, read_file, remove, write_file
from odfa.saved import from_json, misfit, shown, to_json
from odfa.session.config import RunConfig
from odfa.session.places import without_places
from odfa.settings import from_dict, to_dict

LOGS = ("metrics", "timing")
BEGAN = "began.json"
Row = dict[str, Any]
"""A line of a log: `step`, an integer, and numbers or dicts of numbers by name."""
_STATUS = {"status": str, "step": int, "reason": (None, str)}
_TOLD = 3
"""Settings that a message names where two configs differ in more."""
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Error numbers of the system for a full disk, a used up quota and a file that is too large."""


class RunFolderLost(RunFolderError):
    """The run folder could not be written in the middle of a run; everything that was saved before is whole."""


@contextlib.contextmanager
def folder_errors(path: Path) -> Iterator[None]:
    """Raise a RunFolderError of one line, which says what to do, for every OSError within."""
    try:
        yield
    except RunFolderError:
        raise  # it is an OSError, too, and says already what is wrong
    except OSError as error:
        where = error.filename or path
        if isinstance(error, FileExistsError | NotADirectoryError):
            why, advice = "a file is where a folder should be", "choose another folder"
        else:
            why, full = str(error.strerror or error), error.errno in FULL
            advice = f"{'free space' if full else 'change its permissions'} or choose another folder"
        raise RunFolderError(f"cannot use the run folder: {where}: {why}; {advice}") from error


def write_json(path: Path, value: object) -> None:
    """Write a JSON file, indented for people to read, whole or not at all.

    Raises:
        NonFinite: a number is not finite. OSError: it cannot be written.
    """
    write_file(path, to_json(value, indent=2) + b"\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file of a run folder.

    Raises:
        RunFolderError: it is missing, or it is not a JSON object.
    """
    try:
        return _object(read_file(path), str(path))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise RunFolderError(
            f"{path} is missing; is {path.parent} a run folder? Expected one that odfa train has made"
        ) from error


def _object(text: bytes, where: str) -> dict[str, Any]:
    try:
        value = from_json(text)
    except ValueError as error:
        raise RunFolderError(f"{where} is not JSON ({error}); restore it or start a new run") from error
    if not isinstance(value, dict):
        raise RunFolderError(f"{where}: expected a JSON object, got {text[:20]!r}; restore it or start a new run")
    return value


def read_config(path: Path | str) -> RunConfig:
    """The settings in config.json. A `type` that names package.module:Name is imported.

    Raises:
        RunFolderError: there is no config.json. ConfigError: it has settings that this version does not know.
    """
    with folder_errors(Path(path)):
        return from_dict(read_json(Path(path) / "config.json"), RunConfig)


def read_lines(path: Path) -> list[Row]:
    """Rows of a log, each with its step.

    Raises:
        RunFolderError: the file cannot be read, or a line is damaged.
    """
    with folder_errors(path):
        lines = read_file(path).splitlines()
    rows = [_object(line, f"{path}, line {number}") for number, line in enumerate(lines, 1)]
    for number, row in enumerate(rows, 1):
        if type(row.get("step")) is not int:
            raise RunFolderError(
                f"{path}, line {number}: expected a step, got {row.get('step')!r}; restore it or start a new run"
            )
    return rows


class RunFolder:
    """Writes one run folder; while it is open, a lock keeps every other process from writing to the same folder."""

    def __init__(self, path: Path, config: RunConfig, *, resume: bool) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self._config = config
        self._resume = resume
        self._logs: dict[str, IO[bytes]] = {}
        self._lock: IO[bytes] | None = None

    def __enter__(self) -> "RunFolder":
        with folder_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            own_folder(self.checkpoints, make=True)
            self._take_lock()  # before anything is read: two processes must not both find the folder free
            try:
                self._claim()
                for name in LOGS:
                    self._logs[name] = open_to_append(self.path / f"{name}.jsonl")
            except BaseException:
                self.__exit__()
                raise
        return self

    def __exit__(self, *_exc: object) -> None:
        for stream in (*self._logs.values(), self._lock):
            if stream is not None:
                stream.close()
        self._logs, self._lock = {}, None

    def _take_lock(self) -> None:
        import fcntl

        # flock: the system releases it when the process ends, however it ends; no stale lock survives a kill
        self._lock = open_to_append(self.path / ".lock")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.__exit__()
            raise RunFolderError(f"{self.path} is in use by another process; wait or choose another folder") from error

    def _claim(self) -> None:
        check_owner(self.path, self._config, resume=self._resume)
        for leftover in self.path.glob(f".*{PARTIAL}"):  # half written by a process that was killed
            remove(leftover)
        if not os.path.lexists(self.path / "config.json"):
            write_json(self.path / "config.json", to_dict(self._config))

    def log(self, name: str, row: Row) -> None:
        """Append one row to a log; if it cannot be written as a whole, the log keeps its former length.

        Raises:
            NonFinite: a number is not finite. RunFolderError: it cannot be written.
        """
        stream, line = self._logs[name], to_json(row, sort_keys=False) + b"\n"
        with folder_errors(self.path):
            start = os.fstat(stream.fileno()).st_size
            try:
                written = stream.write(line)
                if written != len(line):
                    raise OSError(errno.ENOSPC, "the disk is full", f"{name}.jsonl")
            except OSError:
                with contextlib.suppress(OSError):  # the error of the write is the one to report
                    stream.truncate(start)
                raise

    def sync_logs(self) -> dict[str, int]:
        """Write the logs through to the disk; returns their sizes in bytes, which a checkpoint keeps."""
        with folder_errors(self.path):
            for stream in self._logs.values():
                os.fsync(stream.fileno())
            return {name: os.fstat(stream.fileno()).st_size for name, stream in self._logs.items()}

    def cut_logs(self, sizes: dict[str, int]) -> None:
        """Remove the rows that were written after a checkpoint; the resumed run writes them again.

        Raises:
            CheckpointError: a log is shorter than the checkpoint says, or has no line that ends there.
        """
        with folder_errors(self.path):
            # both logs are checked before one is cut: a refusal leaves the folder as it was
            for name, stream in self._logs.items():
                file, size = self.path / f"{name}.jsonl", sizes[name]
                if os.fstat(stream.fileno()).st_size < size:
                    raise CheckpointError(f"{file} is shorter than its checkpoint says; restore it or start a new run")
                if size and read_file(file)[size - 1 : size] != b"\n":
                    raise CheckpointError(
                        f"{file} has no line that ends where its checkpoint says; restore it or start a new run"
                    )
            for name, stream in self._logs.items():
                stream.truncate(sizes[name])

    def set_status(self, status: str, *, step: int, reason: str | None = None) -> None:
        """Write status.json; `step` is the number of steps that a resumed run need not do again."""
        with folder_errors(self.path):
            write_json(self.path / "status.json", {"status": status, "step": step, "reason": reason})

    def add_session(self, environment: dict[str, object]) -> None:
        """Append the versions and the machine with which the run starts or goes on; at the start, keep its settings."""
        with folder_errors(self.path):
            file = self.path / "environment.json"
            if not os.path.lexists(file):
                write_json(self.path / BEGAN, to_dict(without_places(self._config)))
            sessions = read_json(file).get("sessions") if os.path.lexists(file) else []
            if not isinstance(sessions, list):
                raise RunFolderError(f"{file}: expected a list of sessions; remove the file, or restore it")
            write_json(file, {"sessions": [*sessions, environment]})

    def finish(self, result: dict[str, object], *, step: int) -> None:
        """Write the result, then the status complete: a complete run always has its result."""
        with folder_errors(self.path):
            write_json(self.path / "result.json", result)
        self.set_status("complete", step=step)


def check_owner(path: Path, config: RunConfig, *, resume: bool) -> None:
    """Refuse a folder that holds another run, or any run if the caller does not want to resume it.

    Raises:
        RunFolderError: it holds a run and `resume` is False. CheckpointError: it holds a run with another config.
    """
    config_file = path / "config.json"
    with folder_errors(path):
        if not os.path.lexists(config_file):
            return
        if not resume:
            again = f"odfa train --resume {shlex.quote(str(path))}"
            raise RunFolderError(f"{path} already holds a run; go on with it ({again}) or choose another folder")
        # without paths: resuming with data that have moved is the same run
        theirs, ours = (to_dict(without_places(of)) for of in (read_config(path), config))
        if theirs != ours:
            raise CheckpointError(
                f"{path} belongs to another config ({differences(theirs, ours)}); choose another folder"
            )


def check_unchanged(path: Path) -> None:
    """Compare config.json with the settings that the run began with; paths may have changed.

    Raises:
        CheckpointError: another setting was changed; the message names it. RunFolderError: a file cannot be read.
    """
    with folder_errors(path):
        if not all(os.path.lexists(path / name) for name in (BEGAN, "config.json")):
            return  # there is no run, or nobody wrote the settings with which it began
        # through classes: a setting that a later version adds has its default in both
        theirs, ours = from_dict(read_json(path / BEGAN), RunConfig), without_places(read_config(path))
    if theirs != ours:
        raise CheckpointError(
            f"{path} belongs to another config ({differences(to_dict(theirs), to_dict(ours))}): config.json was "
            "changed after the run had begun; restore it, or train with other settings in another folder"
        )


def read_result(path: Path) -> dict[str, Any] | None:
    """The content of result.json if the run is complete, else None.

    Raises:
        RunFolderError: status.json is damaged, or result.json of a complete run is missing or damaged.
    """
    status = path / "status.json"
    with folder_errors(path):
        if not os.path.lexists(status):
            return None
        found = read_json(status)
        wrong = misfit(found, _STATUS, "status.json")
        if wrong:
            raise RunFolderError(f"{status} is damaged ({wrong}); remove it to go on from the newest checkpoint")
        return read_json(path / "result.json") if found["status"] == "complete" else None


def differences(theirs: dict[str, Any], ours: dict[str, Any]) -> str:
    """The settings in which two trees differ and both values, in alphabetical order, cut where they are many."""
    found = list(_differences(theirs, ours, ""))
    more = len(found) - _TOLD
    return "; ".join(found[:_TOLD]) + (f"; and {more} more" if more > 0 else "")


def _differences(theirs: object, ours: object, key: str) -> Iterator[str]:
    if isinstance(theirs, dict) and isinstance(ours, dict):
        # of two kinds the word tells enough: their other settings are not the same ones
        names = ["type"] if theirs.get("type") != ours.get("type") else sorted({*theirs, *ours})
        for name in names:
            if theirs.get(name) != ours.get(name):
                yield from _differences(theirs.get(name), ours.get(name), f"{key}.{name}" if key else name)
    else:
        yield f"{key}: {shown(theirs)} there, {shown(ours)} here"
