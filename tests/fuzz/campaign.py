"""Many inputs, one after the other.

python -m tests.fuzz.campaign TARGET COUNT KEY         try them in processes of their own, print the faults by kind
python -m tests.fuzz.campaign replay TARGET INPUT      try one input again, with the whole of what it did
"""

import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.fuzz.base import Room, Target
from tests.fuzz.stock import Stock
from tests.fuzz.targets import TARGETS
from tests.fuzz.verdict import KINDS, Fault, judge

MEMORY_BYTES = 3 * 2**30
"""What an input may take beyond what the process holds already: more ends in a MemoryError, not in a dead machine."""
_SILENT_S = 120
"""A child that tries one input for so long hangs where no signal reaches it."""


@dataclass
class Tally:
    """What became of a target's inputs."""

    target: str
    tried: int = 0
    seconds: float = 0.0
    endings: Counter[str] = field(default_factory=Counter)
    faults: list[Fault] = field(default_factory=list)

    def __str__(self) -> str:
        kinds = Counter(fault.kind for fault in self.faults)
        endings = "".join(f"{self.endings[ending]:>7} {ending}" for ending in ("done", "failed", "refused"))
        found = "".join(f"  {kinds[kind]} {kind}" for kind in KINDS)
        return f"{self.target:<12}{self.tried:>6} in {self.seconds:>5.1f} s:{endings} |{found}"


def shares(total: int) -> dict[str, int]:
    """Inputs of each target, `total` together."""
    weights = {name: target.share for name, target in TARGETS.items()}
    counts = {name: total * weight // sum(weights.values()) for name, weight in weights.items()}
    counts[next(iter(counts))] += total - sum(counts.values())
    return counts


def explore(
    target: Target,
    room: Room,
    *,
    count: int,
    key: int,
    begun: Callable[[Any], None] = lambda _value: None,
    ended: Callable[[str, list[Fault]], None] = lambda _ending, _faults: None,
) -> Tally:
    """Try `count` inputs; equal keys, equal inputs. `begun` and `ended` are told of each."""
    tally, start = Tally(target.name), time.perf_counter()

    @seed(key)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(value=target.inputs())
    def attempt(value: Any) -> None:
        begun(value)
        ending, faults = judge(target, value, room)
        tally.faults += faults
        tally.endings[ending] += 1
        tally.tried += 1
        ended(ending, faults)

    with bounded_memory():
        attempt()
    tally.seconds = time.perf_counter() - start
    return tally


@contextmanager
def bounded_memory() -> Any:
    """At most MEMORY_BYTES more than now for this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    held = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData"))
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (held + MEMORY_BYTES, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def in_children(name: str, *, count: int, key: int) -> Tally:
    """Try inputs in a process of their own; one that dies is a fault, and another one goes on in its place."""
    tally = Tally(name)
    while tally.tried < count:
        with tempfile.TemporaryDirectory() as root:
            now = Path(root) / "now"
            words = [sys.executable, "-m", "tests.fuzz.campaign", name, str(count - tally.tried), str(key), root]
            code = _watched(words, now)
            written = Path(root) / "done"
            done = [json.loads(line) for line in (written.read_text() if written.exists() else "").splitlines()]
            tally.tried += len(done)
            tally.faults += [Fault(**fault) for entry in done for fault in entry["faults"]]
            tally.endings.update(entry["ending"] for entry in done)
            tally.seconds += sum(entry["seconds"] for entry in done)
            if code is not None and code > 0:
                raise RuntimeError(f"the fuzzer itself failed ({code}), see above; the inputs done: {len(done)}")
            if code != 0:
                kind = "hang" if code is None else "crash"
                tally.faults.append(Fault(name, kind, f"the process ended with {code}", now.read_text()))
                tally.tried += 1
        key += 1
    return tally


def _watched(words: list[str], now: Path) -> int | None:
    """The exit code of a child; None if it had to be ended because one input took too long."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with subprocess.Popen(words, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as child:
        while True:
            try:
                return child.wait(timeout=5)
            except subprocess.TimeoutExpired:
                if now.exists() and time.time() - now.stat().st_mtime > _SILENT_S:
                    child.kill()
                    return None


def _child(name: str, count: int, key: int, root: Path) -> None:
    """Write each input down before it is tried, and its faults afterwards."""
    torch.set_num_threads(1)
    room, start = Room(root / "room", Stock(root / "stock")), time.perf_counter()
    with (root / "done").open("w") as done:

        def ended(ending: str, faults: list[Fault]) -> None:
            nonlocal start
            seconds, start = time.perf_counter() - start, time.perf_counter()
            row = {"ending": ending, "faults": [asdict(fault) for fault in faults], "seconds": seconds}
            print(json.dumps(row), file=done, flush=True)

        def begun(value: Any) -> None:
            (root / "now").write_text(repr(value))

        explore(TARGETS[name], room, count=count, key=key, begun=begun, ended=ended)


def _replay(name: str, text: str) -> None:
    value = eval(text, {"nan": math.nan, "inf": math.inf})
    with tempfile.TemporaryDirectory() as root, bounded_memory():
        room = Room(Path(root) / "room", Stock(Path(root) / "stock"))
        ending, faults = judge(TARGETS[name], value, room)
        print(ending)
        for fault in faults:
            print(f"{fault.kind}: {fault.what}\n{fault.detail}")


def _main(words: list[str]) -> None:
    if words[0] == "replay":
        _replay(words[1], words[2])
    elif len(words) == 4:
        _child(words[0], int(words[1]), int(words[2]), Path(words[3]))
    else:
        tally = in_children(words[0], count=int(words[1]), key=int(words[2]))
        print(tally)
        for (kind, what), times in Counter((fault.kind, fault.what) for fault in tally.faults).most_common():
            first = min((f for f in tally.faults if (f.kind, f.what) == (kind, what)), key=lambda f: len(f.value))
            print(f"\n{times} x {kind}: {what}\n  {first.value[:600]}\n{first.detail[-700:]}")


if __name__ == "__main__":
    _main(sys.argv[1:])
