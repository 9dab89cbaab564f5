"""No setting of a plan is swallowed: each changes the page, or is refused with the reason."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from tests.effects import leaves, others

from odfa import recipes
from odfa.cli import main
from odfa.errors import ConfigError, OdfaError
from odfa.scaling import PlanSettings, make_plan
from odfa.session import RunConfig
from odfa.settings import apply, keys

SITUATIONS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "layout.off": ((), ("saved_backward",)),
    "processor.memory_bytes": (("processor.memory_bytes=3e9",), ("4e9",)),
    "processor.link_bytes_per_s": (("processor.memory_bytes=3e9",), ("1e9",)),
    "processor.host_bytes_per_s": (("processor.memory_bytes=3e9",), ("1e9",)),
    "processor.link_j_per_byte": (("processor.memory_bytes=3e9",), ("1e-9",)),
    "processor.network_bytes_per_s": (("layout.devices=2",), ("1e9",)),
    "processor.name": ((), ("other",)),
    "processor.source": ((), ("other",)),
    "opu.name": ((), ("other",)),
    "opu.source": ((), ("other",)),
    "opu.link_bytes_per_s": ((), ("1e6",)),
    "opu.demodulator.pixels_per_mode": ((), ("2000",)),
    "opu.demodulator.share": (("opu.mirror_rows=50",), ("0.01",)),
    "opu.demodulator.steps": ((), ("3",)),
    "hop_every": (("hops=1",), ("2",)),
    "head_rows": ((), ("1024",)),
}
NEVER = {"processor.uncertainty", "opu.uncertainty", "opu.demodulator.flat_field"}


@cache
def _page(config: PlanSettings) -> object:
    return make_plan("gpt2", config)


def _fate(base: PlanSettings, path: str) -> str:
    words, texts = SITUATIONS.get(path, ((), ()))
    base = apply(base, words)
    usual, fates = _page(base), set()
    for text in texts or others(keys(base)[path]):
        try:
            changed = apply(base, [f"{path}={text}"])
            if changed != base:
                fates.add("acts" if _page(changed) != usual else "nothing")
        except OdfaError:
            fates.add("refused")
        if "acts" in fates:
            return "acts"
    return "nothing" if "nothing" in fates or not fates else "refused"


@pytest.mark.parametrize("demodulator", ["offaxis", "phase", "anchor"])
def test_every_setting_of_a_plan_acts_or_is_refused(demodulator: str) -> None:
    base = apply(PlanSettings(), [f"opu.demodulator={demodulator}"])
    paths = [path for path, _ in leaves(base)]
    if demodulator != "offaxis":
        paths = [path for path in paths if path.startswith("opu.")]
    fates = {path: _fate(base, path) for path in paths}
    assert {path for path, fate in fates.items() if fate == "nothing"} == set()
    refused = {path for path, fate in fates.items() if fate == "refused"}
    assert refused <= NEVER | {path for path in refused if path.startswith("processor.twin_")}


@pytest.mark.parametrize(
    ("model", "word", "told"),
    [
        ("digits_tiny", "context=512", "context: expected nothing set, as the data of digits_tiny say how long"),
        ("digits_tiny", "context=5", "context: expected nothing set, as the data of digits_tiny say how long"),
        ("digits_tiny", "context=1024", "context: expected nothing set, as the data of digits_tiny say how long"),
        ("tests.scaling.test_unheard_plan:rings", "context=4", "context: expected nothing set, as the data of rings"),
        ("tests.scaling.test_unheard_plan:pair", "context=1024", "its function gives the inputs"),
        ("gpt3-2.7b", "tokens=1", "odfa: tokens: expected 2 or more"),
        ("gpt3-2.7b", "tokens=1025", "odfa: tokens: expected whole sequences of 1024 tokens, got 1025"),
        ("gpt3-2.7b", "context=1", "odfa: context: expected 2 to"),
        ("digits_tiny", "processor.uncertainty=0.2", "does not enter the plan, which has no error bars"),
        ("digits_tiny", "processor.twin_pixel_s=1e-9", "in which no digital twin runs"),
        ("digits_tiny", "processor.network_bytes_per_s=1e9", "layout.devices=1 sends nothing"),
        ("digits_tiny", "opu.demodulator.flat_field=true", "a plan is of one step"),
        ("tests.scaling.test_unheard_plan:pair", "tokens=64", "its function gives the inputs"),
        ("tests.scaling.test_unheard_plan:pair", "granularity=linear", "its function gives the inputs"),
        ("tests.scaling.test_unheard_plan:pair", "head_rows=2", "its function gives the inputs"),
        ("FOLDER", "head_rows=2", "a model by folder is planned block by block"),
        ("digits_tiny", "head_rows=2", "memory.head_rows: task=classify computes its loss from all outputs"),
        ("FOLDER", "granularity=sublayer", "a model by folder is planned block by block"),
    ],
)
def test_what_a_plan_does_not_read_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], model: str, word: str, told: str
) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gpt2", "n_layer": 2, "n_embd": 64, "n_head": 2}')
    assert main(["plan", str(tmp_path) if model == "FOLDER" else model, word]) == 2
    assert told in capsys.readouterr().err


def test_a_value_as_it_was_is_no_change() -> None:
    usual = PlanSettings()
    words = [f"processor.uncertainty={usual.processor.uncertainty}", "opu.demodulator.flat_field=false"]
    assert apply(usual, words) == usual
    with pytest.raises(ConfigError, match="flat_field"):
        apply(usual, ["flat_field=true"])


def test_a_context_is_not_cut_to_the_tokens(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "gpt2", "context=100", "tokens=50"]) == 2
    assert "tokens: expected whole sequences of 100 tokens, got 50" in capsys.readouterr().err
    assert make_plan("gpt2", PlanSettings(tokens=50))["rows_per_step"] == 50  # where none is given, it is


def rings() -> RunConfig:
    """A recipe of another package, by a network without sequences."""
    return replace(recipes.whole("digits_tiny"), recipe="rings")


def pair() -> tuple:
    """A module and its inputs."""
    import torch
    from torch import nn

    return nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 4)), (torch.zeros(5, 8),)
