"""One input, watched: what it did that no input may do."""

import dataclasses
import hashlib
import json
import math
import re
import signal
import stat
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from odfa.errors import OdfaError
from tests.fuzz.base import Room, Said, Target

KINDS = ("traceback", "crash", "hang", "touched", "executed", "nan", "unsaid")
"""unsaid: an exit code that is none of 0, 1, 2, a refusal without a line, or --json without one JSON object."""
LIMIT_S = 30.0
"""No input may take longer; all are tiny, but the first of a kind may load a library on a busy machine."""
_NO_NUMBER = re.compile(r"(?<![\w./%-])[-+]?(nan|inf|infinity)(?![\w./=-])", re.IGNORECASE)
Seen = dict[Path, tuple[Any, ...]]


@dataclass(frozen=True)
class Fault:
    """What went wrong, and with which input."""

    target: str
    kind: str
    what: str
    """The same for equal causes, as far as can be told."""
    value: str
    detail: str = ""


class _Hang(BaseException):
    """The time is up. Not an Exception: nobody may swallow it."""


def judge(target: Target, value: Any, room: Room) -> tuple[str, list[Fault]]:
    """Try one input; how it ended, and what went wrong."""
    room.clear()
    target.lay(value, room)
    outside, given = _seen(room.outside, room.cwd), _seen(room.given)
    came, found = _tried(target, value, room)
    changed = {path for path in _different(outside, _seen(room.outside, room.cwd)) if not _asked_for(path, came, room)}
    if room.marker.exists():
        found.append(("executed", "code of an input ran", ""))
    elif changed:
        names = sorted(str(path.relative_to(room.root)) for path in changed)
        found.append(("touched", f"{names[0]}", f"{names}"))
    written = _different(given, _seen(room.given))
    found += _no_numbers(came, [path for path in sorted(written) if path.exists()])
    return _ending(came), [Fault(target.name, kind, what, repr(value), detail) for kind, what, detail in found]


def _ending(came: Any) -> str:
    if isinstance(came, Said):
        return "done" if came.code == 0 else "failed" if came.code == 1 else "refused"
    return "refused" if isinstance(came, OdfaError) else "failed" if isinstance(came, BaseException) else "done"


def _tried(target: Target, value: Any, room: Room) -> tuple[Any, list[tuple[str, str, str]]]:
    try:
        with room.entered(), _time_limit(LIMIT_S):
            came = target.run(value, room)
    except _Hang as hang:
        return None, [("hang", _place(hang), "")]
    except OdfaError as error:
        return error, [] if str(error).strip() else [("unsaid", f"{type(error).__name__} without words", "")]
    except RuntimeError as error:
        if "can't allocate memory" in str(error):  # torch refuses at once what a config rightly asks for
            return error, []
        return None, [("traceback", f"{type(error).__name__} at {_place(error)}", _text(error))]
    except BaseException as error:  # a panic of a library written in Rust is no Exception
        return None, [("traceback", f"{type(error).__name__} at {_place(error)}", _text(error))]
    return came, _unsaid(came) if isinstance(came, Said) else []


def _text(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))[-1500:]


def _place(error: BaseException) -> str:
    """The innermost line of the package that the error went through."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/src/odfa/" in frame.filename]
    if not frames:
        return "no line of odfa"
    return f"{frames[-1].filename.partition('/src/odfa/')[2]}:{frames[-1].name}"


def _unsaid(said: Said) -> list[tuple[str, str, str]]:
    if said.code not in (0, 1, 2):
        return [("unsaid", f"exit code {said.code!r}", said.err)]
    if "Traceback" in said.err + said.out:
        return [("traceback", "printed", said.err)]
    lines = said.err.splitlines()
    if said.code == 2 and not (lines and lines[-1].startswith("odfa: ")):
        return [("unsaid", "exit code 2 without a line", said.err)]
    if "--json" in said.words and said.out and said.out != "\n":
        try:
            json.loads(said.out, parse_constant=_refuse)
        except ValueError as error:
            kind = "nan" if "no number" in str(error) else "unsaid"
            return (
                [(kind, f"--json of {said.words[0]}", f"{error}: {said.out[:300]}")] if said.out[:5] != "usage" else []
            )
    return []


def _refuse(constant: str) -> Any:
    raise ValueError(f"no number: {constant}")


def _no_numbers(came: Any, written: list[Path]) -> Iterator[tuple[str, str, str]]:
    """NaN and infinity in what was printed, returned or written; weights only where the command says it went well."""
    well = isinstance(came, Said) and came.code == 0
    if well and "--json" not in came.words:
        words = " ".join(came.words).lower()
        bad = [match[0] for match in _NO_NUMBER.finditer(came.out) if match[0].lower().strip("+-") not in words]
        if bad:
            yield "nan", f"printed by {came.words[0]}", came.out[:600]
    elif not isinstance(came, Said) and not _finite(came):
        yield "nan", "returned", repr(came)[:300]
    for path in written:
        if not stat.S_ISREG(path.lstat().st_mode):
            continue
        if path.suffix in (".json", ".jsonl"):
            for line in (
                path.read_text(errors="replace").splitlines() if path.suffix == ".jsonl" else [path.read_text()]
            ):
                try:
                    json.loads(line, parse_constant=_refuse)
                except ValueError as error:
                    yield "nan" if "no number" in str(error) else "unsaid", f"written to {path.name}", line[:300]
                    break
        elif path.suffix == ".safetensors" and well:
            from safetensors.torch import load_file

            bad = [name for name, tensor in load_file(path).items() if not _finite(tensor)]
            if bad:
                yield "nan", f"written to {path.name}", f"{bad[:5]}"


def _finite(value: Any) -> bool:
    """False if there is a NaN or an infinity anywhere inside."""
    if isinstance(value, torch.Tensor):
        return not (value.is_floating_point() or value.is_complex()) or bool(torch.isfinite(value).all())
    if isinstance(value, np.ndarray):
        return value.dtype.kind not in "fc" or bool(np.isfinite(value).all())
    if isinstance(value, float):
        return math.isfinite(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return all(_finite(getattr(value, field.name)) for field in dataclasses.fields(value))
    if isinstance(value, Mapping):
        return all(map(_finite, value.values()))
    return all(map(_finite, value)) if isinstance(value, tuple | list) else True


def _seen(*folders: Path) -> Seen:
    """Every file with type, time and content; nothing is opened that could block."""
    found: Seen = {}
    for folder in folders:
        for path in folder.rglob("*"):
            there = path.lstat()
            content: Any = None
            if stat.S_ISREG(there.st_mode):
                content = hashlib.blake2b(path.read_bytes()).digest()
            elif stat.S_ISLNK(there.st_mode):
                content = path.readlink()
            folder_time = stat.S_ISDIR(there.st_mode)
            found[path] = (there.st_mode, 0 if folder_time else there.st_mtime_ns, content)
    return found


def _different(before: Seen, after: Seen) -> set[Path]:
    return {path for path in {*before, *after} if before.get(path) != after.get(path)}


def _asked_for(path: Path, came: Any, room: Room) -> bool:
    """Whether the words of a command name the place, or it is a command's default for what it makes."""
    if not isinstance(came, Said) or not path.is_relative_to(room.cwd):
        return False
    named = {word.rpartition("=")[2].partition("/")[0] for word in came.words} - {"", "."}
    return path.relative_to(room.cwd).parts[0] in {*named, "runs", "calibrations", "pictures"}


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raise `_Hang` in the main thread; a timer that runs already (pytest-timeout's) goes on afterwards."""

    def ring(*_: Any) -> None:
        raise _Hang

    start, handler = time.monotonic(), signal.signal(signal.SIGALRM, ring)
    # again and again: an exception that is raised in a callback of the collector is lost
    left, every = signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if left:
            signal.setitimer(signal.ITIMER_REAL, max(0.01, left - (time.monotonic() - start)), every)
