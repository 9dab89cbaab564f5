"""Shows a run while it trains: a progress bar on the terminal, and curves in TensorBoard."""

import contextlib
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from odfa.data import needs
from odfa.files import own_folder
from odfa.store.folder import Row

if TYPE_CHECKING:
    import rich.progress

LINE_EVERY_S = 60.0
"""Seconds between two lines of progress if standard error is no terminal."""


class ProgressBar:
    """Shows loss, steps per second, remaining time and light time so far: as a bar if standard error is a terminal,
    else as one line per minute."""

    def __init__(self, *, title: str, total_steps: int, step: int, shown: bool) -> None:
        self._bar: rich.progress.Progress | None = None
        self._title, self._total, self._first, self._shown = title, total_steps, step, shown
        self._start_s = self._told_s = time.perf_counter()
        if not shown:
            return
        # imported here: a run without a bar does not need rich
        with needs("rich", "progress bars", otherwise="run with progress=False"):
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
        console = Console(stderr=True)
        if not console.is_terminal:
            return
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}"),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=console,
        )
        self._task = self._bar.add_task(title, total=total_steps, completed=step, figures="")

    def __enter__(self) -> "ProgressBar":
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        if self._bar:
            self._bar.stop()

    def update(self, step: int, *, loss: float, light_s: float) -> None:
        """Show the figures after `step` steps."""
        if not self._shown:
            return
        now_s = time.perf_counter()
        # the steps of this process only: those before an interruption took time that is not known here
        rate = (step - self._first) / max(now_s - self._start_s, 1e-9)
        if self._bar:
            self._bar.update(self._task, completed=step, figures=_figures(loss, rate, light_s))
        elif now_s - self._told_s >= LINE_EVERY_S and sys.stderr is not None:
            self._told_s = now_s
            left_s = round((self._total - step) / rate)
            line = f"{self._title}: step {step:,} of {self._total:,}, {_figures(loss, rate, light_s)}, "
            with contextlib.suppress(OSError):  # a closed pipe or terminal is no reason to stop the run
                sys.stderr.write(f"{line}{timedelta(seconds=left_s)} left\n")
                sys.stderr.flush()


def _figures(loss: float, rate: float, light_s: float) -> str:
    light = f", light {light_s:.1f} s" if light_s else ""
    return f"loss {loss:.4f}, {rate:.3g} steps/s{light}"


class TensorBoard:
    """Writes scalar events to a file in `folder`, each at once; a resumed run adds a second file to the same curves.

    torch's SummaryWriter writes from a thread of its own: what it has not written yet is lost if the process is killed.
    """

    def __init__(self, folder: Path, *, first_step: int) -> None:
        with needs("tensorboard", "events", otherwise="say tensorboard=false"):
            from tensorboard.compat.proto.event_pb2 import Event
            from tensorboard.compat.proto.summary_pb2 import Summary
            from tensorboard.summary.writer.record_writer import RecordWriter
        self._Event, self._Summary = Event, Summary
        own_folder(folder, make=True)
        # TensorBoard reads files in order of their names; the time in it puts those of a resumed run last
        self._stream = (folder / f"events.out.tfevents.{time.time_ns():020d}.odfa").open("xb")
        self._writer = RecordWriter(self._stream)
        self._put(Event(wall_time=time.time(), file_version="brain.Event:2", step=first_step))

    def add(self, row: Row) -> None:
        """Write every number of a row of metrics; numbers in nested dicts are named `outer/inner`."""
        values = [self._Summary.Value(tag=tag, simple_value=value) for tag, value in _flat(row).items()]
        self._put(self._Event(wall_time=time.time(), step=row["step"], summary=self._Summary(value=values)))

    def close(self) -> None:
        """Close the file; every event has been written already."""
        self._stream.close()

    def _put(self, event: Any) -> None:
        self._writer.write(event.SerializeToString())
        self._writer.flush()


def _flat(row: Row, prefix: str = "") -> dict[str, float]:
    flat: dict[str, float] = {}
    for name, value in row.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}/")
        elif name != "step":
            flat[prefix + name] = float(value)
    return flat


def peak_memory_bytes() -> int:
    """Largest resident memory of this process so far."""
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB
