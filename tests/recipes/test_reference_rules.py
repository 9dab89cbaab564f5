"""DRTP, direct Kolen-Pollack and forward gradients in whole runs: as arms, stopped and resumed, refused."""

import importlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.recipes.conftest import Refused
from tests.talk import small_run, write_corpus

from odfa import recipes, train
from odfa.arms import name_of
from odfa.cli import main
from odfa.session import MemorySettings, RunConfig, Session
from odfa.store import load_run

loop = importlib.import_module("odfa.train.loop")
RULES = ("drtp", "kolen_pollack", "forward_gradient")
SMALL = ("digits_tiny", "widths=12,8", "steps=6", "log_every=1", "threads=1", "tensorboard=false")


def _digits(_folder: Path, rule: str) -> RunConfig:
    return replace(recipes.get("digits_tiny", f"dfa:{rule}"), steps=6, checkpoint_every=3, threads=1, tensorboard=False)


def _talk(folder: Path, rule: str) -> RunConfig:
    return small_run(write_corpus(folder), "dfa", rule)


@pytest.mark.parametrize("config", [_digits, _talk])
@pytest.mark.parametrize("rule", RULES)
def test_a_resumed_run_has_the_same_weights(
    rule: str, config: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = config(tmp_path, rule)  # type: ignore[operator]
    assert name_of(run) in ("dfa", f"dfa:{rule}")
    train.run(run, tmp_path / "whole", progress=False)
    stopped = loop.train_step

    def stops(session: Session, batch: object) -> object:
        if session.step == 4:
            raise KeyboardInterrupt
        return stopped(session, batch)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "train_step", stops)
    with pytest.raises(KeyboardInterrupt):
        train.run(run, tmp_path / "parts", progress=False)
    monkeypatch.setattr(loop, "train_step", stopped)
    train.resume(tmp_path / "parts", progress=False)
    whole, parts = (load_run(tmp_path / name).model.state_dict() for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


@pytest.mark.parametrize("activations", ["keep", "recompute", "stream"])
@pytest.mark.parametrize("rule", RULES)
def test_every_way_to_keep_activations_that_a_rule_allows(rule: str, activations: str, tmp_path: Path) -> None:
    run = replace(_talk(tmp_path, rule), memory=MemorySettings(activations=activations))  # type: ignore[arg-type]
    if (rule, activations) == ("kolen_pollack", "stream"):
        with pytest.raises(Exception, match="needs every block output, which"):
            train.run(run, tmp_path / "run", progress=False)
        return
    train.run(run, tmp_path / "run", progress=False)
    train.run(replace(run, memory=MemorySettings()), tmp_path / "kept", progress=False)
    ours, theirs = (load_run(tmp_path / name).model.state_dict() for name in ("run", "kept"))
    assert all(torch.allclose(ours[name], theirs[name], rtol=1e-4, atol=1e-5) for name in ours)


def test_they_are_compared_and_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    arms = "arms=bp,dfa:drtp,dfa:kolen_pollack,dfa:forward_gradient"
    assert main(["compare", *SMALL, arms, "seeds=1", "tries=1", "--run-dir", "all", "--json"]) == 0
    text = Path(json.loads(capsys.readouterr().out)["table"]).read_text(encoding="utf-8")
    assert "the labels are projected, not the error" in text
    assert "learned feedback, 160 multiply-adds a row for a block 8 wide" in text
    for rule in RULES:
        words = ["train", *SMALL, f"arm=dfa:{rule}", "align_every=2", "--run-dir", rule, "--json"]
        assert main(words) == 0
        assert main(["align", rule, "--json"]) == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("climate_vit_tiny", "arm=dfa:drtp"), "rule=drtp: it needs targets, and task=regress gives none"),
        ((*SMALL, "arm=odfa:kolen_pollack"), "rule: kolen_pollack goes on from the matrix itself, and optical(twin("),
        ((*SMALL, "arm=tdfa:kolen_pollack"), "is not the product with a matrix that can be read; expected a digital"),
        ((*SMALL, "arm=dfa:kolen_pollack", "memory.fused=true"), "needs steps of the whole model; expected false"),
        (
            (*SMALL, "arm=dfa:kolen_pollack", "rule.feedback_decay=1"),
            "expected a share in [0, 1), got 1",
        ),
        (
            (*SMALL, "arm=dfa:kolen_pollack", "rule.feedback_rate=-1"),
            "feedback_rate: expected zero or a positive number",
        ),
    ],
)
def test_what_they_need_and_do_not_get_is_one_line(words: tuple[str, ...], told: str, refused: Refused) -> None:
    refused(words, told)
