"""Ctrl-C and SIGTERM: finish the step, write a checkpoint, then stop."""

import shlex
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """The run was stopped from outside; what is kept of it are `step` steps (0: it starts anew when resumed)."""

    def __init__(self, step: int, run_dir: Path, *, advice: str | None = None) -> None:
        where = f"stopped at step {step}" if step else "stopped before the first checkpoint"
        super().__init__(f"{where}; {advice or f'resume with odfa train --resume {shlex.quote(str(run_dir))}'}")
        self.step, self.run_dir = step, run_dir


class StopRequest:
    """While open, the first signal is remembered in `requested`; the second acts as it would without us.

    Signals can be caught in the main thread only; elsewhere nothing is changed.
    """

    def __init__(self) -> None:
        self.requested = False
        self._previous: dict[signal.Signals, Any] = {}

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
        self.__exit__()
