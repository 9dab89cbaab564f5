"""A config.json that was edited after the run had begun: refused by name, whether the run is finished or not."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from odfa import recipes, train
from odfa.errors import CheckpointError
from odfa.lab.angles import align
from odfa.session import RunConfig
from odfa.store import load_run
from odfa.store.folder import RunFolder, check_unchanged, differences

Quick = Callable[..., RunConfig]
CHANGES = {"seed": 5, "steps": 7, "batch_size": 9}
TOLD = r"batch_size: \d+ there, 9 here; seed: 0 there, 5 here; steps: \w+ there, 7 here"


def _edit(run_dir: Path, file: str = "config.json", **changes: Any) -> None:
    kept = json.loads((run_dir / file).read_text())
    (run_dir / file).write_text(json.dumps(kept | changes))


@pytest.fixture
def finished(tmp_path: Path, quick: Quick) -> Path:
    train.run(quick("dfa"), tmp_path / "run", progress=False)
    return tmp_path / "run"


def test_a_finished_run_does_not_believe_it(finished: Path) -> None:
    result, config = load_run(finished).result, (finished / "config.json").read_bytes()
    _edit(finished, **CHANGES)
    with pytest.raises(CheckpointError, match=TOLD) as caught:
        train.resume(finished, progress=False)
    assert "config.json" in str(caught.value)
    (finished / "config.json").write_bytes(config)
    assert train.resume(finished, progress=False) == result


def test_nor_does_one_whose_checkpoints_were_removed(finished: Path) -> None:
    shutil.rmtree(finished / "checkpoints")
    train.resume(finished, progress=False)
    _edit(finished, seed=5)
    with pytest.raises(CheckpointError, match=r"\(seed: 0 there, 5 here\): config\.json was changed after"):
        train.resume(finished, progress=False)


def test_an_interrupted_run_and_its_angles_name_it(finished: Path) -> None:
    optimizer = json.loads((finished / "config.json").read_text())["optimizer"]
    _edit(finished, "status.json", status="interrupted")
    _edit(finished, optimizer=optimizer | {"learning_rate": 0.5})
    for attempt in (lambda: train.resume(finished, progress=False), lambda: align(finished)):
        with pytest.raises(CheckpointError, match=r"optimizer\.learning_rate: 0\.\d+ there, 0\.5 here"):
            attempt()


def test_runs_that_kept_no_settings_are_taken_as_they_are(finished: Path) -> None:
    (finished / "began.json").unlink()
    train.resume(finished, progress=False)


def test_moved_data_are_no_change(tmp_path: Path) -> None:
    with RunFolder(tmp_path, recipes.get("climate_vit_tiny"), resume=False) as folder:
        folder.add_session({})
    kept = json.loads((tmp_path / "config.json").read_text())
    _edit(tmp_path, data=kept["data"] | {"path": "/somewhere/else"})
    check_unchanged(tmp_path)
    _edit(tmp_path, seed=5)
    with pytest.raises(CheckpointError, match=r"\(seed: 0 there, 5 here\)"):
        check_unchanged(tmp_path)


def test_differences_are_named_by_their_keys() -> None:
    rule = {"rule": {"type": "random", "scale": 1.0}}
    assert differences(rule, {"rule": {"type": "exact", "every": 2}}) == "rule.type: 'random' there, 'exact' here"
    many = differences(dict.fromkeys("abcde", 1), dict.fromkeys("abcde", 2))
    assert many == "a: 1 there, 2 here; b: 1 there, 2 here; c: 1 there, 2 here; and 2 more"
