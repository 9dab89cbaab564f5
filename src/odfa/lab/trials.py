"""A comparison of arms: same data, same seeds, the same number of learning rates tried for each arm."""

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from odfa import train
from odfa.arms import DEFAULT_ARMS, check_apart, parted, trees
from odfa.data import Splits
from odfa.errors import NonFinite
from odfa.lab.beside import run_beside
from odfa.lab.comparison import Comparison, Trial, Try
from odfa.lab.destination import check_folder
from odfa.lab.figures import MAIN, draw_all, found
from odfa.lab.table import write_markdown
from odfa.lab.wording import rate_centre
from odfa.session import RunConfig
from odfa.settings import Settings, require, require_counts
from odfa.store.folder import read_result
from odfa.store.kept import read_kept

Note = Callable[[str], None]
_FACTOR = 3.0
"""Ratio of neighbouring learning rates in the grid."""
_PLAIN = re.compile(r"[a-z0-9_.+=-]{1,100}")
"""Settings that name a folder as they are, in file systems without capital letters too."""


@dataclass(frozen=True, kw_only=True)
class CompareSettings(Settings):
    """Which arms run, on how many seeds, and how many learning rates each tries."""

    arms: tuple[str, ...] = tuple(DEFAULT_ARMS.split(","))
    """Arms, ARM:RULE for another rule than the recipe's, such as dfa:random, or rule:RULE for one that projects
    nothing; behind these +key=value, once or more, for a setting of one arm alone, such as odfa+rule.scale=0.5 (no
    value with a comma). Other settings are applied to every arm that has them, where it has none of its own."""
    seeds: int = 3
    """Runs of each arm, by the seeds from 0 on."""
    tries: int = 3
    """Learning rates of each arm; the best on validation data is chosen."""
    try_steps: int | None = None
    """Steps of a try, whose learning rate follows the same course over fewer steps; none: as many as a run."""
    jobs: int = 1
    """Runs at a time, each in a process of its own; with more than one say threads=1."""

    def __post_init__(self) -> None:
        for name, most in (("seeds", 1_000), ("tries", 100), ("jobs", os.cpu_count() or 1)):
            count = getattr(self, name)
            require(0 < count <= most, name, f"a positive integer up to {most:,}", count)
        require_counts(self, "try_steps", what="a positive integer or none")


def compare(
    config: RunConfig,
    arms: Sequence[str] | Mapping[str, RunConfig] = CompareSettings.arms,
    *,
    seeds: int = CompareSettings.seeds,
    tries: int = CompareSettings.tries,
    try_steps: int | None = CompareSettings.try_steps,
    jobs: int = CompareSettings.jobs,
    out_dir: Path | str,
    centres: Mapping[str, float] | None = None,
    note: Note = lambda _message: None,
) -> Comparison:
    """Run every arm on seeds 0 … seeds - 1 and leave runs, table.md and a file for each figure in `out_dir`.

    Each arm's learning rate is the best of `tries` on validation data: runs of seed 0 at
    centre * 3^k, k = -(tries - 1)/2 … (tries - 1)/2, full ones unless `try_steps` is given; the best full one is also
    the arm's result for seed 0. The test metric of the other tries is computed too, at the end of each run, and
    plays no part. Finished runs in `out_dir` are reused, interrupted ones resumed.

    Args:
        config: the run as light trains it, from which every arm takes its own.
        arms: words of `odfa.arms`, or each word with the tree of its run.
        seeds, tries, try_steps, jobs: see `CompareSettings`.
        out_dir: folder of all runs, made where it is missing.
        centres: centre of an arm's grid; where none is given the config's learning rate, thirty-fold for shallow.
        note: called with one line for each run that begins, each rate that is chosen, each try that diverged.

    Raises:
        ConfigError: unknown arms, two that are the same run, or counts that `CompareSettings` refuses. DataError: runs
            in `out_dir` were trained on other data. NonFinite: every try of an arm diverged. And what `train.run`
            raises.
    """
    CompareSettings(arms=tuple(arms), seeds=seeds, tries=tries, try_steps=try_steps, jobs=jobs)  # refuses bad counts
    configs = dict(arms) if isinstance(arms, Mapping) else trees(config, arms)
    check_apart(configs)
    check_folder(Path(out_dir), "run folder")
    figures = found()  # here, so that a figure that cannot be imported is told before anything is trained
    task = config.task
    metric = task.metric
    runs = _Runs(Path(out_dir), note, jobs, cache(lambda: task.load(config.data)))
    grids = {word: grid((centres or {}).get(word, rate_centre(ours)), tries) for word, ours in configs.items()}
    tried = runs.tune(configs, grids, try_steps)
    rates = {
        word: _choose(word, of_word, metric.name, lower=metric.better == "lower") for word, of_word in tried.items()
    }
    if tries > 1:
        for word, rate in rates.items():
            note(f"{word}: learning rate {rate:g} chosen on validation")
    trials = runs.trials(
        (word, _variant(ours, rates[word], seed)) for word, ours in configs.items() for seed in range(seeds)
    )
    if runs.reused:
        note(f"reused {len(runs.reused)} finished run{'s' if len(runs.reused) > 1 else ''} in {out_dir}")
    comparison = Comparison(
        recipe=config.recipe,
        metric={"name": metric.name, "better": metric.better},
        trials=trials,
        tries=tried,
        references=task.references(config.data),
        paths={"table": str(Path(out_dir) / "table.md")},
    )
    write_markdown(comparison, Path(comparison.paths["table"]))
    drawn = {name: str(path) for name, path in draw_all(figures, comparison, Path(out_dir)).items()}
    return replace(comparison, paths={**comparison.paths, "figure": drawn.pop(MAIN)}, figures=drawn)


def grid(centre: float, tries: int) -> list[float]:
    """`tries` learning rates, geometric around `centre`, to three digits."""
    return [float(f"{centre * _FACTOR ** (k - (tries - 1) / 2):.3g}") for k in range(tries)]


def run_dir_of(arm: str, config: RunConfig, out_dir: Path) -> Path:
    """Folder of one run of a comparison; other arms, and other settings of an arm, have other folders."""
    steps = "" if config.steps is None else f"-{config.steps}steps"
    return out_dir / f"{_file_name(arm)}-lr{config.optimizer.learning_rate:g}-seed{config.seed}{steps}"


def _file_name(word: str) -> str:
    """An arm as a part of a file's name: where its settings have other than plain letters, with digits of a digest."""
    name, own = parted(word)
    behind = "".join(f"+{setting}" for setting in own)
    if own and not _PLAIN.fullmatch(behind):
        behind = f"{re.sub('[^A-Za-z0-9_.+=-]', '-', behind)[:100]}-{hashlib.sha256(behind.encode()).hexdigest()[:8]}"
    return name.replace(":", "-") + behind


def _variant(config: RunConfig, rate: float, seed: int) -> RunConfig:
    return replace(config, seed=seed, optimizer=replace(config.optimizer, learning_rate=rate))


class _Runs:
    """The runs of a comparison in one folder; `reused` are those that were finished before."""

    def __init__(self, out_dir: Path, note: Note, jobs: int, data: Callable[[], Splits]) -> None:
        self.reused: set[Path] = set()
        self._out_dir, self._note, self._jobs, self._done = out_dir, note, jobs, set[Path]()
        self._data = data

    def tune(
        self, configs: Mapping[str, RunConfig], grids: Mapping[str, list[float]], try_steps: int | None
    ) -> dict[str, list[Try]]:
        """Every arm at every rate of its grid on seed 0, full runs or `try_steps` long."""
        short = {word: ours if try_steps is None else replace(ours, steps=try_steps) for word, ours in configs.items()}
        self._ahead((word, _variant(short[word], rate, 0)) for word, rates in grids.items() for rate in rates)
        return {word: [self.attempt(word, _variant(short[word], rate, 0)) for rate in grids[word]] for word in grids}

    def trials(self, runs: Iterable[tuple[str, RunConfig]]) -> list[Trial]:
        """These runs, trained unless they are finished."""
        listed = list(runs)
        self._ahead(listed)
        return [self.trial(word, config) for word, config in listed]

    def _ahead(self, runs: Iterable[tuple[str, RunConfig]]) -> None:
        """With several jobs: train unfinished runs in processes of their own; `trial` then reads their results."""
        if self._jobs == 1:
            return
        folders = {run_dir_of(word, config, self._out_dir): config for word, config in runs}
        new = {run_dir: config for run_dir, config in folders.items() if read_result(run_dir) is None}
        for run_dir in new:
            self._note(f"{new[run_dir].recipe} {run_dir.name} …")
        run_beside(new, self._jobs)
        self._done |= {run_dir for run_dir in new if read_result(run_dir) is not None}

    def attempt(self, arm: str, config: RunConfig) -> Try:
        """One learning rate on seed 0."""
        rate = config.optimizer.learning_rate
        try:
            return Try(learning_rate=rate, validation=self.trial(arm, config).result.validation)
        except NonFinite as error:
            self._note(f"{arm} at learning rate {rate:g} diverged: {error}")
            return Try(learning_rate=rate, validation=None)

    def trial(self, arm: str, config: RunConfig) -> Trial:
        """The run, trained unless it is finished."""
        run_dir = run_dir_of(arm, config, self._out_dir)
        if run_dir not in self._done and read_result(run_dir) is not None:
            read_kept(run_dir).check(self._data(), run_dir)
            self.reused.add(run_dir)
        self._done.add(run_dir)
        result = train.run(
            config, run_dir, resume=True, note=lambda _where: self._note(f"{config.recipe} {run_dir.name} …")
        )
        return Trial(arm=arm, config=config, run_dir=run_dir, result=result)


def _choose(arm: str, tries: list[Try], metric: str, *, lower: bool) -> float:
    """The rate of the best validation metric; of equal metrics, the one with the lower validation loss."""
    finished = [(t.validation, t.learning_rate) for t in tries if t.validation is not None]
    if not finished:
        rates = ", ".join(f"{t.learning_rate:g}" for t in tries)
        raise NonFinite(f"{arm} diverged at every learning rate tried ({rates}); lower optimizer.learning_rate")
    return min(finished, key=lambda pair: (pair[0][metric] * (1 if lower else -1), pair[0]["loss"]))[1]
