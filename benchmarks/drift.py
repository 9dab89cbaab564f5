"""Accuracy against drift of the interferometer: which demodulators keep learning, and which only seem to.

    python benchmarks/drift.py [--recipe fashion_mlp_tiny] [--seeds 5] [--out DIR] [key=value ...]

Every run is one of the recipe through the twin whose reference phase drifts by the same total angle from the first step
to the last, at a rate that follows from the run's own light time. "unprotected" turns the guard off; "re-phased" looks
at witness patterns and takes the phase out; an anchor needs no phase. Finished runs in DIR are reused. Writes drift.png
and drift.json to DIR and prints a table.
"""

import argparse
import json
import math
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot

from odfa import recipes, settings, train
from odfa.demodulate import AnchorSettings, DemodulatorSettings, OffAxisSettings, PhaseStepsSettings
from odfa.project import Guard
from odfa.session import RunConfig
from odfa.session.plan import dry_run

WAYS: dict[str, tuple[DemodulatorSettings, Guard | None]] = {
    "phase steps, unprotected": (PhaseStepsSettings(), None),
    "phase steps, re-phased": (PhaseStepsSettings(), Guard()),
    "off-axis, unprotected": (OffAxisSettings(), None),
    "off-axis, re-phased": (OffAxisSettings(), Guard()),
    "anchor": (AnchorSettings(), Guard()),
}
STYLES = ["s:", "s-", "o:", "o-", "^-"]
COLOURS = ["#E69F00", "#E69F00", "#0072B2", "#0072B2", "#009E73"]


def variant(base: RunConfig, name: str, total_rad: float, seed: int) -> RunConfig:
    """The run of one demodulator whose reference drifts by `total_rad` in all."""
    demodulator, guard = WAYS[name]
    run = replace(base, seed=seed, tensorboard=False)
    run = replace(run, projection=replace(run.projection, demodulator=demodulator, guard=guard))
    if not total_rad:
        return run
    rate = total_rad / dry_run(run)["light"]["seconds"]
    return settings.apply(run, [f"opu.drift.phase_drift_rad_per_s={rate!r}"])


def main() -> None:
    """Run the grid, print it, draw it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--recipe", default="fashion_mlp_tiny")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--angles", type=float, nargs="+", default=[0.0, 0.5, 1.0, math.pi / 2, 2.0, math.pi])
    parser.add_argument("--out", type=Path, default=Path("runs/drift"))
    parser.add_argument("settings", nargs="*")
    arguments = parser.parse_args()
    base = settings.apply(recipes.get(arguments.recipe, "odfa"), arguments.settings)
    found: dict[str, dict[float, list[float]]] = {}
    for name in WAYS:
        for angle in arguments.angles:
            runs = [
                train.run(
                    run,
                    arguments.out / f"{name}-{angle:.2f}-seed{run.seed}".replace(", ", "-").replace(" ", "-"),
                    resume=True,
                )
                for run in (variant(base, name, angle, seed) for seed in range(arguments.seeds))
            ]
            found.setdefault(name, {})[angle] = [run.metric["value"] for run in runs]
            values = found[name][angle]
            print(f"{name:26} {angle:5.2f} rad  {100 * sum(values) / len(values):6.2f} %  {values}", flush=True)
    (arguments.out / "drift.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
    draw(found, arguments.recipe, arguments.out / "drift.png")


def draw(found: dict[str, dict[float, list[float]]], recipe: str, path: Path) -> None:
    """Mean and range over seeds of the test accuracy against the total drift."""
    figure, axes = pyplot.subplots(figsize=(7, 4.2), layout="constrained")
    for (name, of_angle), style, colour in zip(found.items(), STYLES, COLOURS, strict=True):
        angles, columns = list(of_angle), list(of_angle.values())
        means = [sum(column) / len(column) for column in columns]
        axes.plot(angles, means, style, color=colour, label=name, linewidth=2)
        lowest, highest = [min(column) for column in columns], [max(column) for column in columns]
        axes.fill_between(angles, lowest, highest, color=colour, alpha=0.12, linewidth=0)
    axes.set(xlabel="drift of the reference phase during the run, rad", ylabel="test accuracy", title=recipe)
    axes.yaxis.set_major_formatter(lambda value, _position: f"{100 * value:.4g} %")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
