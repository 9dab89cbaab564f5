"""How the loss of each arm falls with compute: a power law for each, compared with backpropagation's."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from odfa.arms import BACKPROP
from odfa.saved import Json
from odfa.scaling.power import LEAST, LEVEL, MOST, PowerLaw, fit_power_law

COMPUTE = "multiply-adds of forward and backward of backpropagation at that size and those tokens, for all arms"
"""What is meant by compute."""


def fitted_laws(points: Sequence[Mapping[str, Any]], floor: float | None) -> dict[str, PowerLaw]:
    """Arm → the law of its validation losses.

    Args:
        points: runs, each with `arm`, `compute` and `loss`.
        floor: see `fit_power_law`.

    Raises:
        DataError: what `fit_power_law` raises.
    """
    arms = dict.fromkeys(point["arm"] for point in points)
    return {
        arm: fit_power_law(
            *zip(*((p["compute"], p["loss"]) for p in points if p["arm"] == arm), strict=True), floor=floor
        )
        for arm in arms
    }


def law_json(law: PowerLaw) -> Json:
    """The law as plain values; the interval's ends are None where there are none."""
    return {**asdict(law), "level": LEVEL}


def verdicts(laws: Mapping[str, PowerLaw]) -> dict[str, str]:
    """Arm → a sentence on whether its exponent differs from backpropagation's; none without backpropagation."""
    if BACKPROP not in laws:
        return {}
    usual = laws[BACKPROP]
    return {arm: _verdict(arm, law, usual) for arm, law in laws.items() if arm != BACKPROP}


def _verdict(arm: str, law: PowerLaw, usual: PowerLaw) -> str:
    flat = [name for name, one in ((arm, law), (BACKPROP, usual)) if one.exponent is None]
    if flat:
        return f"{arm}: nothing to compare, as the loss of {' and of '.join(flat)} does not fall with compute."
    both = f"{arm}: exponent {exponent_told(law)}, that of {BACKPROP} {exponent_told(usual)}"
    if not min(law.freedom, usual.freedom):
        return f"{both}: too few sizes for an interval, so nothing is said of a difference."
    if (law.high or MOST) < (usual.low or 0.0):
        return f"{both}: smaller, the intervals do not overlap."
    if (usual.high or MOST) < (law.low or 0.0):
        return f"{both}: larger, the intervals do not overlap."
    return f"{both}: not told apart, the intervals overlap."


def exponent_told(law: PowerLaw) -> str:
    """The exponent and its interval in words.

    >>> exponent_told(fit_power_law([1.0, 16.0], [4.0, 2.0]))
    '0.250'
    """
    if law.exponent is None:
        return "none"
    low = f"under {LEAST:g}" if law.low is None else f"{law.low:.3f}"
    high = f"over {MOST:g}" if law.high is None else f"{law.high:.3f}"
    return f"{law.exponent:.3f}" + (f" ({low} to {high})" if law.freedom > 0 else "")
