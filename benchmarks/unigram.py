"""What a language model reaches that knows how frequent each token is and nothing else: the line below which it learns.

    python benchmarks/unigram.py RECIPE [KEY=VALUE ...]

The entropy of the tokens' frequencies in the training part (the recipe's limit set aside), in nats per token.
"""

import argparse
import math
from dataclasses import replace

import torch

from odfa import recipes
from odfa.settings import apply
from odfa.tasks.language.text import MASKED, TextData


def main() -> None:
    """Print entropy, perplexity and the number of tokens."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe")
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_args()
    config = apply(recipes.get(options.recipe), options.overrides)
    assert isinstance(config.data, TextData)
    splits = config.task.load(replace(config.data, limit=None))
    targets_L = splits.train.y_N[splits.train.y_N != MASKED]
    p_V = torch.bincount(targets_L).double() / len(targets_L)
    nats = -torch.special.xlogy(p_V, p_V).sum().item()
    print(f"{len(targets_L):,} tokens: unigram entropy {nats:.3f} nats a token, perplexity {math.exp(nats):.1f}")


if __name__ == "__main__":
    main()
