"""Commands that fail: one line that says what to do, the right exit code, one JSON object if asked for."""

import json
import signal
from pathlib import Path

import pytest

from odfa.errors import DeviceError, NonFinite

TINY = ("digits_tiny", "epochs=1")

WORDS = {
    "no command": ((), "COMMAND"),
    "unknown command": (("trian",), "trian"),
    "unknown option": (("env", "--fast"), "--fast"),
    "surplus word": (("recipes", "digits"), "digits"),
    "setting without settings": (("env", "seed=1"), "seed=1"),
    "neither recipe nor resume": (("train",), "--resume DIR"),
    "unknown recipe": (("train", "digits_tinny"), "digits_tiny"),
    "unknown key": (("train", "digits_tiny", "learning_rat=1"), "optimizer.learning_rate"),
    "wrong type": (("train", "digits_tiny", "epochs=many"), "epochs"),
    "wrong choice": (("train", "digits_tiny", "method=dpa"), "method"),
    "out of range": (("train", "digits_tiny", "epochs=0"), "epochs"),
    "missing data": (("train", "fashion_mlp_tiny", "data.path=nowhere"), "nowhere"),
    "resume nothing": (("train", "--resume", "nowhere"), "nowhere"),
    "resume with settings": (("train", "--resume", "nowhere", "seed=1"), "seed=1"),
    "align nothing": (("align", "nowhere"), "nowhere"),
    "compare an unknown method": (("compare", "digits_tiny", "methods=bp,dpa"), "dpa"),
    "compare nothing": (("compare", "digits_tiny", "methods="), "methods"),
    "compare a method twice": (("compare", "digits_tiny", "methods=bp,bp"), "bp,bp"),
    "compare no seeds": (("compare", "digits_tiny", "seeds=0"), "seeds"),
    "compare half a try": (("compare", "digits_tiny", "tries=0.5"), "tries"),
    "compare one seed by name": (("compare", "digits_tiny", "seed=1"), "seeds=3"),
}


@pytest.mark.parametrize(("words", "clue"), WORDS.values(), ids=WORDS)
def test_the_users_words_are_off(odfa, words, clue):
    said = odfa(*words)
    assert said.code == 2
    assert said.out == ""
    assert clue in said.complaint


def test_a_failure_is_one_json_object_too(odfa):
    said = odfa("train", "digits_tinny", "--json")
    assert said.code == 2
    assert said.json["error"] == "ConfigError"
    assert said.json["message"] in said.complaint


def test_a_run_is_never_overwritten(odfa):
    run_dir = Path(odfa("train", *TINY, "method=bp", "--json").json["run_dir"])
    before = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
    said = odfa("train", *TINY, "method=bp")
    assert said.code == 2
    assert f"--resume {run_dir}" in said.complaint
    assert {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()} == before


def test_a_corrupt_checkpoint(odfa):
    run_dir = Path(odfa("train", *TINY, "method=dfa", "--json").json["run_dir"])
    weights = sorted(run_dir.glob("checkpoints/*/model.safetensors"))[-1]
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    said = odfa("align", str(run_dir))
    assert said.code == 2
    assert "corrupt" in said.complaint


def test_a_foreign_config(odfa):
    run_dir = Path(odfa("train", *TINY, "method=dfa", "--json").json["run_dir"])
    config = json.loads((run_dir / "config.json").read_text())
    (run_dir / "config.json").write_text(json.dumps({**config, "colour": "red"}))
    assert "colour" in odfa("align", str(run_dir)).complaint


@pytest.mark.parametrize(("method", "clue"), [("bp", "true gradient"), ("shallow", "do not learn")])
def test_aligning_a_run_without_feedback_is_refused(odfa, method, clue):
    run_dir = odfa("train", *TINY, f"method={method}", "--json").json["run_dir"]
    said = odfa("align", run_dir)
    assert said.code == 2
    assert clue in said.complaint


@pytest.mark.parametrize("error", [NonFinite("step 3: the loss is nan"), DeviceError("the camera is gone")], ids=repr)
def test_a_run_that_fails_ends_with_1(odfa, monkeypatch, error):
    def step(*_arguments):
        raise error

    monkeypatch.setattr("odfa.train.loop.train_step", step)
    said = odfa("train", *TINY, "method=bp", "--json")
    assert said.code == 1
    assert str(error) in said.complaint
    assert said.json["status"] == "failed"


def test_a_loss_that_overflows_ends_with_1(odfa):
    said = odfa("train", *TINY, "method=bp", "activation=relu", "name=sgd", "learning_rate=1e30")
    assert said.code == 1
    assert "learning rate" in said.complaint


@pytest.fixture
def ctrl_c_in_the_third_step(monkeypatch):
    """Ctrl-C, once."""
    from odfa.train import loop

    step, pressed = loop.train_step, []

    def interrupted_step(session, batch):
        if session.step == 2 and not pressed:
            pressed.append(signal.raise_signal(signal.SIGINT))
        return step(session, batch)

    monkeypatch.setattr(loop, "train_step", interrupted_step)


def test_ctrl_c_says_how_to_go_on_and_that_works(odfa, ctrl_c_in_the_third_step):
    said = odfa("train", *TINY, "method=bp")
    assert said.code == 1
    assert said.complaint == "odfa: stopped at step 3; resume with odfa train --resume runs/digits_tiny-bp-seed0"
    resumed = odfa("train", "--resume", "runs/digits_tiny-bp-seed0", "--json")
    assert resumed.code == 0
    whole = odfa("train", *TINY, "method=bp", "--run-dir", "whole", "--json").json
    for key in ("steps", "metric", "validation"):
        assert resumed.json[key] == whole[key]


def test_an_interrupted_comparison_goes_on(odfa, ctrl_c_in_the_third_step):
    command = ("compare", *TINY, "methods=bp", "seeds=1", "tries=2", "--json")
    said = odfa(*command)
    assert said.code == 1
    assert "the same odfa compare command" in said.err
    assert said.json["error"] == "Interrupted"
    assert odfa(*command).code == 0
