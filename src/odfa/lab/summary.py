"""Figures over seeds: mean, spread, and the share of the gap between shallow and backprop that an arm closes."""

import math
import statistics
from collections.abc import Mapping, Sequence

from odfa.arms import BACKPROP, SHALLOW


def summarise(values: Mapping[str, Sequence[float]]) -> dict[str, dict[str, float | None]]:
    """Mean and sample standard deviation (None for a single value) per arm."""
    return {
        arm: {"mean": statistics.fmean(of), "std": statistics.stdev(of) if len(of) > 1 else None}
        for arm, of in values.items()
    }


def gap_closed(means: Mapping[str, float], *, metric: str) -> dict[str, float | None]:
    """Share of the shallow → bp gap that each arm closes; empty unless both are among the arms.

        share = (f(mean) - f(shallow)) / (f(bp) - f(shallow)),   f = log for perplexities, else the identity

    None for all if there is no gap.
    """
    if not {BACKPROP, SHALLOW} <= set(means):
        return {}
    scale = math.log if "perplexity" in metric else float
    low, high = scale(means[SHALLOW]), scale(means[BACKPROP])
    return {arm: (scale(mean) - low) / (high - low) if high != low else None for arm, mean in means.items()}
