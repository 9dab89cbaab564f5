"""Rules of another package in whole runs: trained, stopped and resumed, measured, and refused where they do not fit."""

import importlib
import json
from pathlib import Path

import pytest
import torch
from tests.recipes.conftest import Refused

from odfa.cli import main
from odfa.session import Session
from odfa.store import load_run

loop = importlib.import_module("odfa.train.loop")
HERE = "tests.engine.outside_rules"
RUN = ("digits_tiny", "widths=12,8", "steps=6", "log_every=1", "threads=1", "tensorboard=false", "checkpoint_every=1")
FIGURES = ("step", "loss", "gradient_norm", "signal_norms", "light_frames", "validation_loss", "test_accuracy")


def _trained(*words: str) -> None:
    assert main(["train", *words, "--json"]) == 0


def _figures(run_dir: Path) -> list[dict[str, object]]:
    """Rows of the log, but for what a projection tells of its last use: one rule uses it before the stop only."""
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [{key: row[key] for key in row if key in FIGURES} for row in rows]


@pytest.mark.parametrize("rule", ["Drtp", "Normalised", "KolenPollack", "Fading"])
@pytest.mark.parametrize("arm", ["dfa", "odfa"])
def test_a_resumed_run_has_the_same_weights(
    rule: str, arm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = (*RUN, f"arm={arm}", f"rule={HERE}:{rule}")
    _trained(*words, "--run-dir", "whole")
    stopped = loop.train_step

    def stops(session: Session, batch: object) -> object:
        if session.step == 3:
            raise KeyboardInterrupt
        return stopped(session, batch)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "train_step", stops)
    assert main(["train", *words, "--run-dir", "parts", "--json"]) != 0
    monkeypatch.setattr(loop, "train_step", stopped)
    _trained("--resume", "parts")
    whole, parts = (load_run(name).model.state_dict() for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert _figures(tmp_path / "whole") == _figures(tmp_path / "parts")
    assert main(["align", "parts", "--json"]) == 0


def test_a_rule_and_a_task_from_outside_fit_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _trained("tests.recipes.outside:parity", "arm=dfa", f"rule={HERE}:Drtp", "--run-dir", "run")
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) > 4


@pytest.mark.parametrize("activations", ["keep", "recompute", "stream"])
def test_every_way_to_keep_activations_that_a_rule_allows(
    activations: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for rule in ("Drtp", "Normalised"):
        words = (*RUN, "arm=dfa", f"rule={HERE}:{rule}", f"memory.activations={activations}", "--run-dir", rule)
        assert main(["train", *words, "--json"]) == (2 if (rule, activations) == ("Normalised", "stream") else 0)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ("climate_vit_tiny", "arm=dfa", f"rule={HERE}:Drtp"),
            "it needs targets, and task=regress gives none; expected a task with labels",
        ),
        (
            (*RUN, "arm=dfa", f"rule={HERE}:Normalised", "memory.activations=stream"),
            "memory.activations=stream: rule=tests.engine.outside_rules:Normalised needs every block input, which",
        ),
        (
            (*RUN, "arm=dfa", f"rule={HERE}:Fading", "memory.fused=true"),
            "memory.fused=true: rule=tests.engine.outside_rules:Fading needs steps of the whole model; expected false",
        ),
    ],
)
def test_what_a_rule_needs_and_does_not_get_is_one_line(words: tuple[str, ...], told: str, refused: Refused) -> None:
    refused(words, told)
