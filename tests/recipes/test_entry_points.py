"""Parts of another package by short words: every group of entry points, from the command line, with their settings."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import odfa.scaling  # its slots are among those that are looked through
from odfa.cli import main
from odfa.recipes import GROUP
from odfa.settings import Settings
from odfa.store.folder import read_config

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
SOURCE = {
    name: text.replace("my_lab.ring_samples:RingSamples", "ring_line").replace("my_lab", "word_lab")
    for name, text in re.findall(r"`my_lab/(\w+\.py)`:\n\n```python\n(.*?)```", PAGE, re.DOTALL)
}
PARTS = '''
from dataclasses import dataclass, replace

import torch

from odfa.demodulate import PhaseSteps
from odfa.demodulate.base import DemodulatorSettings
from odfa.project import Gaussian
from odfa.project.digital import DigitalSettings
from odfa.scaling.opu import get_opu
from odfa.scaling.processor import get_processor
from odfa.session import OptimizerSettings


@dataclass(frozen=True, kw_only=True)
class Mine(DigitalSettings):
    """A matrix of one's own key."""

    shift: int = 1
    """Added to the key."""

    def bare(self):
        """Gaussian."""
        return Gaussian(self.seed + self.shift)


@dataclass(frozen=True, kw_only=True)
class Ada(OptimizerSettings):
    """Adagrad."""

    eps: float = 1e-10
    """Added to the root."""

    @property
    def moments(self):
        """One."""
        return 1

    def build(self, groups, *, stochastic=False):
        """torch's."""
        return torch.optim.Adagrad(groups, lr=self.learning_rate, eps=self.eps)


@dataclass(frozen=True, kw_only=True)
class Steps(DemodulatorSettings):
    """Phase steps."""

    phases: int = 3
    """Of the reference."""

    def build(self):
        """odfa's."""
        return PhaseSteps(self.phases)


def chip():
    """A processor."""
    return replace(get_processor("a100"), name="chip")


def lamp():
    """An OPU of a plan."""
    return replace(get_opu("opu-2021"), name="lamp")
'''
POINTS = {
    "odfa.rules": {"signs": "word_lab.signs:Signs", "backprop": "word_lab.signs:Signs"},
    "odfa.encoders": {"largest": "word_lab.largest:LargestSettings"},
    "odfa.opus": {"dim": "word_lab.dim:DimOpu"},
    "odfa.demodulators": {"steps": "word_lab.parts:Steps"},
    "odfa.projections": {"mine": "word_lab.parts:Mine"},
    "odfa.optimizers": {"ada": "word_lab.parts:Ada"},
    "odfa.data": {"rings": "word_lab.rings:RingData"},
    "odfa.networks": {"rings": "word_lab.rings:RingNetwork"},
    "odfa.tasks": {"rings": "word_lab.rings:Rings"},
    "odfa.samples": {"ring_line": "word_lab.ring_samples:RingSamples"},
    "odfa.figures": {"seconds": "word_lab.seconds:Seconds"},
    "odfa.processors": {"chip": "word_lab.parts:chip"},
    "odfa.planned_opus": {"lamp": "word_lab.parts:lamp"},
    "odfa.recipes": {"rings": "word_lab.rings:rings", "digits_tiny": "word_lab.rings:rings"},
}


def _install(folder: Path, name: str, points: dict[str, dict[str, str]]) -> None:
    """A distribution as pip leaves it."""
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", encoding="utf-8")
    lines = [f"[{group}]\n" + "\n".join(f"{word} = {at}" for word, at in of.items()) for group, of in points.items()]
    (info / "entry_points.txt").write_text("\n".join(lines), encoding="utf-8")


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    site = tmp_path / "site"
    (site / "word_lab").mkdir(parents=True)
    for name, text in {**SOURCE, "parts.py": PARTS, "__init__.py": ""}.items():
        (site / "word_lab" / name).write_text(text, encoding="utf-8")
    _install(site, "word-lab", POINTS)
    monkeypatch.syspath_prepend(site)
    for name in [name for name in sys.modules if name.partition(".")[0] == "word_lab"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.chdir(tmp_path)
    return site


Say = Callable[..., tuple[int, dict, str]]


@pytest.fixture
def say(lab: Path, capsys: pytest.CaptureFixture[str]) -> Say:
    def said(*words: str) -> tuple[int, dict, str]:
        code = main([*words, "--json"])
        out, err = capsys.readouterr()
        return code, json.loads(out) if out else {}, err

    return said


QUICK = ("steps=2", "tensorboard=false", "threads=1")


@pytest.mark.parametrize(
    ("words", "path", "value"),
    [
        (("rule=signs", "rule.strength=0.002"), "rule.strength", 0.002),
        (("arm=tdfa", "encoder=largest", "k=2"), "projection.encoder.k", 2),
        (("arm=odfa", "opu=dim", "transmission=0.2"), "projection.opu.transmission", 0.2),
        (("arm=odfa", "demodulator=steps", "phases=4"), "projection.demodulator.phases", 4),
        (("projection=mine", "projection.shift=5"), "projection.shift", 5),
        (("optimizer=ada", "eps=0.1", "learning_rate=0.05"), "optimizer.eps", 0.1),
        (("task=rings", "data=rings", "network=rings", "points=60"), "data.points", 60),
        (("task=rings", "data=rings", "network=rings", "network.layers=3"), "network.layers", 3),
        (("task=rings", "data=rings", "network=rings", "smoothing=0.1"), "task.smoothing", 0.1),
    ],
)
def test_a_registered_word_chooses_a_part_whose_settings_are_reached(
    say: Say, words: tuple[str, ...], path: str, value: float
) -> None:
    code, done, err = say("train", "digits_tiny", *words, *QUICK, "--run-dir", "run")
    assert (code, done.get("steps")) == (0, 2), err
    found: object = read_config("run")
    for name in path.split("."):
        found = getattr(found, name)
    assert found == value
    part = json.loads(Path("run/config.json").read_text())
    for name in path.split(".")[:-1]:
        part = part[name]
    assert part["type"].startswith("word_lab.")  # where it is, not a word that another package may take
    assert say("train", "--resume", "run")[1] == done


def test_a_registered_recipe_trains_compares_is_planned_and_listed(say: Say, capsys: pytest.CaptureFixture) -> None:
    code, done, err = say("train", "rings", *QUICK, "points=40", "--run-dir", "run")
    assert (code, done.get("steps")) == (0, 2), err
    words = ("arms=bp,dfa:signs", "seeds=1", "tries=1", "points=40")
    assert say("compare", "rings", *words, *QUICK, "--run-dir", "both")[0] == 0
    assert Path("both/seconds.png").is_file()
    code, sampled, err = say("sample", "run", "points=3", "reach=1")
    assert (code, len(sampled["rings"]["run"])) == (0, 3), err
    code, page, err = say("plan", "rings", "processor=chip", "opu=lamp", "processor.power_w=500", "opu.power_w=40")
    assert (code, page["processor"]["name"], page["opu"]["name"]) == (0, "chip", "lamp"), err
    rows = {row["name"]: row for row in say("recipes")[1]["recipes"]}
    assert rows["rings"]["source"] == "word-lab: word_lab.rings:rings"
    with pytest.raises(SystemExit):
        main(["train", "rings", "--help"])
    assert "network.layers=2" in capsys.readouterr().out
    assert "did you mean rings" in say("train", "ring")[2]


def test_a_word_of_odfa_keeps_its_meaning(say: Say) -> None:
    assert say("train", "digits_tiny", "rule=backprop", *QUICK, "--run-dir", "run")[0] == 0
    config = read_config("run")
    assert (config.recipe, type(config.rule).__module__) == ("digits_tiny", "odfa.engine.rules.backprop")


@pytest.mark.parametrize(
    "words",
    [("digits_tiny", "rule=signs"), ("digits_tiny", "optimizer=ada"), ("rings",)],
    ids=["rule", "part", "recipe"],
)
def test_a_word_of_two_packages_is_refused(lab: Path, say: Say, words: tuple[str, ...]) -> None:
    other = {"odfa.rules": {"signs": "a_b:X"}, "odfa.optimizers": {"ada": "a_b:X"}, "odfa.recipes": {"rings": "a_b:X"}}
    _install(lab, "other-lab", other)
    code, _, err = say("train", *words, "--dry-run")
    assert code == 2
    assert "is registered more than once (other-lab: a_b:X, word-lab: word_lab." in err
    assert "name the one you mean package.module:Name" in err


def test_what_is_registered_and_is_no_such_part_is_one_line(lab: Path, say: Say) -> None:
    encoders = {"wrong": "word_lab.signs:Signs", "gone": "word_lab.gone:X"}
    _install(lab, "wrong-lab", {"odfa.encoders": encoders, "odfa.recipes": {"no": "json:dumps"}})
    for words, told in {
        ("digits_tiny", "arm=tdfa", "encoder=wrong"): "wrong: expected settings of the kind EncoderSettings",
        ("digits_tiny", "arm=tdfa", "encoder=gone"): "cannot be imported (ModuleNotFoundError",
        ("no",): "recipe json:dumps: expected a function without arguments",
    }.items():
        code, _, err = say("train", *words, "--dry-run")
        assert (code, told in err, err.count("\n")) == (2, True, 1), err


def _slots(kind: type[Settings]) -> dict[str, type[Settings]]:
    found = {kind.registered: kind} if vars(kind).get("registered") else {}
    for inner in kind.__subclasses__():
        found |= _slots(inner)
    return {group: slot for group, slot in found.items() if slot.__module__.startswith("odfa.")}


def test_the_table_of_groups_is_the_code_s() -> None:
    told = dict(re.findall(r"^\| `(odfa\.\w+)` \| `([\w.]+)` \|", PAGE, re.MULTILINE))
    slots = {group: f"{slot.__module__}.{slot.__qualname__}" for group, slot in _slots(Settings).items()}
    assert odfa.scaling.Opu in _slots(Settings).values()
    assert told == slots | {GROUP: "odfa.session.RunConfig"}
    assert set(POINTS) == set(told)
