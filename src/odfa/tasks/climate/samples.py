"""Maps of what a climate run projects: truth, projection and error, with coastlines left to the eye.

Shape letters: `R` runs · `H W` latitudes, longitudes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from odfa.arms import name_of
from odfa.data import FieldSplit, FieldSplits
from odfa.errors import ConfigError
from odfa.lab.canvas import new_figure, save_figure
from odfa.lab.samples import DrawnSamples, Samples
from odfa.session.places import without_places
from odfa.settings import MAX_COUNT, require
from odfa.store import LoadedRun, load_run
from odfa.tasks.climate.regress import Regress


@dataclass(frozen=True, kw_only=True)
class MapSamples(DrawnSamples, kind="maps"):
    """A row of maps for each run: what came, what was projected, the error."""

    sample: int | None = None
    """Number of the test sample; none: the one in the middle."""

    def __post_init__(self) -> None:
        fits = self.sample is None or 0 <= self.sample <= MAX_COUNT
        require(fits, "sample", f"a number from 0 to {MAX_COUNT:,} or none", self.sample)

    def make(self, run_dirs: Sequence[Path | str]) -> Samples:
        """Draw the rows below each other.

        Raises:
            RunFolderError, CheckpointError: see `load_run`. DataError: the runs' data are missing or have changed.
            ConfigError: no `out`, not climate runs of one split, or no such sample.
        """
        path = self.destination()
        runs = [load_run(run_dir) for run_dir in run_dirs]
        splits = _common_data(runs)
        place = len(splits.test) // 2 if self.sample is None else self.sample
        if not 0 <= place < len(splits.test):
            raise ConfigError(f"sample: expected 0 to {len(splits.test) - 1}, got {place}")
        one = splits.test.take(torch.tensor([place]))
        assert isinstance(one, FieldSplit)
        size, name, metric = splits.field[1:], one.names[0], runs[0].config.task.metric.name
        truth_HW = one.whole(one.y_N).view(size)
        with torch.no_grad():
            predicted_RG = torch.cat([_predicted(run, one.x_ND) for run in runs])
        projected_RHW = one.whole(predicted_RG).view(-1, *size)
        unit = metric.partition("_")[2] or "in the unit of the files"
        _draw(splits, (name, unit), runs, truth_HW, projected_RHW, path)
        errors = [one.error(predicted_G[None]) for predicted_G in predicted_RG]
        rows = [
            {"run": str(run.path), "arm": name_of(run.config), "rmse": error}
            for run, error in zip(runs, errors, strict=True)
        ]
        lines = [f"  {metric} {row['rmse']:.3f}  {row['arm']}: {row['run']}" for row in rows]
        return Samples(
            json={"figure": str(path), "sample": name, "metric": metric, "runs": rows},
            text="\n".join([name, *lines, f"figure: {path}"]),
        )


def _predicted(run: LoadedRun, x_ND: torch.Tensor) -> torch.Tensor:
    """What the run's model projects, in its precision."""
    with run.computing():
        answer_NG: torch.Tensor = run.model(x_ND)
    return answer_NG


def _common_data(runs: Sequence[LoadedRun]) -> FieldSplits:
    """The data that all runs were trained on."""
    for run in runs:
        if not isinstance(run.config.task, Regress):
            raise ConfigError(f"{run.path} is a run of {run.config.recipe}, which projects no maps; name climate runs")
        if without_places(run.config).data != without_places(runs[0].config).data:
            raise ConfigError(f"{run.path}: expected the data of {runs[0].path}, got other settings; draw them apart")
    splits = runs[0].config.task.load(runs[0].config.data)
    assert isinstance(splits, FieldSplits)
    for run in runs:
        run.kept.check(splits, run.path)
    return splits


def _draw(
    splits: FieldSplits,
    words: tuple[str, str],
    runs: Sequence[LoadedRun],
    truth_HW: torch.Tensor,
    projected_RHW: torch.Tensor,
    path: Path,
) -> None:
    """All maps on one scale; `words` are the sample's name and the unit."""
    (name, unit), error_RHW = words, projected_RHW - truth_HW
    # one scale for fields and errors, so that colours may be compared between maps
    top = float(max(truth_HW.abs().max(), projected_RHW.abs().max()))
    figure = new_figure(11, 0.6 + 2.6 * len(runs))
    grid = figure.subplots(len(runs), 3, squeeze=False, sharex=True, sharey=True)
    for row, run in enumerate(runs):
        label = f"{run.config.label}"
        maps = ((f"truth: {name}", truth_HW), (label, projected_RHW[row]), (f"{label}: error", error_RHW[row]))
        for axes, (title, field_HW) in zip(grid[row], maps, strict=True):
            last = axes.pcolormesh(
                splits.longitude_W, splits.latitude_H, field_HW.numpy(), cmap="RdBu_r", vmin=-top, vmax=top
            )
            axes.set_title(title, fontsize=9)
        grid[row][0].set_ylabel("latitude, degrees")
    for axes in grid[-1]:
        axes.set_xlabel("longitude, degrees east")
    figure.colorbar(last, ax=grid, label=unit, shrink=0.8)
    save_figure(figure, path, dpi=130)
