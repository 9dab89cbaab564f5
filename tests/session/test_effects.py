"""Every setting of every arm does something or is refused: each is changed, alone, and the whole run is compared.

What is compared are files, metrics, weights, light and the plan (`effects.effect`), so that a setting which is read and
then lost on the way is found too. Settings that act in a certain situation only are put into it (`SITUATIONS`).
"""

import itertools
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.effects import effect, leaves, others
from tests.talk import small_run, write_corpus

from odfa import recipes
from odfa.arms import ARMS
from odfa.cli import main
from odfa.cli.arm_words import CompareWords, refuse_without_effect
from odfa.errors import ConfigError, OdfaError
from odfa.session import RunConfig
from odfa.settings import apply, keys, unread
from odfa.store.folder import read_config

OFTEN = {"steps": 3, "log_every": 1, "checkpoint_every": 2, "evaluate_every": 2, "threads": 1, "tensorboard": False}
LOST = ("opu.drift.decorrelation_s=0.5", "guard.every=30")
SITUATIONS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "epochs": (("steps=none", "limit=50", "epochs=2"), ("1",)),
    "optimizer.final_share": (("schedule=cosine",), ("0.5",)),
    "data.validation": ((), ("2",)),
    "task.unit": ((), ("other",)),
    "rule.hop_every": (("hops=1",), ("2",)),
    "projection": ((), ("gaussian",)),
    "feedback": ((), ("default",)),
    "projection.encoder": ((), ("stochastic",)),
    "projection.encoder.threshold": ((), ("0.05",)),
    "projection.opu.sensor.dark_e_per_s": ((), ("1e5",)),
    "projection.opu.sensor.speckle_fill": (("demodulator=anchor",), ("0.1",)),
    "projection.opu.reference.ripple_px": (("ripple=0.2",), ("16",)),
    "projection.opu.reference.carrier_cpp": (("demodulator=offaxis",), ("0.3,0.35",)),
    "projection.opu.reference.pupil_cpp": (("demodulator=offaxis",), ("0.1",)),
    "projection.opu.mirrors.seed": (("stuck_off=0.2",), ("1",)),
    "projection.opu.medium.dense_entries": ((), ("64",)),
    "projection.opu.drift.warmup_s": (("warmup_rad=1",), ("1",)),
    "projection.demodulator.steps": ((), ("3",)),
    "projection.guard.every": ((), ("30",)),
    "projection.guard.correct": (("opu.drift.phase_drift_rad_per_s=1", "guard.every=30"), ("false",)),
    "projection.guard.warn_below": (LOST, ("0.9999",)),
    "projection.guard.stop_below": (LOST, ("0.1",)),
    "projection.guard.when_lost": (LOST, ("recalibrate",)),
    "projection.guard.max_recalibrations": ((*LOST, "when_lost=recalibrate"), ("0",)),
}
"""Setting → words that make the situation in which it acts, and other values for it."""
ELSEWHERE = {
    "device": "one machine has one processor: tests/session/test_device.py",
    "compile": "the same numbers to rounding, which may be none: tests/session/test_compiled.py",
    "data.path": "files: tests/data",
    "rule.per_sample": "errors per token: tests/engine/test_rows.py",
    "rule.batch_axes": "errors and outputs of three axes: tests/engine/test_rows.py",
    "projection.opu.name": "a part of the OPU's id, by which calibrations are told apart: tests/opu/test_settings.py",
    "projection.stored": "memory alone, the same numbers bit for bit: tests/project/test_gaussian.py",
    "projection.calibration": "a folder: tests/project/test_calibrating.py",
}
NEVER = {
    # no embeddings, no branches, a loss of all outputs
    "digits_tiny": {"optimizer.embedding_share", "feedback.granularity", "memory.head_rows"},
    "bp": {"projection", "feedback", "memory.activations", "align_every"},
    "shallow": {"projection", "feedback", "align_every"},
    "identity": {"rule.shared", "projection.encoder", "feedback.group"},
}
"""What a recipe or an arm refuses for every other value, beside what `unread` names."""


class Runs:
    """Runs in folders of their own; equal trees run once."""

    def __init__(self, place: Path) -> None:
        self.place, self.count, self.known = place, itertools.count(), dict[RunConfig, dict]()

    def __call__(self, config: RunConfig) -> dict:
        if config not in self.known:
            self.known[config] = effect(config, self.place / str(next(self.count)))
        return self.known[config]


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path)


def _fate(runs: Runs, base: RunConfig, path: str) -> str:
    """acts, refused (whatever the value), or nothing."""
    words, texts = SITUATIONS.get(path, ((), ()))
    try:
        base = apply(base, words)
    except ConfigError:  # this arm has no such situation
        texts = ()
    place, fates = keys(base)[path], set()
    for text in texts or others(place):
        try:
            changed = apply(base, [f"{path}={text}"])
            if changed == base:
                continue
            fates.add("acts" if runs(changed) != runs(base) else "nothing")
        except OdfaError:
            fates.add("refused")
        if "acts" in fates:
            return "acts"
    return "nothing" if "nothing" in fates or not fates else "refused"


def _fates(runs: Runs, base: RunConfig, paths: Iterable[str]) -> dict[str, str]:
    return {path: _fate(runs, base, path) for path in paths if path not in ELSEWHERE and not keys(base)[path].fixed}


@pytest.mark.parametrize("arm", ARMS)
def test_every_setting_of_every_arm_acts_or_is_refused(runs: Runs, arm: str) -> None:
    base = replace(recipes.get("digits_tiny", arm), **OFTEN)
    fates = _fates(runs, base, [path for path, _ in leaves(base)])
    assert {path for path, fate in fates.items() if fate == "nothing"} == set()
    refused = {path for path, fate in fates.items() if fate == "refused"}
    assert refused <= NEVER["digits_tiny"] | NEVER.get(arm, set())


KINDS = {
    "tdfa": (
        *(f"projection={kind}" for kind in ("gaussian", "hadamard", "rademacher")),
        *(
            f"encoder={kind}"
            for kind in ("stochastic", "sampled", "best_cosine", "relative_max", "sign", "bits", "trits", "spread")
        ),
        *(f"optimizer={kind}" for kind in ("adam", "muon", "sgd")),
        *(f"network={kind}" for kind in ("mlp", "cnn", "vit")),
        *(f"rule={kind}" for kind in ("random", "aligned", "electronic", "exact", "low_rank")),
    ),
    "dfa": tuple(f"rule={kind}" for kind in ("drtp", "kolen_pollack", "forward_gradient")),
    "odfa": tuple(f"demodulator={kind}" for kind in ("phase", "offaxis", "anchor")),
}


@pytest.mark.parametrize(("arm", "word"), [(arm, word) for arm, words in KINDS.items() for word in words])
def test_every_setting_of_a_kind_acts_or_is_refused(runs: Runs, arm: str, word: str) -> None:
    more = ("rule.rank=2", "rule.every=1") if word in ("rule=aligned", "rule=electronic") else ()
    more = ("rule.rank=2",) if word == "rule=low_rank" else more
    small = ("network.width=8", "network.layers=2") if word in ("network=cnn", "network=vit") else ()
    base = apply(replace(recipes.get("digits_tiny", arm), **OFTEN), [word, *more, *small])
    part = next(path for path in keys(base) if path.rpartition(".")[2] == word.partition("=")[0])
    own = [path for path, _ in leaves(base) if path.startswith(f"{part}.")]
    fates = _fates(runs, base, own)
    assert {path: fate for path, fate in fates.items() if fate != "acts"} == dict.fromkeys(
        NEVER["digits_tiny"] & set(fates), "refused"
    )


def test_settings_of_a_field_network_and_its_data_act(runs: Runs) -> None:
    base = replace(recipes.get("climate_vit_tiny", "dfa"), **OFTEN)
    own = ("task.", "network.", "data.", "feedback.")
    fates = _fates(runs, base, [path for path, _ in leaves(base) if path.startswith(own)])
    of_head = {"network.head_scale": "refused"}
    assert {path: fate for path, fate in fates.items() if fate != "acts"} == of_head
    assert set(_fates(runs, apply(base, ["rule=random"]), of_head).values()) == {"acts"}


def test_settings_of_a_language_model_and_its_data_act_or_are_refused(runs: Runs, tmp_path: Path) -> None:
    base = replace(small_run(write_corpus(tmp_path), "dfa", "aligned"), **OFTEN)
    own = ("network.", "data.", "feedback.", "optimizer.embedding_share", "memory.head_rows")
    fates = _fates(runs, base, [path for path, _ in leaves(base) if path.startswith(own)])
    of_head = {"network.tied": "refused", "network.head_scale": "refused"}
    assert {path: fate for path, fate in fates.items() if fate != "acts"} == of_head
    assert set(_fates(runs, apply(base, ["rule=random"]), of_head).values()) == {"acts"}


@pytest.mark.parametrize(
    ("recipe", "words", "told"),
    [
        ("digits", ["optimizer.embedding_share=0.5"], "network=mlp has no embeddings"),
        ("dialogue_tiny", ["epochs=3"], "steps=1000 says how long the run is"),
        ("dialogue_tiny", ["arm=odfa:aligned", "head_scale=0.5"], "rule=aligned sets the head to weights of its own"),
        ("digits", ["arm=odfa", "pupil_cpp=0.1"], "no demodulator reads it with a stepped reference arm"),
        ("digits", ["arm=odfa", "demodulator=anchor", "ratio=2"], "with a blocked reference arm"),
        ("digits", ["arm=odfa", "mirrors.seed=2"], "no mirror is stuck"),
    ],
)
def test_the_reason_is_said_by_train_and_by_a_comparison_that_has_no_other_arm(
    capsys: pytest.CaptureFixture[str], recipe: str, words: list[str], told: str
) -> None:
    assert main(["train", recipe, *words, "--dry-run"]) == 2
    assert told in capsys.readouterr().err
    arm, *rest = words if words[0].startswith("arm=") else ["arm=dfa", *words]
    if recipe != "digits" or arm != "arm=dfa":  # whether there are embeddings is known when a run is built
        assert main(["compare", recipe, arm.replace("arm=", "arms="), *rest]) == 2
        assert told in capsys.readouterr().err


def test_what_one_arm_of_a_comparison_reads_is_taken() -> None:
    recipe = recipes.whole("dialogue_tiny")
    for arms in ("bp,odfa:aligned", "odfa:aligned"):
        settings = [f"arms={arms}", "head_scale=0.5"]
        words = apply(CompareWords(run=recipe), settings, heard=False)
        if "bp" in arms:
            refuse_without_effect(CompareWords(run=recipe), words, settings)
    with pytest.raises(ConfigError, match=r"head_scale=0\.5: none of the arms odfa:aligned reads it"):
        refuse_without_effect(CompareWords(run=recipe), words, settings)
    assert apply(recipe, [f"head_scale={recipe.network.head_scale}"]) == recipe  # as it was: nothing to refuse


def test_recorded_runs_hold_what_is_not_read_and_load() -> None:
    folders = sorted((Path(__file__).parents[2] / "docs/results").glob("*/**/config.json"))
    configs = [read_config(file.parent) for file in folders]
    assert any("network.head_scale" in unread(config) for config in configs) or not configs
