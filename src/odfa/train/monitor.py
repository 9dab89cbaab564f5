"""What a person sees while a run goes on: a progress bar, and TensorBoard curves."""

import contextlib
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from odfa.data import needs
from odfa.files import own_folder

LINE_EVERY_S = 60.0
"""Seconds between two lines where there is no terminal."""


class ProgressBar:
    """Loss, steps per second, time left and light time so far: a bar on a terminal's standard error, elsewhere a line
    every minute."""

    def __init__(self, *, title: str, total_steps: int, step: int, shown: bool) -> None:
        self._bar: Any = None
        self._title, self._total, self._first, self._shown = title, total_steps, step, shown
        self._start_s = self._told_s = time.perf_counter()
        if not shown:
            return
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
        """Show the state after `step` steps."""
        if not self._shown:
            return
        now_s = time.perf_counter()
        rate = (step - self._first) / max(now_s - self._start_s, 1e-9)
        if self._bar:
            self._bar.update(self._task, completed=step, figures=_figures(loss, rate, light_s))
        elif now_s - self._told_s >= LINE_EVERY_S and sys.stderr is not None:
            self._told_s = now_s
            left_s = round((self._total - step) / rate)
            line = f"{self._title}: step {step:,} of {self._total:,}, {_figures(loss, rate, light_s)}, "
            with contextlib.suppress(OSError):  # nobody listens: no reason to stop
                sys.stderr.write(f"{line}{timedelta(seconds=left_s)} left\n")
                sys.stderr.flush()


def _figures(loss: float, rate: float, light_s: float) -> str:
    light = f", light {light_s:.1f} s" if light_s else ""
    return f"loss {loss:.4f}, {rate:.3g} steps/s{light}"


class TensorBoard:
    """Scalar events in `folder`, written at once and without a thread; a resumed run adds a file to the same curves."""

    def __init__(self, folder: Path, *, first_step: int) -> None:
        with needs("tensorboard", "events", otherwise="say tensorboard=false"):
            from tensorboard.compat.proto.event_pb2 import Event
            from tensorboard.compat.proto.summary_pb2 import Summary
            from tensorboard.summary.writer.record_writer import RecordWriter
        self._Event, self._Summary = Event, Summary
        own_folder(folder, make=True)
        # the name begins with the time so that TensorBoard reads resumed runs in order
        self._stream = (folder / f"events.out.tfevents.{time.time_ns():020d}.odfa").open("xb")
        self._writer = RecordWriter(self._stream)
        self._put(Event(wall_time=time.time(), file_version="brain.Event:2", step=first_step))

    def add(self, row: dict[str, Any]) -> None:
        """Every number in a row of metrics, nested ones as `outer/inner`."""
        values = [self._Summary.Value(tag=tag, simple_value=value) for tag, value in _flat(row).items()]
        self._put(self._Event(wall_time=time.time(), step=row["step"], summary=self._Summary(value=values)))

    def close(self) -> None:
        """Close the file; every event is already in it."""
        self._stream.close()

    def _put(self, event: Any) -> None:
        self._writer.write(event.SerializeToString())
        self._writer.flush()


def _flat(row: dict[str, Any], prefix: str = "") -> dict[str, float]:
    flat: dict[str, float] = {}
    for name, value in row.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}/")
        elif name != "step":
            flat[prefix + name] = float(value)
    return flat


def peak_memory_bytes() -> int:
    """Largest resident size of this process so far."""
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB
