"""Commands that fail: one line that says what to do, the right exit code, one JSON object if asked for."""

import errno
import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from odfa.errors import NonFinite, OpuError

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
    "wrong choice": (("train", "digits_tiny", "arm=dpa"), "arm"),
    "out of range": (("train", "digits_tiny", "epochs=0"), "epochs"),
    "missing data": (("train", "fashion_mlp_tiny", "data.path=nowhere"), "nowhere"),
    "resume nothing": (("train", "--resume", "nowhere"), "nowhere"),
    "resume with settings": (("train", "--resume", "nowhere", "seed=1"), "seed=1"),
    "align nothing": (("align", "nowhere"), "nowhere"),
    "compare an unknown arm": (("compare", "digits_tiny", "arms=bp,dpa"), "dpa"),
    "compare nothing": (("compare", "digits_tiny", "arms="), "arms"),
    "compare an arm twice": (("compare", "digits_tiny", "arms=bp,bp"), "bp,bp"),
    "compare no seeds": (("compare", "digits_tiny", "seeds=0"), "seeds"),
    "compare half a try": (("compare", "digits_tiny", "tries=0.5"), "tries"),
    "compare without a recipe": (("compare",), "required: NAME;"),
    "train under another recipe's name": (("train", "digits_tiny", "recipe=fashion"), "settled by the recipe"),
    "a task that there is not": (("train", "digits_tiny", "task=fashion"), "task: expected diffusion"),
    "rank of another network": (("train", "digits_tiny", "arm=odfa", "rule=aligned", "rank=16"), "0 to 9"),
    "a network for no machine": (("train", "digits_tiny", "widths=9999999,9999999"), "1048576"),
    "a file for a folder": (("train", *TINY, "--run-dir", __file__), "a file is where a folder should be"),
    "resume a file": (("train", "--resume", __file__), "is missing; is"),
    "compare one seed by name": (("compare", "digits_tiny", "seed=1"), "seeds=3"),
}


@pytest.mark.parametrize(("words", "clue"), WORDS.values(), ids=WORDS)
def test_the_users_words_are_off(odfa, words, clue):
    said = odfa(*words)
    assert said.code == 2
    assert said.out == ""
    assert clue in said.complaint
    assert not said.err.startswith("run folder:")


def test_a_failure_is_one_json_object_too(odfa):
    said = odfa("train", "digits_tinny", "--json")
    assert said.code == 2
    assert said.json["error"] == "ConfigError"
    assert said.json["message"] in said.complaint


def test_a_run_is_never_overwritten(odfa):
    run_dir = Path(odfa("train", *TINY, "arm=bp", "--json").json["run_dir"])
    before = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
    said = odfa("train", *TINY, "arm=bp")
    assert said.code == 2
    assert f"--resume {run_dir}" in said.complaint
    assert {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()} == before


def test_a_corrupt_checkpoint(odfa):
    run_dir = Path(odfa("train", *TINY, "arm=dfa", "--json").json["run_dir"])
    weights = sorted(run_dir.glob("checkpoints/*/model.safetensors"))[-1]
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    said = odfa("align", str(run_dir))
    assert said.code == 2
    assert "corrupt" in said.complaint


def test_a_foreign_config(odfa):
    run_dir = Path(odfa("train", *TINY, "arm=dfa", "--json").json["run_dir"])
    config = json.loads((run_dir / "config.json").read_text())
    (run_dir / "config.json").write_text(json.dumps({**config, "colour": "red"}))
    assert "colour" in odfa("align", str(run_dir)).complaint


@pytest.mark.parametrize(
    ("arm", "clue"), [("bp", "rule=backprop, which feeds none"), ("shallow", "rule=shallow, which feeds none")]
)
def test_aligning_a_run_without_feedback_is_refused(odfa, arm, clue):
    run_dir = odfa("train", *TINY, f"arm={arm}", "--json").json["run_dir"]
    said = odfa("align", run_dir)
    assert said.code == 2
    assert clue in said.complaint


@pytest.mark.parametrize("error", [NonFinite("step 3: the loss is nan"), OpuError("the camera is gone")], ids=repr)
def test_a_run_that_fails_ends_with_1(odfa, monkeypatch, error):
    def step(*_arguments):
        raise error

    monkeypatch.setattr("odfa.train.loop.train_step", step)
    said = odfa("train", *TINY, "arm=bp", "--json")
    assert said.code == 1
    assert str(error) in said.complaint
    assert said.json["status"] == "failed"


def test_a_loss_that_overflows_ends_with_1(odfa):
    said = odfa("train", *TINY, "arm=bp", "activation=relu", "optimizer=sgd", "learning_rate=1e30")
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
    said = odfa("train", *TINY, "arm=bp")
    assert said.code == 1
    (run_dir,) = Path("runs").iterdir()
    assert said.complaint == f"odfa: stopped at step 3; resume with odfa train --resume {run_dir}"
    resumed = odfa("train", "--resume", str(run_dir), "--json")
    assert resumed.code == 0
    whole = odfa("train", *TINY, "arm=bp", "--run-dir", "whole", "--json").json
    for key in ("steps", "metric", "validation"):
        assert resumed.json[key] == whole[key]


def test_an_interrupted_comparison_goes_on(odfa, ctrl_c_in_the_third_step):
    command = ("compare", *TINY, "arms=bp", "seeds=1", "tries=2", "--json")
    said = odfa(*command)
    assert said.code == 1
    assert said.complaint.endswith("go on with the same odfa compare command")
    assert "--resume" not in said.err
    assert said.json["error"] == "Interrupted"
    assert odfa(*command).code == 0


def test_ctrl_c_twice_before_the_first_checkpoint(odfa, monkeypatch):
    from odfa.train import loop

    def press_twice(*_arguments):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", press_twice)
        said = odfa("train", *TINY, "arm=bp")
    assert said.code == 1
    (run_dir,) = Path("runs").iterdir()
    advice = f"resume with odfa train --resume {run_dir}"
    assert said.complaint == f"odfa: stopped before the first checkpoint; {advice}"
    assert odfa("train", "--resume", str(run_dir)).code == 0


def test_ctrl_c_outside_a_run(odfa, monkeypatch):
    monkeypatch.setattr("odfa.train.loop.build", lambda _config: signal.raise_signal(signal.SIGINT))
    said = odfa("train", *TINY)
    assert (said.code, said.complaint) == (130, "odfa: stopped; run the same command again")


@pytest.mark.parametrize("size", [(2**20, 2**20), (2**40, 2**40)])
def test_a_network_too_large_for_the_memory(odfa, monkeypatch, size):
    monkeypatch.setattr("odfa.train.loop.build", lambda _config: torch.zeros(size))
    said = odfa("train", *TINY, "--json")
    assert said.code == 1
    assert "out of memory; see odfa train NAME --dry-run" in said.complaint
    assert said.json["status"] == "failed"


def test_a_network_too_large_for_an_accelerator(odfa, monkeypatch):
    def full(_config):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total of 1.00 GiB")

    monkeypatch.setattr("odfa.train.loop.build", full)
    said = odfa("train", *TINY)
    assert (said.code, said.complaint.startswith("odfa: out of memory; see odfa train")) == (1, True)


def test_what_nobody_foresaw_keeps_its_traceback(odfa, monkeypatch):
    monkeypatch.setattr("odfa.train.loop.build", lambda _config: torch.zeros(2) + torch.zeros(3))
    with pytest.raises(RuntimeError, match="size of tensor"):
        odfa("train", *TINY)


def test_a_full_disk_in_the_middle_of_a_run(odfa, monkeypatch):
    from odfa.store import shards

    def full(*_arguments):
        raise OSError(errno.ENOSPC, "No space left on device", "model.safetensors")

    monkeypatch.setattr(shards, "write_new", full)
    said = odfa("train", *TINY, "--json")
    assert (said.code, said.json["status"]) == (1, "failed")
    assert "No space left on device; free space" in said.complaint


@pytest.mark.parametrize("missing", ["sklearn", "scipy"])
def test_a_missing_package_is_named_by_its_own_name(odfa, monkeypatch, missing):
    for name in [name for name in sys.modules if name.partition(".")[0] in ("sklearn", missing)]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    said = odfa("train", *TINY)
    assert said.code == 2
    assert f"the digits data need scikit-learn, but the module {missing}" in said.complaint


def test_a_package_that_does_not_load_is_not_called_missing(odfa, monkeypatch):
    def broken(*_arguments):
        raise ImportError("libblas.so: cannot open\nshared object")

    monkeypatch.setattr("odfa.train.loop.build", broken)
    said = odfa("train", *TINY)
    assert (said.code, said.complaint) == (
        2,
        "odfa: a package does not load: libblas.so: cannot open shared object",
    )


def _shell(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    program = f"{shlex.quote(sys.executable)} -c 'import sys; from odfa.cli import main; sys.exit(main())'"
    command = command.replace("odfa", program)
    variables = {**os.environ, **environment}
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=variables, timeout=120)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("words", ["recipes", "recipes --json", "train nothing --json"])
def test_a_full_standard_output(words):
    done = _shell(f"odfa {words} > /dev/full")
    assert done.returncode == (2 if "train" in words else 1)
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("odfa: ")


def test_a_terminal_without_unicode():
    done = _shell("odfa recipes; odfa train digits epochs=0; odfa nonsens\u00e9", PYTHONIOENCODING="ascii")
    assert "Traceback" not in done.stderr
    assert "digits_tiny" in done.stdout


def test_standard_streams_that_are_closed():
    assert _shell("odfa recipes >&-").stderr == ""
    done = _shell("odfa train nothing 2>&-")
    assert (done.returncode, done.stdout) == (2, "")
