"""A recipe of 1.3 billion parameters on one GPU, by light and by backpropagation: `python benchmarks/billion.py`.

    python benchmarks/billion.py [--arms odfa,bp] [--minutes 9] [--small] [--runs DIR] [--out FILE] [SETTING=VALUE …]

Each arm is the whole run that `odfa train manuals_gpt_1b arm=ARM` does: the same tokens in the same order. An arm that
has not ended after `--minutes` is stopped, and what it has learned by then is written. With `--arms odfa`, then
`--arms bp`, no command takes ten minutes. `--small` trains `manuals_tiny`, which a processor does in seconds, and says
that the code runs. Settings are those of `odfa train`, such as data.path=docs.tar.

Writes JSON with loss curves, tokens a second, peak memory, machine, versions and commit to `--out`. An arm that fails
is named with its reason, the other one goes on, and the exit status is 1.
"""

import argparse
import itertools
import json
import os
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from measuring import reason, release

from odfa import recipes, train
from odfa.devices import device_named
from odfa.session import RunConfig
from odfa.settings import to_dict
from odfa.store import environment
from odfa.store.folder import read_lines
from odfa.store.provenance import computed_on
from odfa.train import Interrupted

LARGE, SMALL = "manuals_gpt_1b", "manuals_tiny"
_WARM = 20
"""Steps in which code is compiled and torch finds its kernels; a quarter of a run at most."""


@contextmanager
def stopped_after(minutes: float) -> Iterator[None]:
    """Inside, a run gets the signal to stop when the time is over; it writes its checkpoint and raises Interrupted."""
    timer = threading.Timer(60 * minutes, os.kill, (os.getpid(), signal.SIGTERM))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def trained(config: RunConfig, folder: Path, minutes: float) -> dict[str, Any]:
    """One arm: its curve and what it took."""
    device = device_named(config.device)
    accelerated = device.type in ("cuda", "xpu")
    if accelerated:
        torch.get_device_module(device).reset_peak_memory_stats(device)
    start, stopped, result = time.perf_counter(), "", None
    try:
        with stopped_after(minutes):
            result = train.run(config, folder, progress=False)
    except Interrupted as error:
        stopped = f"stopped after {minutes:g} minutes at step {error.step}"
    took_s = time.perf_counter() - start
    peak = torch.get_device_module(device).max_memory_allocated(device) if accelerated else None
    rows, clock = (read_lines(folder / f"{name}.jsonl") for name in ("metrics", "timing"))
    learned = [row for row in rows if "loss" in row]
    return {
        "config": to_dict(config),
        "stopped": stopped,
        "steps": learned[-1]["step"] if learned else 0,
        "tokens": (learned[-1]["step"] if learned else 0) * tokens_a_step(config),
        "tokens_per_s": pace(clock, tokens_a_step(config)),
        "took_s": took_s,
        "peak_device_bytes": peak,
        "result": None if result is None else result.to_json(),
        "loss": [[row["step"], row["loss"]] for row in learned],
        "validation": [row for row in rows if "validation_loss" in row],
        "test": [row for row in rows if "test_loss" in row],
    }


def tokens_a_step(config: RunConfig) -> int:
    """Tokens that are predicted in a step."""
    return config.batch_size * int(config.data.context)  # type: ignore[attr-defined]


def pace(clock: Sequence[dict[str, Any]], tokens: int) -> float | None:
    """Tokens a second: the median over steps behind those that compile, evaluation left out; None without two steps."""
    seconds = sorted({row["step"]: row["seconds"] for row in clock}.items())
    each = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in itertools.pairwise(seconds)]
    counted = each[min(_WARM, len(each) // 4) :]
    return tokens / statistics.median(counted) if counted else None


def measured(arms: Sequence[str], *, small: bool, minutes: float, runs: Path, words: Sequence[str]) -> dict[str, Any]:
    """Every arm that can be trained, and why others cannot."""
    recipe, found, failed, device = SMALL if small else LARGE, {}, {}, torch.device("cpu")
    for arm in arms:
        try:
            _, config = recipes.worded(recipe, [f"arm={arm}", *words])
            device = device_named(config.device)
            needed = config.steps * tokens_a_step(config) / (60 * minutes) if config.steps else 0.0
            print(f"{recipe} arm={arm} on {device}: {needed:,.0f} tokens a second would end in {minutes:g} minutes")
            found[arm] = trained(config, runs / arm, minutes)
            show(arm, found[arm])
        except Exception as error:
            failed[arm] = reason(error)
            print(f"    {arm} failed: {failed[arm]}")
        release(device)
    return {**environment(), **computed_on(device), "small": small, "minutes": minutes, "arms": found, "failed": failed}


def show(arm: str, found: dict[str, Any]) -> None:
    """An arm as soon as it is done."""
    last = found["validation"][-1]["validation_loss"] if found["validation"] else None
    rate, peak = found["tokens_per_s"], found["peak_device_bytes"]
    print(
        f"    {arm}: {found['tokens']:,} tokens in {found['took_s']:.0f} s"
        + (f", {rate:,.0f} a second" if rate else "")
        + (f", peak {peak / 1e9:.1f} GB" if peak else "")
        + (f", validation loss {last:.3f}" if last is not None else "")
        + (f"; {found['stopped']}" if found["stopped"] else "")
    )
    sys.stdout.flush()


def main(words: Sequence[str] | None = None) -> int:
    """Train, print, write.

    Returns:
        1 if an arm failed or was stopped, else 0.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="*", metavar="SETTING=VALUE")
    parser.add_argument("--arms", default="odfa,bp", help="arms of a comparison, one after the other")
    parser.add_argument("--minutes", type=float, default=9.0, help="most for an arm, compilation included")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--runs", type=Path, help="keep the run folders here; left out: they are removed")
    parser.add_argument("--out", type=Path, default=Path("billion.json"))
    given = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as passing:
        runs = given.runs or Path(passing)
        found = measured(
            given.arms.split(","), small=given.small, minutes=given.minutes, runs=runs, words=given.settings
        )
    given.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    unfinished = [arm for arm, each in found["arms"].items() if each["stopped"]]
    print(f"written to {given.out}" + (f"; {len(found['failed'])} failed" if found["failed"] else ""))
    return 1 if found["failed"] or unfinished else 0


if __name__ == "__main__":
    sys.exit(main())
