"""The command line: `odfa COMMAND`, one file per subcommand (`odfa --help` lists them)."""

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command: 0 (done), 1 (it failed, or a run was stopped), 2 (the user's words are off), 130 (Ctrl-C)."""
    with _stopped_at_once():
        from odfa.cli.entry import run  # here, because it takes a second and Ctrl-C may come in that second
    return run(argv)


@contextmanager
def _stopped_at_once() -> Iterator[None]:
    """Ctrl-C ends the process: libraries that are half imported turn it into errors of their own."""
    usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # a background job ignores it, say
    if not usual or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, _stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _stop(_number: int, _frame: FrameType | None) -> None:
    with suppress(OSError):  # standard error is closed: the exit code says it
        os.write(2, b"odfa: stopped; run the same command again\n")
    os._exit(128 + signal.SIGINT)


__all__ = ["main"]
