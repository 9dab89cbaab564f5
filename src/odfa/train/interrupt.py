"""Stopping a run by Ctrl-C or SIGTERM: the step is finished and a checkpoint written before the run stops."""

import shlex
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """The run was stopped by a signal; the newest checkpoint holds `step` steps (0: there is none)."""

    def __init__(self, step: int, run_dir: Path, *, advice: str | None = None) -> None:
        where = f"stopped at step {step}" if step else "stopped before the first checkpoint"
        super().__init__(f"{where}; {advice or f'resume with odfa train --resume {shlex.quote(str(run_dir))}'}")
        self.step, self.run_dir = step, run_dir


class StopRequest:
    """Within this context the first signal only sets `requested`; the second one acts as if there were no context.

    Python lets only the main thread set signal handlers; in other threads this context does nothing.
    """

    def __init__(self) -> None:
        self.requested = False
        self._previous: dict[signal.Signals, Callable[[int, FrameType | None], object] | int | None] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._remember) for number in _SIGNALS}
        return self

    def __exit__(self, *_exc: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def _remember(self, _number: int, _frame: FrameType | None) -> None:
        self.requested = True
        self.__exit__()  # the second Ctrl-C must stop a step or a checkpoint that hangs
