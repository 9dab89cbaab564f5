"""Sound things that inputs are made of by damage: run folders, a corpus, idx files, NetCDF files."""

import contextlib
import io
import json
import shutil
from functools import cached_property
from pathlib import Path

from odfa.cli import main
from tests.data.climate_files import write_climate, write_climatebench
from tests.garments import write_images

SMALL = ("limit=20", "validation=10", "batch_size=5", "widths=6,6", "threads=1", "tensorboard=false")
TWO_STEPS = ("steps=2", "checkpoint_every=1", "evaluate_every=2", "log_every=1")
TEXT = ("vocabulary=270", "context=8", "width=8", "layers=1", "heads=2", "batch_size=2", "limit=6", "tensorboard=false")
RUNS = {
    "bp": ("digits_tiny", *SMALL, *TWO_STEPS, "arm=bp", "average=0.9"),
    "dfa": ("digits_tiny", *SMALL, *TWO_STEPS, "arm=dfa", "align_every=1"),
    "odfa": ("digits_tiny", *SMALL, *TWO_STEPS, "arm=odfa", "opu=ideal", "optimizer=sgd"),
    "aligned": ("digits_tiny", *SMALL, *TWO_STEPS, "arm=dfa", "rule=aligned", "rank=2", "fused=true", "every=1"),
    "text": ("dialogue_tiny", *TEXT, *TWO_STEPS, "arm=dfa", "rank=2"),
}
"""Two steps each, a checkpoint after either."""


class Stock:
    """Made when first asked for, in one folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def _folder(self, name: str) -> Path:
        folder = self._root / name
        folder.mkdir(parents=True)
        return folder

    def run(self, name: str) -> Path:
        """A complete run."""
        folder = self._root / "runs" / name
        if not folder.exists():
            words = ["train", *RUNS[name], "--run-dir", str(folder)]
            if name == "text":
                words.append(f"path={self.corpus}")
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as err:
                if main(words) != 0:
                    raise RuntimeError(err.getvalue())
        return folder

    def copy_run(self, name: str, to: Path, *, complete: bool) -> Path:
        """A run's folder; one that was stopped after the first of two steps unless `complete`."""
        shutil.copytree(self.run(name), to)
        if not complete:
            shutil.rmtree(to / "checkpoints" / "step_0000002")
            (to / "result.json").unlink()
            (to / "status.json").write_text(json.dumps({"status": "interrupted", "step": 1, "reason": None}))
        return to

    @cached_property
    def corpus(self) -> Path:
        """A folder with a text of some hundred short lines."""
        folder = self._folder("corpus")
        lines = [f"<|a|>is {k % 9} more than {k % 5}?<|b|>no, {k % 7}\n" for k in range(200)]
        (folder / "talk.txt").write_text("".join(lines), encoding="utf-8")
        return folder

    @cached_property
    def images(self) -> Path:
        """Four idx files with few images of 8 x 8."""
        folder = self._folder("images")
        write_images(folder)
        return folder

    @cached_property
    def climate(self) -> Path:
        """Both scenarios on a thinned grid."""
        return write_climate(self._folder("climate"))

    @cached_property
    def climatebench(self) -> Path:
        """Three scenarios."""
        return write_climatebench(self._folder("climatebench"))
