"""Ternary codes of a language model's error as the model sharpens: what each keeps, and how many frames it takes.

    python benchmarks/quantisers.py [--recipe dialogue_tiny] [--at 0,100,300,1000] [--rows 512]

The recipe is trained by digital feedback. At the steps asked for, the errors of validation tokens are coded: noise is
the mean square of (code - error) over that of the error, in decibels; a projection passes it on unchanged. The cosine
is that of all rows together, which a code that is only right on the average keeps; frames are those of four reference
phases.
"""

import argparse
import itertools
import math
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, one_hot

from odfa import Ternary, recipes, train
from odfa.session import build
from odfa.session.assembly import Session
from odfa.tasks.language.text import MASKED

CODES = {
    "sampled, 1 draw": Ternary("sampled"),
    "sampled, 2 draws": Ternary("sampled", repeats=2),
    "sampled, 4 draws": Ternary("sampled", repeats=4),
    "sampled, 8 draws": Ternary("sampled", repeats=8),
    "stochastic, 1 draw": Ternary("stochastic"),
    "stochastic, 4 draws": Ternary("stochastic", repeats=4),
    "best_cosine": Ternary("best_cosine"),
    "relative_max, 0.5": Ternary("relative_max"),
}
_PHASES = 4


def errors(session: Session, rows: int) -> Tensor:
    """Softmax less target of the first validation tokens, (rows, V)."""
    part = session.splits.validation.head(-(-rows // session.splits.validation.x_ND.shape[1]))
    with torch.no_grad():
        p_ND = session.model(input_ids=part.x_ND).logits.flatten(0, 1).float().softmax(1)
    target_N = part.y_N.flatten()
    e_ND = p_ND - one_hot(target_N.clamp(min=0), p_ND.shape[1])
    return e_ND[target_N != MASKED][:rows]


def table(e_ND: Tensor) -> Iterator[str]:
    """A row per code."""
    for name, code in CODES.items():
        frames = code.encode(e_ND)
        coded_ND = frames.values()
        noise = (coded_ND - e_ND).square().sum() / e_ND.square().sum()
        together = cosine_similarity(coded_ND.flatten(), e_ND.flatten(), dim=0).item()
        lit = frames.bits_NFD.float().sum((1, 2)).mean().item()
        yield (
            f"{name:<20} {10 * math.log10(noise.item()):8.1f} dB {together:8.3f} {lit:10.1f} "
            f"{code.patterns_per_sample * _PHASES:8d}"
        )


def main() -> None:
    """Print a table at each of the steps."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="dialogue_tiny")
    parser.add_argument("--at", default="0,100,300,1000")
    parser.add_argument("--rows", type=int, default=512)
    options = parser.parse_args()
    at = sorted(int(step) for step in options.at.split(","))
    config = replace(recipes.get(options.recipe, "dfa"), steps=max(1, at[-1]))
    torch.set_num_threads(config.threads or torch.get_num_threads())
    session = build(config)
    for batch in itertools.chain([None], train.batches(session)):
        if batch is not None:
            train.train_step(session, batch)
        if session.step in at:
            e_ND = errors(session, options.rows)
            largest = e_ND.abs().max(1).values.mean().item()
            print(f"step {session.step}: largest entry {largest:.2f} on the average, of {e_ND.shape[1]}")
            print(f"{'code':<20} {'noise':>11} {'cosine':>8} {'lit mirrors':>11} {'frames':>8}")
            print("\n".join(table(e_ND)), flush=True)


if __name__ == "__main__":
    main()
