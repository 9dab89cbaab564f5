"""The outcome of a comparison: runs, tries, and the figures drawn from them."""

from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from odfa.lab.summary import gap_closed, summarise
from odfa.lab.wording import rule_of
from odfa.session import RunConfig
from odfa.store import RunResult
from odfa.store.folder import read_lines


@dataclass(frozen=True, kw_only=True)
class Try:
    """One learning rate on seed 0; `validation` is None if the run diverged."""

    learning_rate: float
    validation: dict[str, float] | None


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One run at its arm's chosen learning rate."""

    arm: str
    """The word that named it: ARM or ARM:RULE, with +key=value for each setting of this arm alone."""
    config: RunConfig
    run_dir: Path
    result: RunResult


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All runs of a comparison; `to_json` is what `odfa compare --json` prints."""

    recipe: str
    metric: dict[str, str]
    trials: list[Trial]
    tries: dict[str, list[Try]]
    paths: dict[str, str] = field(default_factory=dict)
    """Files of the table and of the main figure, as `table` and `figure`."""
    figures: dict[str, str] = field(default_factory=dict)
    """Files of the further figures that were drawn, by their names."""
    references: dict[str, float] = field(default_factory=dict)
    """Test metric of predictions that need no network."""

    def values(self) -> dict[str, list[float]]:
        """Test metric of each seed, per arm."""
        found: dict[str, list[float]] = {}
        for trial in self.trials:
            found.setdefault(trial.arm, []).append(trial.result.metric["value"])
        return found

    def curves(self) -> dict[str, list[list[tuple[int, float]]]]:
        """(step, validation metric) of each seed, per arm."""
        key = f"validation_{self.metric['name']}"
        found: dict[str, list[list[tuple[int, float]]]] = {}
        for trial in self.trials:
            rows = [row for row in read_lines(trial.run_dir / "metrics.jsonl") if isinstance(row.get(key), float)]
            found.setdefault(trial.arm, []).append([(row["step"], row[key]) for row in rows])
        return found

    def gap_curves(self) -> dict[str, list[tuple[int, float]]]:
        """(step, share of the shallow → bp gap closed) on validation data, from means over seeds."""
        means: dict[int, dict[str, float]] = {}
        for arm, of_seeds in self.curves().items():
            # seeds of an arm look at validation at the same steps, so that their points go together
            for points in zip(*of_seeds, strict=True):
                means.setdefault(points[0][0], {})[arm] = fmean(value for _, value in points)
        found: dict[str, list[tuple[int, float]]] = {}
        for step, of_arms in sorted(means.items()):
            for arm, share in gap_closed(of_arms, metric=self.metric["name"]).items():
                if share is not None:
                    found.setdefault(arm, []).append((step, share))
        return found

    def to_json(self) -> dict[str, Any]:
        """The comparison as JSON holds it: every run's figures, their summary, the learning rates."""
        summary = summarise(self.values())
        means = {arm: figures["mean"] for arm, figures in summary.items() if figures["mean"] is not None}
        return {
            "recipe": self.recipe,
            "metric": self.metric,
            "rows": [_row(trial) for trial in self.trials],
            "summary": summary,
            "gap_closed": gap_closed(means, metric=self.metric["name"]),
            **({"references": self.references} if self.references else {}),
            "learning_rates": {arm: _rates(self, arm) for arm in self.tries},
            **self.paths,
            **({"figures": self.figures} if self.figures else {}),
        }


def _row(trial: Trial) -> dict[str, Any]:
    """What JSON says of one run."""
    light = trial.result.light
    return {
        "arm": trial.arm,
        "rule": rule_of(trial.config),
        "seed": trial.config.seed,
        "metric": trial.result.metric["value"],
        "steps": trial.result.steps,
        "seconds": trial.result.seconds,
        "light": {name: light[name] for name in ("frames", "seconds", "joules")},
    }


def _rates(comparison: Comparison, arm: str) -> dict[str, Any]:
    """What JSON says of the learning rates that an arm was tried with."""
    tries = comparison.tries[arm]
    name = comparison.metric["name"]
    chosen = next(t.config.optimizer.learning_rate for t in comparison.trials if t.arm == arm)
    return {
        "chosen": chosen,
        # of two tries both are at the edge, which would say nothing
        "at_edge": len(tries) > 2 and chosen in (tries[0].learning_rate, tries[-1].learning_rate),
        "tries": [
            {"learning_rate": t.learning_rate, "validation": t.validation[name] if t.validation else None}
            for t in tries
        ],
    }
