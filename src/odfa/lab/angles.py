"""The angle between what the blocks of a run learn by and their true gradient."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from odfa.arms import name_of
from odfa.data import needs
from odfa.devices import check_name
from odfa.errors import ConfigError
from odfa.keys import forked
from odfa.lab.canvas import new_figure, open_frame, save_figure
from odfa.lab.destination import check_figure
from odfa.lab.wording import rule_of
from odfa.session import build
from odfa.session.memory import multiplying
from odfa.settings import Settings
from odfa.store.checkpoint import newest, restore
from odfa.store.folder import check_unchanged, read_config, read_lines
from odfa.store.kept import read_kept
from odfa.store.placed import device_of_run
from odfa.train.alignment import alignment_batch, check_measurable, measure_alignment


@dataclass(frozen=True, kw_only=True)
class AlignSettings(Settings):
    """Where the angles are measured and drawn."""

    device: str | None = None
    """Where they are measured: cpu, cuda, cuda:N, mps, xpu, xpu:N or auto; none: where the run was trained."""

    out: Path | None = None
    """File to draw into, such as angles.png: the angles over training, which align_every measured; none: no picture."""

    def __post_init__(self) -> None:
        if self.device is not None:
            check_name(self.device)


def align(run_dir: Path | str, settings: AlignSettings | None = None) -> dict[str, Any]:
    """Cosine between local and true gradient and both norms, per block, on one batch of the validation part.

    The newest checkpoint is used; the run folder is not changed. A cosine is None where a gradient is exactly zero.

    Raises:
        RunFolderError: not a run folder, or the figure cannot be written. CheckpointError: no checkpoint yet, or a
            corrupt or foreign one.
        DataError: the run's data are missing or have changed. MissingExtra: a figure without matplotlib.
        ConfigError: the run has no feedback to measure; a device that this machine lacks; a figure of a run that
            measured no angles as it learned, or a file that no figure can be drawn into.
    """
    settings = settings or AlignSettings()
    path, out = Path(run_dir), settings.out
    if out is not None:
        check_figure(out, "out")
        measured_angles(path)
    found = _measured(path, settings.device)
    if out is not None:
        draw_alignment(path, out)
        found["figure"] = str(out)
    return found


def _measured(path: Path, asked: str | None) -> dict[str, Any]:
    """The angles of the newest checkpoint, on the device that is asked for or the run's own."""
    config = read_config(path)
    device = device_of_run(config, asked)
    check_unchanged(path)
    check_measurable(config, f"{path}: ")
    kept = read_kept(path)
    # building a run draws its weights, which are overwritten: the caller's random numbers go on as if nothing was
    with forked([device]):
        session = build(config if asked is None else replace(config, device=asked))
    kept.check(session.splits, path)
    newest(path, lambda checkpoint: restore(session, checkpoint))
    with multiplying(config.memory.precision):
        angles = measure_alignment(session)
    return {
        "run": str(path),
        "recipe": config.recipe,
        "arm": name_of(config),
        "rule": rule_of(config),
        "device": str(device),
        "step": session.step,
        "samples": len(alignment_batch(session)),
        "blocks": [
            {
                "name": name,
                "cosine": None if math.isnan(cosine) else cosine,
                "norm": angles.norms[name][0],
                "true_norm": angles.norms[name][1],
            }
            for name, cosine in angles.items()
        ],
    }


def measured_angles(run_dir: Path | str) -> list[dict[str, Any]]:
    """Rows of metrics with angles that the run measured as it learned.

    Raises:
        RunFolderError: not a run folder. ConfigError: it measured none.
    """
    read_config(run_dir)  # says best that there is no run
    rows = [row for row in read_lines(Path(run_dir) / "metrics.jsonl") if "alignment" in row]
    if not rows:
        raise ConfigError(f"{run_dir} measured no angles as it learned; train it with align_every=STEPS")
    return rows


def draw_alignment(run_dir: Path | str, path: Path) -> None:
    """Draw the angles that a run measured as it learned (`align_every`): one curve per block, last block darkest.

    Raises:
        RunFolderError: not a run folder, or the figure cannot be written. MissingExtra: matplotlib is absent.
        ConfigError: the run measured no angles, or a file that no figure can be drawn into.
    """
    with needs("matplotlib", "figures"):
        from matplotlib import colormaps
    check_figure(path, "out")
    config, rows = read_config(run_dir), measured_angles(run_dir)
    blocks = list(dict.fromkeys(name for row in rows for name in row["alignment"]))
    figure = new_figure(6, 3.6)
    axes = figure.subplots()
    for number, block in enumerate(blocks):
        curve = [(row["step"], row["alignment"][block]) for row in rows if block in row["alignment"]]
        colour = colormaps["viridis_r"](0.15 + 0.85 * number / max(1, len(blocks) - 1))
        axes.plot(*zip(*curve, strict=True), label=block.removeprefix("backbone."), color=colour, linewidth=2)
    axes.set(
        title=f"{config.recipe}: {config.label}",
        xlabel="optimiser steps",
        ylabel="cosine to the true gradient",
        ylim=(min(-0.05, *axes.get_ylim()), 1.02),
    )
    axes.axhline(0, color="#999999", linewidth=1)
    axes.grid(alpha=0.3)
    open_frame(axes)
    axes.legend(frameon=False, fontsize=8)
    save_figure(figure, path, dpi=150)
