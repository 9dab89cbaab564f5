"""What a person sees while a run goes on: a progress bar, and TensorBoard curves."""

import time
from pathlib import Path
from typing import Any

from odfa.data import needs
from odfa.files import own_folder


class ProgressBar:
    """Loss, steps per second, time left and light time so far, on a terminal's standard error."""

    def __init__(self, *, title: str, total_steps: int, step: int, shown: bool) -> None:
        self._bar: Any = None
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
            TextColumn("loss {task.fields[loss]:.4f}"),
            TextColumn("{task.fields[rate]:.0f} steps/s"),
            TimeRemainingColumn(),
            TextColumn("light {task.fields[light]:.1f} s"),
            console=console,
        )
        start = {"loss": float("nan"), "rate": 0.0, "light": 0.0}
        self._task = self._bar.add_task(title, total=total_steps, completed=step, **start)
        self._first, self._start_s = step, time.perf_counter()

    def __enter__(self) -> "ProgressBar":
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        if self._bar:
            self._bar.stop()

    def update(self, step: int, *, loss: float, light_s: float) -> None:
        """Show the state after `step` steps."""
        if self._bar:
            rate = (step - self._first) / (time.perf_counter() - self._start_s)
            self._bar.update(self._task, completed=step, loss=loss, rate=rate, light=light_s)


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
