"""Values that would hang, fill the memory, or give nothing: each is refused in one line before anything begins."""

import json
import os
import resource
import signal
import subprocess
import sys
from dataclasses import replace
from types import UnionType
from typing import get_args

import pytest

from odfa import recipes, settings
from odfa.cli.opu_words import CalibrateWords, CheckWords
from odfa.errors import ConfigError
from odfa.lab import AlignSettings, CompareSettings
from odfa.lab.image_judge import JudgeSettings
from odfa.lab.projections import ProjectionBenchSettings
from odfa.lab.samples import SampleSettings
from odfa.scaling import PlanSettings, Sharing, StudySettings
from odfa.scaling.actions import MeasureSettings, ScalingSettings, ShareSettings
from odfa.scaling.sizes import SizesSettings

CONFIGS = {
    **{name: recipe.make() for name, recipe in recipes.listed().items() if name.endswith("_tiny")},
    "llama": recipes.get("dialogue_llama"),
    "plan": PlanSettings(),
    "study": StudySettings(),
    "sharing": Sharing(),
    "measure": MeasureSettings(),
    "scaling": ScalingSettings(),
    "share": ShareSettings(),
    "learning": SizesSettings(),
    **{word: kind() for word, kind in settings.kinds_of(SampleSettings).items()},
    "compare": CompareSettings(),
    "project bench": ProjectionBenchSettings(),
    "judge": JudgeSettings(),
    "align": AlignSettings(),
    "opu check": CheckWords(),
    "opu calibrate": CalibrateWords(),
}


def _numbers(kind: type):
    """(config, key) of every setting of this kind, alone, optional, or in a tuple."""
    for name, config in CONFIGS.items():
        for key, hint in ((key, place.hint) for key, place in settings.keys(config).items() if not place.fixed):
            parts = get_args(hint) if isinstance(hint, UnionType) or get_args(hint) else (hint,)
            if kind in parts:
                yield name, key


def _refused(name: str, key: str, value: str) -> bool:
    complaints = [_complaint(name, f"{key}={text}") for text in (value, f"{value},{value}")]  # betas are two
    assert all("\n" not in text and len(text) < 400 for text in complaints)
    return all(complaints)


def _complaint(name: str, override: str) -> str:
    try:
        settings.apply(CONFIGS[name], [override], heard=False)  # by its range, not for want of an effect
    except ConfigError as error:
        return str(error)
    return ""


def test_no_number_takes_nan_infinity_or_minus_one_million():
    settings = [*_numbers(float), *_numbers(int)]
    assert len(settings) > 200
    signed = {"projection.opu.drift.phase_drift_rad_per_s"}  # a drift has a direction
    values = {"nan", "inf", "-inf", "1e400", "-1000000"}
    taken = {(key, value) for name, key in settings for value in values if not _refused(name, key, value)}
    assert taken <= {(key, "-1000000") for key in signed}


def test_no_count_takes_what_nobody_has_time_or_memory_for():
    keys = {
        "seed",
        "projection.seed",
        "projection.opu.seed",
        "projection.opu.mirrors.seed",
        "opu.seed",
        "opu.mirrors.seed",
    }
    assert {key for name, key in _numbers(int) if not _refused(name, key, str(2**62))} == keys
    assert all(_refused(name, key, "9" * 5000) for name, key in _numbers(int))


def test_shifts_stay_inside_the_image(odfa):
    assert "fewer pixels than 8, the side, got 8" in odfa("train", "digits_tiny", "data.shift=8", "--dry-run").complaint
    assert odfa("train", "digits_tiny", "data.shift=7", "--dry-run").code == 0


def test_a_room_that_would_never_be_simulated():
    assert replace(Sharing(), recalibrate_every_s=0.01)
    with pytest.raises(ConfigError, match=r"at least a thousandth of a step, 0\.0011 s, got 0\.001"):
        replace(Sharing(), recalibrate_every_s=0.001)


TAKEN = os.devnull
WORDS = {
    "no run folder": (("train", "digits_tiny", "--run-dir", ""), "--run-dir: expected a path, got ''"),
    "a run folder in a file": (("train", "digits_tiny", "--run-dir", f"{TAKEN}/run"), "expected a folder, /dev/null"),
    "compare in a file": (("compare", "digits_tiny", "--run-dir", TAKEN), "expected a folder, /dev/null is none"),
    "compare for ever": (("compare", "digits_tiny", "seeds=1000000"), "seeds: expected a positive integer up to 1,000"),
    "compare by too many": (("compare", "digits_tiny", "jobs=100000"), "jobs: expected a positive integer up to"),
    "compare by no try": (("compare", "digits_tiny", "try_steps=0"), "try_steps: expected a positive integer or none"),
    "compare misspelt": (("compare", "digits_tiny", "seedz=2"), "did you mean seed or seeds"),
    "compare runs misspelt": (("compare", "digits_tiny", "epoch=2"), "did you mean epochs"),
    "compare by a kind's setting": (("compare", "digits_tiny", "rank=2"), "these have it: rule=aligned"),
    "a bench misspelt": (("project", "bench", "repeat=2"), "did you mean repeats"),
    "a bench of no size": (("project", "bench", "sizes="), "sizes: expected some of 1e3x1e3, "),
    "a bench of another size": (("project", "bench", "sizes=1e3x1e3,7x7"), "sizes: expected some of 1e3x1e3, "),
    "a bench for ever": (("project", "bench", "repeats=100000"), "repeats: expected a positive integer up to 10,000"),
    "threads of a bench": (("project", "bench", "threads=100000"), "threads: expected a positive integer up to"),
    "an OPU misspelt": (("opu", "check", "ideal", "mode=2"), "did you mean modes"),
    "a figure of no run": (("align", "nowhere", "out=a.png"), "nowhere/config.json is missing"),
    "no figure": (("align", "run", "out="), "out: expected a path, got ''"),
    "a figure of no kind": (("align", "run", "out=a.xyz"), "ends in .png, .pdf, .svg"),
    "a figure without an ending": (("align", "run", "out=a"), "ends in .png, .pdf, .svg"),
    "a folder for a figure": (("align", "run", "out=."), "expected a file, . is a folder"),
    "no export": (("export", "run", ""), "FOLDER: expected a path, got ''"),
    "an export in a file": (("export", "run", f"{TAKEN}/x"), "expected a folder, /dev/null is none"),
    "workers": (("study", "share", "workers=1000000"), "workers: expected a positive integer up to 10,000"),
    "many workers, many steps": (("study", "share", "workers=10000", "steps=10000"), "at most 10,000,000 steps"),
    "a count of many digits": (("study", "share", f"steps={'9' * 5000}"), "steps: expected an integer"),
    "a study nowhere": (("study", "share", "out="), "out: expected a path, got ''"),
    "a study in a file": (("study", "share", f"out={TAKEN}"), "expected a folder, /dev/null is none"),
    "curves in a file": (("study", "scaling", f"out={TAKEN}", "--dry-run"), "expected a folder, /dev/null is none"),
    "a measurement in a folder": (("study", "measure", "out=."), "out: expected a file, . is a folder"),
    "threads": (("study", "measure", "threads=100000"), "threads: expected a positive integer up to"),
    "a calibration in a file": (("opu", "calibrate", "ideal", f"out={TAKEN}/x"), "expected a folder, /dev/null"),
    "pictures in a file": (("opu", "show", "ideal", f"out={TAKEN}"), "expected a folder, /dev/null is none"),
    "inputs": (("opu", "check", "ideal", f"inputs={10**12}"), "inputs: expected a positive number up to"),
    "guidance": (("judge", "run", "by=run", "guidance=101"), "guidance: expected a weight from 0 to 100"),
    "guidance that is no number": (("judge", "run", "by=run", "guidance=nan"), "guidance: expected a finite number"),
    "images": (("judge", "run", "by=run", "count=1000000000"), "count: expected 100 to 100000 images"),
    "no judge": (("judge", "run"), "by: expected the run folder of a fashion classifier, such as by=runs/"),
    "a judge of nothing": (("judge", "by=run"), "expected a run folder, got by=run; see odfa judge --help"),
    "a judge misspelt": (("judge", "run", "by=run", "step=3"), "did you mean steps"),
    "a judge's option": (
        ("judge", "run", "--by", "run"),
        "a setting is written by=run, without dashes; see",
    ),
    "a seed by option": (("train", "digits_tiny", "--seed", "1"), "'--seed'; a setting is written seed=1, without"),
    "a seed before the name": (("train", "--seed", "1", "digits_tiny"), "a setting is written seed=1, without dashes"),
    "a seed with equals": (("judge", "run", "by=run", "--seed=1"), "a setting is written seed=1, without dashes"),
    "a key of two words": (("compare", "digits_tiny", "--try-steps", "9"), "a setting is written try_steps=9,"),
    "an option of nothing": (("train", "digits_tiny", "--seed"), "a setting is written seed=VALUE, without dashes"),
    "an option where there are no settings": (("recipes", "--seed", "1"), "argument '--seed'; see odfa recipes"),
    "an image of text": (("sample", "run", "out=a.png"), "unknown setting 'out'; did you mean count?"),
    "temperature": (("sample", "run", "temperature=nan"), "temperature: expected a finite number, got nan"),
    "a tiny temperature": (("sample", "run", "temperature=1e-300"), "expected 0, or 0.01 to 100, got 1e-300"),
    "texts": (("sample", "run", "count=1000000"), "count: expected 1 to 1000 texts"),
    "tokens": (("sample", "run", "tokens=-1"), "tokens: expected a positive number"),
    "a negative seed": (("sample", "run", "seed=-1"), "seed: expected a number in [0, 2^63), got -1"),
    "bytes for a prompt": (("sample", "run", "prompt=hi \udcff"), "prompt: expected text in UTF-8"),
    "samples of no run": (("sample", "prompt=hi"), "expected a run folder, got prompt=hi; see odfa sample --help"),
    "samples of nowhere": (("sample", "nowhere", "prompt=hi"), "nowhere/config.json is missing"),
    "samples of nothing": (("sample", ""), "RUN: expected a path, got ''"),
    "an option of samples": (("sample", "run", "--prompt", "hi"), "unknown argument '--prompt'"),
}


@pytest.fixture
def run_of_text(tmp_path):
    """The folder of a run as far as its config tells."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text(json.dumps(settings.to_dict(recipes.get("dialogue_tiny"))))


@pytest.mark.parametrize(("words", "clue"), WORDS.values(), ids=WORDS)
def test_destinations_and_numbers_are_checked_first(odfa, tmp_path, run_of_text, words, clue):
    before = sorted(tmp_path.rglob("*"))
    said = odfa(*words)
    assert (said.code, said.out) == (2, "")
    assert clue in said.complaint
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("error", "code", "clue"),
    [
        (OSError(28, "No space left on device", "a.bin"), 1, "a.bin: No space left on device; free space"),
        (FileNotFoundError(2, "No such file or directory", "b"), 2, "b: No such file or directory; see that it exists"),
        (RecursionError("maximum recursion depth exceeded"), 2, "nested too deeply"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), 2, "expected text in UTF-8"),
    ],
    ids=["full disk", "missing file", "deep nesting", "bytes that are no text"],
)
def test_what_the_system_refuses_is_one_line(odfa, monkeypatch, error, code, clue):
    def refuse(*_words, **_settings):
        raise error

    monkeypatch.setattr("odfa.scaling.make_plan", refuse)
    said = odfa("plan", "gpt2")
    assert (said.code, clue in said.complaint) == (code, True)


def test_a_full_disk_leaves_no_half_calibration(odfa, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        said = odfa("opu", "calibrate", "ideal", "inputs=16", "modes=64", "matrix=one_hot", "out=cal")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert said.code == 2
    assert "cannot write the calibration to cal" in said.complaint
    assert list(tmp_path.iterdir()) == []


_PRESSED_WHILE_TORCH_LOADS = """
import signal, sys
class Press:
    def find_spec(self, name, *_):
        if name == "torch":
            signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Press())
sys.argv = ["odfa", "recipes"]
import runpy; runpy.run_module("odfa", run_name="__main__")
"""


def test_ctrl_c_in_the_first_seconds_is_one_line():
    done = subprocess.run([sys.executable, "-c", _PRESSED_WHILE_TORCH_LOADS], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (128 + signal.SIGINT, "")
    assert done.stderr == "odfa: stopped; run the same command again\n"


def test_ctrl_c_that_a_library_turns_into_an_import_error(odfa, monkeypatch):
    def load(*_words, **_settings):
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as error:
            raise ImportError("failed to import") from error

    monkeypatch.setattr("odfa.scaling.make_plan", load)
    said = odfa("plan", "gpt2")
    assert (said.code, said.complaint) == (130, "odfa: stopped; run the same command again")


def test_the_front_door_opens_room_by_room():
    import odfa as front

    assert front.errors.OdfaError is front.OdfaError
    assert {"DFA", "ConfigError"} <= {*dir(front)}
    with pytest.raises(AttributeError, match="no attribute 'Dfa'"):
        _ = front.Dfa
