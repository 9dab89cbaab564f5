"""`odfa plan` and `odfa study`: the page, every kind of model, and words that are off."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from odfa import recipes
from odfa.cli import main
from odfa.scaling import PLANNED_METHODS, PlanSettings, make_plan


@pytest.fixture
def odfa(capsys, tmp_path, monkeypatch):
    """Run a command in an empty folder: exit code, JSON, standard error."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str):
        code = main([*words, "--json"])
        said = capsys.readouterr()
        return code, json.loads(said.out), said.err

    return run


def test_a_page_says_what_fits_what_it_costs_and_what_to_change(odfa):
    code, page, _ = odfa("plan", "gpt3-2.7b", "processor=a100", "opu=opu-2021", "tokens=8192")
    assert code == 0
    assert page["parameters"] == pytest.approx(2.78e9, rel=0.01)
    assert [row["method"] for row in page["methods"]] == list(PLANNED_METHODS)
    rows = {row["method"]: row for row in page["methods"]}
    assert not rows["bp"]["fits"]
    assert rows["bp+checkpointing"]["fits"]
    assert rows["bp+checkpointing"]["memory_bytes"]["total"] < rows["bp"]["memory_bytes"]["total"]
    assert rows["odfa"]["limit"] == "light"
    assert rows["odfa"]["light"]["frames"] == 2 * 8192
    assert rows[page["fastest"]]["fits"]
    assert page["change_first"][0]["change"].startswith("one error vector per sequence")
    assert page["change_first"] == sorted(page["change_first"], key=lambda row: row["step_s"])


def test_a_page_for_people(capsys):
    assert main(["plan", "digits"]) == 0
    said = capsys.readouterr().out
    assert "Fastest that fits" in said
    assert "odfa+streaming" in said


@pytest.mark.parametrize(
    "recipe", ["digits", "fashion_vit", "fashion_cnn_tiny", "fashion_unet_tiny", "climate_vit_tiny"]
)
def test_every_kind_of_recipe_can_be_planned(recipe):
    page = make_plan(recipe, PlanSettings())
    assert page["parameters"] > 1000
    assert {"bp", "dfa", "odfa"} <= {row["method"] for row in page["methods"]}


def test_a_recipe_is_planned_as_large_as_it_is_trained():
    page = make_plan("dialogue_tiny", PlanSettings())
    from odfa.session import dry_run

    assert page["parameters"] == dry_run(recipes.get("dialogue_tiny"))["parameters"]
    assert page["rows_per_step"] == 8 * 64
    assert page["projection"] == {"inputs": 1024, "outputs": 128}


def test_tokens_set_the_batch_of_a_recipe():
    page = make_plan("dialogue_tiny", PlanSettings(tokens=640))
    assert page["rows_per_step"] == 640


def test_a_folder_of_transformers_is_walked(tmp_path):
    from transformers import LlamaConfig

    LlamaConfig(
        hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=2, vocab_size=256
    ).save_pretrained(tmp_path)
    page = make_plan(str(tmp_path), PlanSettings(tokens=256, context=64))
    assert page["blocks"] == 3
    assert page["projection"] == {"inputs": 256, "outputs": 64}


class Deep(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(16, 16) for _ in range(5))
        self.head = nn.Linear(16, 3)

    def forward(self, x_ND):
        for block in self.blocks:
            x_ND = block(x_ND).relu()
        return self.head(x_ND)


class Curious(Deep):
    def forward(self, x_ND):
        return super().forward(x_ND) * float(x_ND.sum())


MODULE = """
from dataclasses import replace

import torch

from odfa.scaling import OPUS, PROCESSORS
from tests.scaling.test_plan import Curious, Deep

def deep():
    return Deep(), (torch.empty(7, 16),)

def curious():
    return Curious(), (torch.empty(7, 16),)

def nothing():
    return None

def slow_gpu():
    return replace(PROCESSORS["v100"], name="slow", matmul_flops_per_s=1e12)

small_opu = replace(OPUS["opu-2021"], name="small", mirror_rows=10, mirror_columns=10)
"""


@pytest.fixture
def zoo(tmp_path, monkeypatch):
    (tmp_path / "zoo_of_models.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)


def test_any_module_by_import_path(zoo):
    page = make_plan("zoo_of_models:deep", PlanSettings())
    assert (page["blocks"], page["rows_per_step"]) == (5, 7)
    assert page["parameters"] == sum(p.numel() for p in Deep().parameters())
    assert "bp+checkpointing" in page["refused"]


def test_own_processors_and_opus_are_named_as_models_are(zoo, odfa):
    code, page, _ = odfa(
        "plan", "zoo_of_models:deep", "processor=zoo_of_models:slow_gpu", "opu=zoo_of_models:small_opu"
    )
    assert (code, page["processor"]["name"], page["opu"]["name"]) == (0, "slow", "small")
    # fields are set on top, wherever they stand among the words
    _, page, _ = odfa("plan", "zoo_of_models:deep", "opu.mirror_rows=1", "opu=zoo_of_models:small_opu")
    assert "odfa" not in page["refused"]
    _, page, _ = odfa(
        "plan", "zoo_of_models:deep", "opu.mirror_columns=1", "opu.mirror_rows=1", "opu=zoo_of_models:small_opu"
    )
    assert "1 mirrors" in page["refused"]["odfa"]


def test_a_study_of_an_own_processor(zoo, odfa, tmp_path):
    from tests.scaling.test_fit import measurement

    measurement().write(tmp_path / "m.json")
    words = ("families=deep", "processors=zoo_of_models:slow_gpu", "opus=opu-2021", "vectors=token", "out=here")
    code, found, _ = odfa("study", "scaling", "measured=m.json", *words)
    assert code == 0
    assert {row["processor"] for row in found["crossovers"]} == {"slow"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("gpt3-2.6b",), "did you mean gpt3-2.7b"),
        (("gpt2", "processor=a101"), "processor: expected a100"),
        (("gpt2", "opu=opu2021"), "opu: expected opu-2021"),
        (("gpt2", "tokens=0"), "tokens: expected a positive number, got 0"),
        (("dialogue_tiny", "tokens=100"), "expected a multiple"),
        (("gpt2", "opu.rate_hz=0"), "rate_hz: expected"),
        (("gpt2", "opu.rate_hz=-2000"), "rate_hz: expected"),
        (("gpt2", "processor.bytes_per_s=0"), "bytes_per_s: expected"),
        (("gpt2", "vectors=word"), "expected token or sequence or batch"),
        (("gpt2", "devices=0"), "devices: expected a positive number"),
        (("gpt2", "colour=red"), "unknown setting 'colour'"),
        (("gpt:24",), "gpt:DEPTHxWIDTH"),
        (("gpt:2x100",), "multiple of 64"),
        (("processor=a100",), "expected a model first"),
        (("nowhere:model",), "cannot be imported"),
        (("zoo_of_models:curious",), "asks for a value"),
        (("zoo_of_models:nothing",), "must be a function without arguments"),
    ],
)
def test_words_that_are_off_get_one_line(zoo, odfa, words, said):
    code, answer, err = odfa("plan", *words)
    assert code == 2
    assert said in answer["message"]
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("measure", "repeats=0"), "repeats"),
        (("measure", "memory=maybe"), "memory: expected true or false"),
        (("measure", "depth=3"), "unknown setting"),
        (("scaling", "processors=b52"), "study.processors: expected"),
        (("scaling", "families=tall"), "families"),
        (("scaling", "tokens=0"), "tokens"),
        (("scaling", "tokens=1000"), "whole sequences"),
        (("scaling", "measured=nowhere.json"), "odfa study measure"),
        (("share", "light_s=0"), "light_s"),
        (("share", "workers=0"), "workers"),
        (("share", "workers="), "workers: expected a positive integer"),
        (("share", "sharing.workers=3"), "unknown setting 'sharing.workers'"),
        (("scaling", "opus=nowhere:opu"), "study.opus: 'nowhere:opu' cannot be imported"),
    ],
)
def test_studies_refuse_in_one_line_too(odfa, words, said):
    code, answer, err = odfa("study", *words)
    assert code == 2
    assert said in answer["message"]
    assert err.count("\n") == 1


def test_dry_runs_say_what_would_be_timed_and_time_nothing(odfa):
    code, answer, _ = odfa("study", "measure", "--dry-run")
    assert code == 0
    assert len(answer["checked"]) >= 12
    _, answer, _ = odfa("study", "scaling", "--dry-run")
    assert answer["measured"] is None
    assert len(answer["to_time"]["fitted"]) >= 8
    assert len(answer["study"]["opus"]) == 3


def test_sharing_from_the_command_line(odfa, tmp_path):
    code, answer, _ = odfa("study", "share", "workers=1,4", "straggle=0.2", "steps=100")
    assert code == 0
    assert [row["workers"] for row in answer["sweeps"]["as asked"]] == [1, 4]
    assert answer["rooms"]["as asked"]["straggle"] == 0.2
    assert (tmp_path / "runs/study/sharing.png").stat().st_size > 10_000


def test_the_study_from_a_file_of_measurements(odfa, tmp_path):
    from tests.scaling.test_fit import measurement

    measurement().write(tmp_path / "m.json")
    code, found, _ = odfa(
        "study", "scaling", "measured=m.json", "families=deep", "processors=a100", "opus=opu-2021", "out=here"
    )
    assert code == 0
    assert {"points", "crossovers", "attribution"} <= set(found)
    measured = [row for row in found["points"] if row["measured_s"] is not None]
    assert {row["method"] for row in measured} == {"bp", "shallow", "dfa", "odfa (twin)"}
    assert all(row["predicted_s"] == pytest.approx(row["measured_s"], rel=0.05) for row in measured)
    for name in ("time", "energy", "predicted"):
        assert (tmp_path / f"here/{name}.png").stat().st_size > 10_000


@pytest.mark.slow
def test_a_curve_to_a_trillion_parameters_takes_little():
    """Under 10 s and 1 GB on a quiet machine; time has room for a busy one."""
    benchmark = Path(__file__).parents[2] / "benchmarks" / "scaling_curve.py"
    done = subprocess.run([sys.executable, str(benchmark)], capture_output=True, text=True, check=True, timeout=120)
    costs, parameters, seconds, _imports, gigabytes = map(float, re.findall(r"[\d.]+(?:e\+\d+)?", done.stdout))
    assert costs == 11 * len(PLANNED_METHODS)
    assert parameters == pytest.approx(1e12, rel=0.02)
    assert gigabytes < 1.0
    assert seconds < 30.0


def test_training_knows_what_its_optics_did(odfa):
    _, said, _ = odfa("train", "digits_tiny", "arm=odfa", "epochs=1")
    light = said["light"]
    assert light["utilisation"] == light["ops_useful"] / light["ops_peak"] > 0
    assert 0 < said["compute_s"] < said["seconds"]
    assert light["joules"] == pytest.approx(30 * light["seconds"])
    _, said, _ = odfa("train", "digits_tiny", "arm=bp", "epochs=1")
    assert said["light"]["utilisation"] == 0
    assert said["compute_s"] == said["seconds"]


def test_no_gradient_is_alive_during_the_forward_pass():
    """They were, and the peak with them."""
    from odfa import recipes, train
    from odfa.session import build

    session = build(recipes.get("digits_tiny"))
    batch = session.splits.train.head(session.config.batch_size)
    train.train_step(session, batch)
    alive = []
    session.model.register_forward_pre_hook(
        lambda *_: alive.extend(p.grad for p in session.model.parameters() if p.grad is not None)
    )
    with torch.random.fork_rng():
        train.train_step(session, batch)
    assert alive == []
