"""One error row per patch against one per image: the loss of a denoiser, and the rows that light would have to carry.

    python benchmarks/error_rows.py --steps 300

Digital projections, so that nothing but the rows differs; the recipe is fashion_diffusion.
"""

import argparse
from dataclasses import replace

import torch

from odfa import DFA, AlignedHead, Gaussian, RandomFeedback, recipes, train
from odfa.arms import arm
from odfa.errors import NonFinite
from odfa.session import build
from odfa.session.handle import fed

ARMS = {
    "backpropagation": None,
    "shallow": None,
    "aligned, a row per patch": (AlignedHead(scale=0.5, rank=6), "logits", 16),
    "random, a row per patch": (RandomFeedback(), "logits", 16),
    "random, a row per image": (RandomFeedback(), "output", 1),
}


def measure(name: str, steps: int, rate: float) -> float:
    """Validation loss after `steps` steps."""
    recipe = recipes.whole("fashion_diffusion")
    config = arm(recipe, "shallow" if name == "shallow" else "bp")
    config = replace(config, steps=steps, optimizer=replace(config.optimizer, learning_rate=rate, average=None))
    session = build(config)
    if ARMS[name] is not None:
        rule, error_at, _ = ARMS[name]
        blocks = fed(recipe, config.network.blocks)
        session.dfa = DFA(session.model, blocks=blocks, projection=Gaussian(seed=0), rule=rule, error_at=error_at)
    for batch in train.batches(session):
        train.train_step(session, batch)
    return session.task.evaluate(session.model, session.splits.validation)["loss"]


def main() -> None:
    """Print a line per arm."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rate", type=float, default=2e-3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name, fed_by in ARMS.items():
        rows = "" if fed_by is None else f"{fed_by[2]} rows an image"
        try:
            loss = f"{measure(name, arguments.steps, arguments.rate):.4f}"
        except NonFinite:
            loss = "diverged"
        print(f"{name:<28} {loss}  {rows}", flush=True)


if __name__ == "__main__":
    main()
