"""Runs of a comparison side by side, each in a process of its own."""

import json
import signal
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from odfa import train
from odfa.errors import OdfaError
from odfa.session import RunConfig
from odfa.settings import from_dict, to_dict


def run_beside(runs: Mapping[Path, RunConfig], jobs: int) -> None:
    """Train each config in its folder, at most `jobs` at a time.

    A run that fails leaves its folder as it is and raises nothing here: the caller resumes it in its own process, where
    it fails again and the error is raised. Ctrl-C is sent to every run, once; they write their checkpoints and end, and
    then it is raised here.
    """
    running: set[subprocess.Popen[str]] = set()
    with ThreadPoolExecutor(jobs) as pool:
        try:
            list(pool.map(partial(_in_a_process, running), runs.items()))
        except KeyboardInterrupt:
            for process in tuple(running):
                process.send_signal(signal.SIGINT)
            raise


def _in_a_process(running: set["subprocess.Popen[str]"], run: tuple[Path, RunConfig]) -> None:
    run_dir, config = run
    process = subprocess.Popen(
        [sys.executable, "-m", "odfa.lab.beside", str(run_dir)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,  # a terminal would send its Ctrl-C to every run as well, and two mean: at once
    )
    running.add(process)
    process.communicate(json.dumps(to_dict(config)))
    running.discard(process)


def main() -> int:
    """Train the config on standard input in the folder named; 0 if it was finished."""
    try:
        train.run(from_dict(json.load(sys.stdin), RunConfig), sys.argv[1], resume=True, progress=False)
    except (OdfaError, KeyboardInterrupt):
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
