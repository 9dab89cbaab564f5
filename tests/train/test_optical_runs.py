"""Runs through an OPU: named, watched, let go."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.opu.rig import rig

from odfa import train
from odfa.errors import CalibrationError, ConfigError, Drifted
from odfa.opu import Bench, Twin, open_opu
from odfa.project.calibrating import calibrate
from odfa.project.guard import overlap
from odfa.session import RunConfig, dry_run
from odfa.settings import apply

Quick = Callable[..., RunConfig]


def test_an_instrument_is_found_by_name_driven_and_let_go(tmp_path: Path, quick: Quick, monkeypatch) -> None:
    bench, world = rig(10, twin=None)

    def table_3() -> Bench:
        return bench

    monkeypatch.setattr(sys.modules[__name__], "table_3", table_3, raising=False)
    table = f"{__name__}:table_3"
    config = quick("odfa")
    result = train.run(apply(config, [f"opu={table}"]), tmp_path / "run", progress=False)
    assert result.status == "complete"
    assert world.shown > result.light["frames"]  # sync frames come on top
    assert bench._opened is False
    assert bench._camera._opened is False
    for wrong in ("drift.gain_jitter=0.1", "projection.opu.seed=1"):
        with pytest.raises(ConfigError, match=r"unknown setting .*these have it: .*projection\.opu=twin"):
            apply(config, [f"opu={table}", wrong])


@pytest.mark.parametrize("opu", ["twin", "opu-2021", "ideal"])
def test_the_seed_of_the_opu_is_the_key_of_a_twins_medium(quick: Quick, opu: str) -> None:
    config = quick("odfa")

    def projected(seed: int, noise_seed: int = 0) -> torch.Tensor:
        words = [f"opu={opu}", f"opu.seed={seed}", "drift.gain_jitter=1e-3", "guard=none"]
        optical = apply(config, words).projection.build(noise_seed).shaped(10, 64)
        return optical.project(torch.eye(10))

    same = projected(3)
    assert torch.equal(projected(3), same)
    assert overlap(same, projected(3, noise_seed=1)).real > 0.9  # the run's seed is the noise's
    assert not torch.equal(projected(3, noise_seed=1), same)
    assert abs(overlap(same, projected(4)).real) < 0.2
    named = open_opu(opu, seed=3).transmission(10, 32)
    assert overlap(torch.view_as_real(named).flatten(1), same).real > 0.9


def test_recalibration_is_refused_where_the_rule_cannot_follow(tmp_path: Path, quick: Quick) -> None:
    lost = apply(quick("odfa", rule="aligned"), ["when_lost=recalibrate"])
    with pytest.raises(ConfigError, match="cannot go on with another one"):
        train.run(lost, tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_a_run_that_loses_its_matrix_ends_and_says_so(tmp_path: Path, quick: Quick) -> None:
    lost = apply(quick("odfa"), ["guard.every=100", "decorrelation_s=1.0"])
    with pytest.raises(Drifted, match="no longer the one calibrated"):
        train.run(lost, tmp_path / "run", progress=False)
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert status["status"] == "failed"
    assert "Drifted" in status["reason"]


@pytest.mark.parametrize("demodulator", ["phase", "phase3", "offaxis", "anchor"])
def test_every_demodulator_trains_and_its_plan_counts_its_light(tmp_path: Path, quick: Quick, demodulator: str) -> None:
    config = quick("odfa")
    config = apply(config, [f"demodulator={demodulator}", "guard.every=120"])
    result = train.run(config, tmp_path / "run", progress=False)
    planned = dry_run(config)["light"]["frames"]
    shared = result.steps if demodulator == "anchor" else 0  # one frame of the anchor per call is left out of the plan
    assert planned <= result.light["frames"] <= planned + shared
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all(row["witness_correlation"] > 0.9 for row in rows if "loss" in row)


def test_a_run_takes_a_calibration_and_refuses_a_foreign_one(tmp_path: Path, quick: Quick) -> None:
    config = quick("odfa")
    width = sum(config.network.widths)
    folders = {}
    for seed in (0, 1):
        found = calibrate(Twin.preset("opu-2021", seed=seed), num_inputs=10, num_modes=width // 2, matrix="hadamard")
        folders[seed] = found.save(tmp_path / f"calibration-{seed}")
    ours, foreign, missing = (
        apply(config, [f"calibration={folder}"]) for folder in (folders[0], folders[1], tmp_path / "none")
    )
    result = train.run(ours, tmp_path / "run", progress=False)
    assert result.light["frames"] == 18 * 40 * 8 + 8 * 8  # one look at the witnesses instead of two to calibrate
    for wrong, words in ((foreign, "is for opu"), (missing, "no calibration in")):
        with pytest.raises(CalibrationError, match=words):
            train.run(wrong, tmp_path / "no", progress=False)
    assert not (tmp_path / "no").exists()
