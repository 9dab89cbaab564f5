"""Peak memory and step time of a GPT by backpropagation and by DFA, with everything kept and with little.

    python benchmarks/memory.py [--recipe dialogue_gpt_100m] [--steps 3] [--json]

Each way runs in a process of its own. Peak: largest resident size, less what interpreter, libraries and a few sequences
of data take before the model is built. Bound: weights and optimiser state, which no way can do without.
"""

import argparse
import json
import subprocess
import sys
import time
from dataclasses import replace
from typing import Any

import psutil
import torch

from odfa import recipes, train
from odfa.arms import name_of
from odfa.session import MemorySettings, RunConfig, build
from odfa.train.monitor import peak_memory_bytes

ROWS = 256
"""Tokens whose logits are there at a time."""
WAYS: dict[str, tuple[str, MemorySettings]] = {
    "bp": ("bp", MemorySettings()),
    "bp, checkpointing": ("bp", MemorySettings(activations="recompute")),
    "bp, head in rows": ("bp", MemorySettings(head_rows=ROWS)),
    "bp, checkpointing, fused": ("bp", MemorySettings(activations="recompute", fused=True)),
    "odfa": ("odfa", MemorySettings()),
    "odfa, recompute, fused": ("odfa", MemorySettings(activations="recompute", fused=True)),
    "odfa, stream, fused": ("odfa", MemorySettings(activations="stream", fused=True)),
    "odfa, stream, fused, head in rows": ("odfa", MemorySettings(activations="stream", fused=True, head_rows=ROWS)),
}


def config_of(recipe: str, way: str) -> RunConfig:
    """The recipe's model, batch and precision under another arm with another memory."""
    arm, memory = WAYS[way]
    run = recipes.get(recipe, arm)
    return replace(
        run,
        data=replace(run.data, limit=8 * run.batch_size),
        memory=replace(memory, precision=run.memory.precision),
        optimizer=replace(run.optimizer, clip_norm=None),
    )


def measure(config: RunConfig, steps: int) -> dict[str, Any]:
    """Bytes above the start, bytes of weights and moments, seconds of the fastest step."""
    torch.set_num_threads(config.threads or torch.get_num_threads())
    build(recipes_tiny(config))  # everything that a run imports
    before = psutil.Process().memory_info().rss
    session = build(config)
    batch, seconds = session.splits.train.head(config.batch_size), []
    for _ in range(steps):
        start = time.perf_counter()
        train.train_step(session, batch)
        seconds.append(time.perf_counter() - start)
    weights = sum(p.numel() * p.element_size() for p in session.model.parameters())
    return {"peak": peak_memory_bytes() - before, "bound": 3 * weights, "seconds": min(seconds)}


def recipes_tiny(config: RunConfig) -> RunConfig:
    """The smallest model of the same kind."""
    tiny = recipes.get("dialogue_tiny", name_of(config))
    return replace(tiny, data=replace(tiny.data, limit=16))


def main() -> None:
    """Print one row per way."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="dialogue_gpt_100m")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--way", choices=WAYS, help="this one only, in this process")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.way:
        print(json.dumps(measure(config_of(options.recipe, options.way), options.steps)))
        return
    rows = {}
    for way in WAYS:
        words = [sys.executable, __file__, "--recipe", options.recipe, "--steps", str(options.steps), "--way", way]
        rows[way] = json.loads(
            subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
        )
    if options.json:
        print(json.dumps({"recipe": options.recipe, "rows": rows}))
        return
    for way, row in rows.items():
        share = row["peak"] / row["bound"]
        print(f"{way:<26} {row['peak'] / 2**20:8,.0f} MiB  {share:5.2f} x weights and moments  {row['seconds']:6.1f} s")


if __name__ == "__main__":
    main()
