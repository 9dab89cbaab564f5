"""Settings of the light path: kinds, JSON, same draws, and nothing that is set without being heard."""

import pickle
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_origin

import pytest
import torch

from odfa import Anchor, Gaussian, Guard, OffAxis, Optical, PhaseSteps, Ternary, Twin
from odfa.encode import BitPlanes
from odfa.errors import ConfigError, OdfaError
from odfa.keys import mix
from odfa.project import Encoded, GaussianSettings, ProjectionSettings
from odfa.settings import Settings, apply, from_dict, keys, kinds_of, to_dict


@dataclass(frozen=True, kw_only=True)
class Root(Settings):
    """A run, as far as light goes."""

    seed: int = 5
    """Key of the run."""
    projection: ProjectionSettings = field(default_factory=GaussianSettings)
    """The projection."""


TREES = {
    "gaussian": [],
    "hadamard, sampled": ["projection=hadamard", "encoder=sampled", "repeats=3"],
    "rademacher, bits": ["projection=rademacher", "encoder=bits"],
    "gaussian, relative_max": ["encoder=relative_max"],
    "identity, sign": ["projection=identity", "encoder=sign"],
    "optical": ["projection=optical"],
    "optical, no noise": ["projection=optical", "opu=ideal", "encoder=best_cosine", "demodulator=offaxis"],
    "optical, faults": [
        "projection=optical", "demodulator=anchor", "guard.when_lost=recalibrate", "leak=0.01", "stuck_off=0.01",
        "warmup_rad=0.1", "grain_px=2", "opu.seed=3",
    ],
    "optical, ripple": ["projection=optical", "demodulator=offaxis", "ripple=0.1", "stuck_on=0.01"],
    "optical, no time": ["projection=optical", "demodulator=phase3", "row_s=none", "guard=none"],
}  # fmt: skip
UNHEARD = {"warmup_s", "ripple_px", "max_recalibrations", "overhead_s"}
"""Refused where what they belong to is off."""


def built(tree: Root) -> bytes:
    return pickle.dumps(tree.projection.build(tree.seed))


def projected(tree: Root) -> torch.Tensor:
    """What two errors become; noise is drawn by the run's key, so that equal settings give equal numbers."""
    e_ND = torch.linspace(-1, 1, 24).sin().view(2, 12)
    return tree.projection.build(tree.seed).shaped(12, 6).project(e_ND)


def other(value: Any, hint: Any) -> str:
    """Another value of the same type, as it is written."""
    hints = [inner for inner in get_args(hint) if inner is not type(None)] if type(None) in get_args(hint) else [hint]
    if get_origin(hints[0]) is Literal:
        return str(next(choice for choice in get_args(hints[0]) if choice != value))
    if isinstance(value, tuple):
        return ",".join(str(part - 1 if isinstance(part, int) else part / 2) for part in value)
    if hints[0] is bool:
        return str(not value)
    if hints[0] is int:
        return "9" if value is None else str(value + 1 if value < 4 else value - 1)
    if hints[0] is float:
        return "0.01" if value is None else repr(value * 0.9 if value else 0.5)
    return "another"


@pytest.mark.parametrize("words", TREES.values(), ids=TREES)
def test_a_tree_is_built_and_comes_back_from_json(words):
    tree = apply(Root(), words)
    assert from_dict(to_dict(tree), Root) == tree
    assert built(from_dict(to_dict(tree), Root)) == built(tree)
    assert tree.projection.electronic.startswith("all")
    assert tree.projection.label


@pytest.mark.parametrize("words", TREES.values(), ids=TREES)
def test_every_setting_acts_or_is_refused(words):
    tree = apply(Root(), words)
    before = built(tree)
    for path, key in keys(tree.projection).items():
        if key.settings is not None:
            continue
        written = f"projection.{path}={other(key.value, key.hint)}"
        try:
            changed = apply(tree, [written])
            assert changed != tree, written
            after = built(changed)
        except OdfaError as error:
            unread = str(error).endswith("leave it out")
            if unread:
                assert torch.equal(projected(apply(tree, [written], heard=False)), projected(tree)), written
            elif path.rpartition(".")[2] not in UNHEARD | {"calibration"}:
                raise AssertionError(written) from error
        else:
            assert after != before, f"{written} has no effect"


def test_no_kind_is_left_out():
    assert set(kinds_of(ProjectionSettings)) == {"gaussian", "hadamard", "identity", "optical", "rademacher"}


@pytest.mark.parametrize(
    ("words", "made"),
    [
        (["projection.seed=3"], lambda: Gaussian(3)),
        (["projection.seed=3", "encoder=stochastic"], lambda: Encoded(Gaussian(3), Ternary(seed=mix(0x7EA10003, 5)))),
        (["encoder=bits", "bits=4"], lambda: Encoded(Gaussian(0), BitPlanes(4))),
        (
            ["projection=optical", "opu.seed=2", "guard.every=7"],
            lambda: Optical(
                Twin.preset("opu-2021", seed=2, noise_seed=mix(0x7EA10004, 5)),
                encoder=Ternary(seed=mix(0x7EA10003, 5)),
                demodulator=PhaseSteps(4),
                guard=Guard(every=7),
            ),
        ),
        (
            ["projection=optical", "opu=ideal", "demodulator=offaxis", "encoder=sampled", "guard=none"],
            lambda: Optical(
                Twin.ideal(noise_seed=mix(0x7EA10004, 5)),
                encoder=Ternary("sampled", seed=mix(0x7EA10003, 5)),
                demodulator=OffAxis(),
            ),
        ),
        (
            ["projection=optical", "opu=twin", "demodulator=anchor", "sensor.bits=4"],
            lambda: Optical(
                apply(Root(), ["projection=optical", "opu=twin", "bits=4"]).projection.opu.build(mix(0x7EA10004, 5)),
                encoder=Ternary(seed=mix(0x7EA10003, 5)),
                demodulator=Anchor(),
                guard=Guard(),
            ),
        ),
    ],
)
def test_settings_build_what_one_would_write(words, made):
    ours, theirs = apply(Root(), words).projection.build(5).shaped(12, 9), made().shaped(12, 9)
    assert ours.identity == theirs.identity
    e_ND = torch.randn(6, 12, generator=torch.Generator().manual_seed(1))
    assert torch.equal(ours.project(e_ND), theirs.project(e_ND))
    assert torch.equal(ours.project(e_ND), theirs.project(e_ND))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["opu.sensor.bits=4"], "unknown setting 'opu.sensor.bits'; these have it: projection.encoder=bits"),
        (["encoder.repeats=2"], "these have it: projection.encoder=s"),
        (["encoder=sampled", "repeats=0"], "projection.encoder.repeats: expected 1 to 10000, got 0"),
        (["encoder=relative_max", "threshold=1"], r"projection.encoder.threshold: expected a number in \[0, 1\)"),
        (["projection=optical", "encoder=none"], "projection.encoder: expected"),
        (["projection=optical", "sensor.bits=40"], "projection.opu.sensor.bits: expected an integer of between 1 and"),
        (["projection=optical", "rate_hz=0"], "projection.opu.rate_hz: expected 0.1 to 1e"),
        (["projection=optical", "warmup_s=9"], "projection.opu.drift.warmup_s: expected nothing set with warmup_rad"),
        (["projection=optical", "demodulator=phase", "steps=5"], "projection.demodulator.steps: expected 3 or 4"),
        (["projection=optical", "opu=opu-2020"], "projection.opu: expected opu-2021"),
        (["projection=optical", "calibration=there", "guard=none"], "projection.guard: expected a guard"),
        (["projection.seed=-1"], "projection.seed: expected a number in"),
    ],
)
def test_what_does_not_hold_is_told_by_its_key(words, told):
    with pytest.raises(ConfigError, match=told):
        apply(Root(), words)


def test_settings_that_hold_only_together_may_come_in_any_order():
    words = ["warmup_s=9", "warmup_rad=0.1"]
    orders = [apply(Root(), ["projection=optical", *order]) for order in (words, words[::-1])]
    assert orders[0] == orders[1]


def test_projections_check_shapes_before_a_frame_is_shown():
    fits = {"run_seed": 0, "num_inputs": 10, "num_outputs": 64, "widths": (32, 32)}
    for words in TREES.values():
        projection = apply(Root(), words).projection
        at_block = {"num_inputs": 32} if projection.tap(("a", "b")) == "b" else {}
        projection.check(**fits | at_block)
    identity = apply(Root(), ["projection=identity"]).projection
    assert (identity.tap(("a", "b")), Root().projection.tap(("a", "b"))) == ("b", "logits")
    with pytest.raises(ConfigError, match="blocks of one width"):
        identity.check(**{**fits, "widths": (3, 4)})
    with pytest.raises(ConfigError, match=r"as wide as the blocks' signals, 32, .* got 10"):
        identity.check(**fits)
    with pytest.raises(OdfaError, match="mirrors"):
        apply(Root(), ["projection=optical"]).projection.check(**{**fits, "num_inputs": 2_000_000})
