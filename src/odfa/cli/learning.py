"""`odfa study learning`: how the loss of each arm falls with compute, on one recipe at several sizes."""

import math
from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from odfa.arms import GROWING_ARMS, check_apart, trees
from odfa.cli.arm_words import (
    SEVERAL,
    CompareWords,
    beside,
    common,
    kept,
    refuse_singles,
    refuse_without_effect,
    say_electronic,
    told_apart,
)
from odfa.cli.command import Outcome, note, print_table, say
from odfa.cli.help import CUT, listing, parts_of
from odfa.cli.quantities import short
from odfa.files import write_file
from odfa.lab import Comparison, compare
from odfa.lab.destination import check_folder, writing
from odfa.saved import Json, to_json
from odfa.scaling.sizes import Sized, SizesSettings, check_alike, sized, spans
from odfa.session import RunConfig
from odfa.session.assembly import check_fit
from odfa.settings import INLINE

USUAL = "deep_gpt"
"""Recipe that is studied if none is named."""
_FOLDER = Path("runs/study-learning")
_DERIVED = {
    **SEVERAL,
    "steps": "tokens_per_parameter=20",
    "epochs": "tokens_per_parameter=20",
    "network.heads": "head_width=32",
}
_GROWS = {"width": ("network.width", "sizes=32,64,128"), "depth": ("network.layers", "sizes=4,8,16")}
"""Axis → setting of the network that the sizes are of, and what is written instead."""


@dataclass(frozen=True, kw_only=True)
class LearningWords(CompareWords):
    """Settings of the study; those of all its runs are below."""

    arms: tuple[str, ...] = tuple(GROWING_ARMS.split(","))
    seeds: int = 1
    """Runs of each arm at each size, by the seeds from 0 on."""
    tries: int = 1
    """Learning rates of each arm at each size; the best on validation data is chosen."""
    growth: SizesSettings = field(default_factory=SizesSettings, metadata=INLINE)
    """Which sizes, and how much they learn from."""


def listed_learning(words: list[str]) -> str:
    """Every setting of the study and of the recipe among the words."""
    from odfa import recipes

    name, settings = parts_of(words)
    tree = common(LearningWords(run=recipes.whole(name or USUAL)), settings)
    without = {**_DERIVED, _GROWS[tree.growth.axis][0]: ""}
    return f"settings ({CUT}):\n\n{listing(tree, without=without)}"


def study_learning(arguments: Namespace) -> Outcome:
    """Train every arm at every size, fit the losses over compute, write learning.json and learning.png.

    Raises:
        ConfigError: words that do not hold. And what `compare` raises.
    """
    from odfa import recipes

    name, settings = arguments.recipe or USUAL, list(arguments.settings)
    if "=" in name:  # no recipe is named, and the first setting stands in its place
        name, settings = USUAL, [name, *settings]
    tree = LearningWords(run=recipes.whole(name))
    words = common(tree, settings)
    refuse_singles(settings, {**_DERIVED, **dict([_GROWS[words.growth.axis]])})
    refuse_without_effect(tree, words, settings)
    own = beside(tree, settings)
    folder = check_folder(arguments.run_dir or _default_run_dir(words, own), "run folder")
    sizes = sized(words.run, words.growth)
    arms = {size.name: _arms(size, words, own) for size in sizes}
    planned = {
        "recipe": words.run.recipe,
        "axis": words.growth.axis,
        "arms": list(words.arms),
        "tokens_per_parameter": words.growth.tokens_per_parameter,
        "sizes": [size.to_json() for size in sizes],
    }
    if arguments.dry_run:
        return Outcome(json=planned, show=lambda: _show_sizes(planned, sizes))
    with kept("odfa study learning"):
        trained = list(_trained(sizes, arms, words, folder))
    found = _learned(planned, sizes, trained, words.growth.floor, folder)
    return Outcome(json=found, show=lambda: _show(found, trained[-1]))


def _default_run_dir(words: LearningWords, own: Sequence[str]) -> Path:
    """The usual folder; where the runs' settings differ from the usual ones, with eight digits that tell them apart."""
    from odfa import recipes

    usual = LearningWords(run=recipes.whole(USUAL))
    marks = [
        told_apart(one.run, f"{one.growth.head_width} {one.growth.tokens_per_parameter}", *of_rules)
        for one, of_rules in ((usual, ()), (words, own))
    ]
    return _FOLDER if marks[0] == marks[1] else _FOLDER.with_name(f"{_FOLDER.name}-{marks[1]}")


def _arms(size: Sized, words: LearningWords, own: Sequence[str]) -> dict[str, RunConfig]:
    """Arm → its tree at a size, all of them checked before anything is trained."""
    made = trees(size.run, words.arms, own)
    check_apart(made)
    check_alike(size, made)
    shape = size.run.data.peek()
    for config in made.values():
        check_fit(config, shape)
    return made


def _trained(
    sizes: Sequence[Sized], arms: dict[str, dict[str, RunConfig]], words: LearningWords, folder: Path
) -> Iterator[Comparison]:
    """A comparison for each size, in a folder of its own."""
    for size in sizes:
        note(f"{size.name}: {size.tokens:,} tokens, {short(size.compute)} multiply-adds for each arm …")
        yield compare(
            size.run,
            arms[size.name],
            seeds=words.seeds,
            tries=words.tries,
            try_steps=words.try_steps,
            jobs=words.jobs,
            out_dir=folder / size.name,
            note=note,
        )


def _learned(
    planned: Json, sizes: Sequence[Sized], trained: Sequence[Comparison], floor: float | None, folder: Path
) -> Json:
    """Runs, laws, sentences and the environment; written into the folder, with the figure."""
    from odfa.lab.figures.panels import styles_of
    from odfa.lab.learning import draw_learning
    from odfa.scaling.learning import COMPUTE, exponent_told, fitted_laws, law_json, verdicts
    from odfa.store import environment

    points = [point for size, comparison in zip(sizes, trained, strict=True) for point in _points(size, comparison)]
    laws = fitted_laws(points, floor)
    file, figure = folder / "learning.json", folder / "learning.png"
    found = {
        **planned,
        "compute": COMPUTE,
        "points": points,
        "fits": {arm: law_json(law) for arm, law in laws.items()},
        "verdicts": verdicts(laws),
        "environment": environment(),
        "files": [str(file), str(figure)],
    }
    labels = {arm: f"{arm}, b = {exponent_told(law)}" for arm, law in laws.items()}
    draw_learning(found, labels, styles_of(trained[-1]), figure)
    with writing(file):
        write_file(file, to_json(found, indent=1, sort_keys=False))
    return found


def _points(size: Sized, comparison: Comparison) -> Iterator[Json]:
    """What is kept of each run at a size."""
    for trial in comparison.trials:
        yield {
            "arm": trial.arm,
            "size": size.name,
            "seed": trial.config.seed,
            "compute": size.compute,
            "loss": trial.result.validation["loss"],
            "seconds": trial.result.seconds,
            "learning_rate": trial.config.optimizer.learning_rate,
            "light_s": trial.result.light["seconds"],
        }


def _show_sizes(planned: Json, sizes: Sequence[Sized]) -> None:
    columns = ("size", "width", "blocks", "heads", "parameters", "blocks and head", "tokens", "steps", "passes")
    rows = [
        (
            *(row[key] for key in ("name", "width", "layers", "heads")),
            *(short(row[key]) for key in ("parameters", "in_blocks_and_head", "tokens", "steps")),
            f"{row['passes']:.2f}",
            short(row["compute"]),
        )
        for row in planned["sizes"]
    ]
    print_table(
        (*columns, "compute"),
        rows,
        title=f"{planned['recipe']}, {planned['axis']} growing, arms {','.join(planned['arms'])}",
    )
    say(
        f"Compute is in multiply-adds of backpropagation, the same for all arms; it grows {spans(sizes):,.0f}-fold. "
        "passes: over the training part."
    )


def _show(found: Json, largest: Comparison) -> None:
    from odfa.lab.table import electronic_parts, footnotes

    names = [size["name"] for size in found["sizes"]]
    rows = [_cells(found, arm, names) for arm in found["fits"]]
    columns = ["arm", *names, "a", "b, 90 % interval", "L_inf", "train time"]
    print_table(columns, rows, title=f"{found['recipe']}: validation loss, nats a token, and L(C) = L_inf + a C^(-b)")
    say(f"C: {found['compute']}: " + ", ".join(short(size["compute"]) for size in found["sizes"]) + ".")
    say("\n".join(found["verdicts"].values() or ["bp is not among the arms, so no exponent is compared with its own."]))
    say_electronic(electronic_parts(largest))
    say("\n".join(footnotes(largest)))
    say("\n".join(f"written: {path}" for path in found["files"]))


def _cells(found: Json, arm: str, names: Sequence[str]) -> list[str]:
    from odfa.scaling.learning import exponent_told
    from odfa.scaling.power import PowerLaw

    runs = [point for point in found["points"] if point["arm"] == arm]
    losses = {name: [point["loss"] for point in runs if point["size"] == name] for name in names}
    fit: dict[str, Any] = {key: value for key, value in found["fits"][arm].items() if key != "level"}
    law = PowerLaw(**fit)
    return [
        arm,
        *(f"{math.fsum(losses[name]) / len(losses[name]):.4f}" for name in names),
        "–" if law.scale is None else short(law.scale),
        exponent_told(law),
        f"{law.floor:.3f}" + ("" if law.fitted_floor else " (held)"),
        f"{sum(point['seconds'] for point in runs):,.0f} s",
    ]
