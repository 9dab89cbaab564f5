"""Runs of a comparison side by side, each in a process of its own."""

import json
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from odfa import train
from odfa.errors import OdfaError
from odfa.train import RunConfig
from odfa.train.overrides import from_dict, to_dict


def run_beside(runs: Mapping[Path, RunConfig], jobs: int) -> None:
    """Train each config in its folder, at most `jobs` at a time.

    What goes wrong is left for the caller, who goes on with each run in its own process and hears of it there.
    """
    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(_in_a_process, runs.items()))


def _in_a_process(run: tuple[Path, RunConfig]) -> None:
    run_dir, config = run
    subprocess.run(
        [sys.executable, "-m", "odfa.report.beside", str(run_dir)],
        input=json.dumps(to_dict(config)),
        text=True,
        capture_output=True,
        check=False,
    )


def main() -> int:
    """Train the config on standard input in the folder named; 0 if it was finished."""
    try:
        train.run(from_dict(json.load(sys.stdin)), sys.argv[1], resume=True, progress=False)
    except (OdfaError, KeyboardInterrupt):
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
