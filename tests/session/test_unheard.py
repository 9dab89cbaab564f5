"""No setting goes unheard: whatever a run's tree holds is read by what is built from it, under every arm.

Reading is watched where the parts read their fields; the settings' own machinery (trees, JSON, paths, checks of ranges)
does not count. What nobody asks for cannot be set in the first place (`tests/settings`).
"""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tests.effects import leaves

from odfa import recipes, train
from odfa.arms import ARMS
from odfa.session import dry_run
from odfa.settings import Settings, unread

MACHINERY = (
    "/odfa/settings/",
    "/odfa/session/places.py",
    "/odfa/session/config.py",
    "/odfa/arms.py",
    "/dataclasses.py",
    "<",
)
WAITING = {
    "epochs": "steps are given",
    "projection.opu.sensor.speckle_fill": "exposure without a reference arm",
    "projection.opu.reference.ripple_px": "no ripple",
    "projection.guard.warn_below": "the matrix has not drifted",
    "projection.guard.when_lost": "the matrix is not lost",
    "projection.guard.max_recalibrations": "the matrix is not lost",
}
"""Settings that are read when something happens that does not happen here."""


@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize("recipe", ["digits_tiny", "climate_vit_tiny"])
def test_every_setting_of_every_arm_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: str, arm: str
) -> None:
    often = {"steps": 3, "log_every": 1, "checkpoint_every": 2, "evaluate_every": 2, "threads": 1}
    config = replace(recipes.get(recipe, arm), **often)
    read: set[tuple[type, str]] = set()

    def watched(self: Settings, name: str) -> object:
        frame = sys._getframe(1)
        code = frame.f_code
        own = code.co_name in ("__post_init__", "unread") or any(part in code.co_filename for part in MACHINERY)
        if not own:
            read.add((type(self), name))
        return object.__getattribute__(self, name)

    with monkeypatch.context() as patched:
        patched.setattr(Settings, "__getattribute__", watched, raising=False)
        dry_run(config)
        train.run(config, tmp_path / "run", progress=False)
    unheard = {path for path, kind in leaves(config) if (kind, path.rpartition(".")[2]) not in read}
    assert unheard <= {*WAITING, *unread(config)}, unheard
    assert {(type(config.optimizer), "learning_rate"), (type(config), "batch_size")} <= read
