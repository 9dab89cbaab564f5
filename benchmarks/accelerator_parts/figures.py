"""The figures that the benchmark is for: what each is a ratio of, and what is asked of it."""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from measuring import ratios, typical

from accelerator_parts.found import Found


@dataclass(frozen=True, kw_only=True)
class Figure:
    """The median over rounds of `over`, or of `over` divided by `under` in the same round."""

    name: str
    part: str
    over: str
    under: str | None = None
    at_most: float | str | None = None
    """The ask; a string: the value of another figure."""
    at_least: float | None = None


def _steps() -> list[Figure]:
    asks: dict[str, tuple[float | str | None, float | str | None]] = {
        "aligned, exact error": (0.95, 1.0),
        "aligned, four draws": ("aligned, exact error: {}", "aligned, exact error: {}"),
        "aligned, twin opu-2021": (1.3, 1.3),
        "random feedback, a slice a block, Hadamard": (1.3, 1.3),
        "aligned, sublayer": (None, 0.9),
        "aligned, linear, bfloat16 weights": (None, 0.8),
    }
    found = []
    for name, at_most in asks.items():
        bp = "bp, bfloat16 weights" if "weights" in name else "bp"
        for how, most in zip(("eager", "compiled"), at_most, strict=True):
            told = f"{how} over {how} bp"
            ask = most.format(told) if isinstance(most, str) else most
            ways = {"over": f"{name}, {how}", "under": f"{bp}, {how}"}
            found.append(Figure(name=f"{name}: {told}", part="steps", at_most=ask, **ways))
    return found


def _memory() -> list[Figure]:
    asks = {"aligned, exact error": 0.8, "aligned, exact error, stream": 0.5}
    whole = [
        Figure(name=f"peak memory, {name}: over compiled bp", part="memory", over=name, under="bp", at_most=most)
        for name, most in asks.items()
    ]
    rows = ", head in rows"
    return whole + [
        Figure(name=f"peak memory, {name}{rows}: over compiled bp{under}", part="memory", over=name + rows,
               under="bp" + under, at_most=None if under else most)
        for name, most in asks.items()
        for under in ("", rows)
    ]  # fmt: skip


TABLE = (
    *_steps(),
    *_memory(),
    Figure(name="2^20 -> 2^21, float32: vectors a second", part="projections", over="widest: Hadamard float32",
           at_least=40_000),
    Figure(name="2^20 -> 2^21, half: vectors a second", part="projections", over="widest: Hadamard bfloat16",
           at_least=80_000),
    Figure(name="10,000 -> 10,000: over the bfloat16 product", part="projections", over="square: Hadamard bfloat16",
           under="square: dense bfloat16", at_least=1),
    Figure(name="twin, full off-axis frames a second", part="frames", over="capture", at_least=5_000),
    Figure(name="1.3 billion parameters, odfa: tokens a second over compiled bp", part="billion", over="odfa",
           under="bp", at_least=0.8),
)  # fmt: skip
"""In this order they are printed."""


def evaluated(parts: Mapping[str, Found], *, asks: bool = True) -> dict[str, dict[str, Any]]:
    """Value and ask of every figure by name, or why there is none: its part was left out, or something failed."""
    found: dict[str, dict[str, Any]] = {}
    for figure in TABLE:
        part = parts.get(figure.part)
        if part is None:
            found[figure.name] = {"left_out": f"--only {figure.part}"}
            continue
        lacks = [key for key in (figure.over, figure.under) if key is not None and key not in part.measured]
        if lacks:
            found[figure.name] = {"failed": f"{lacks[0]}: {part.why_not(lacks[0])}"}
            continue
        over = part.measured[figure.over]
        value = typical(over) if figure.under is None else typical(ratios(over, part.measured[figure.under]))
        found[figure.name] = {"value": value, "over": figure.over, "under": figure.under}
        if asks:
            found[figure.name] |= _asked(figure, value, found)
    return found


def _asked(figure: Figure, value: float, found: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """The ask as a number and whether it is met; nothing where nothing is asked, or what it is compared with failed."""
    ask = figure.at_least if figure.at_most is None else figure.at_most
    number = found[ask].get("value") if isinstance(ask, str) else ask
    if number is None:
        return {}
    side = "at_least" if figure.at_most is None else "at_most"
    return {side: number, "met": value >= number if side == "at_least" else value <= number}


def told(figures: Mapping[str, dict[str, Any]], parts: Mapping[str, Found]) -> list[str]:
    """The table, a line for each figure."""
    lines = []
    for figure in TABLE:
        found = figures[figure.name]
        if "value" not in found:
            why = f"failed: {found['failed']}" if "failed" in found else f"left out: {found['left_out']}"
            lines.append(f"{figure.name:70} {why}")
            continue
        ask = "".join(f"  ask {sign} {found[key]:,.4g}" for key, sign in _SIGNS.items() if key in found)
        verdict = {True: "met", False: "missed", None: ""}[found.get("met")]
        from_what = _from_what(figure, parts[figure.part])
        lines.append(f"{figure.name:70} {found['value']:10,.4g}{ask:18} {verdict:7} {from_what}".rstrip())
    return lines


_SIGNS = {"at_most": "<=", "at_least": ">="}


def _from_what(figure: Figure, part: Found) -> str:
    """The medians behind a ratio."""
    if figure.under is None:
        return ""
    over, under = (statistics.median(part.measured[key]) for key in (figure.over, figure.under))
    return f"{over:,.4g} / {under:,.4g} {part.unit}"
