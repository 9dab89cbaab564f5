"""`odfa plan FOLDER`: what a config.json says is planned whole, or refused in one line; its code is never run."""

import json
import sys

import pytest
import torch

from odfa.cli import main
from odfa.cli.plan import _show
from odfa.scaling import walk_module
from odfa.tasks.language.folder import from_folder

SIZES = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 256,
}
LLAMA = {"model_type": "llama", **SIZES}
LLAMA_PARAMETERS = 2 * 256 * 64 + 64 + 2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 96 + 2 * 64)
"""Embedding and read-out, last norm; queries and outputs, keys and values of half as many heads, the MLP, norms."""


@pytest.fixture
def planned(tmp_path, capfd):
    """Plan a folder with this config: exit code, JSON, standard error; all of the process's standard output is JSON."""

    def run(config, *words: str):
        text = config if isinstance(config, bytes) else json.dumps(config).encode()
        (tmp_path / "config.json").write_bytes(text)
        usual = {"tokens": "tokens=64", "context": "context=32"} | {word.partition("=")[0]: word for word in words}
        code = main(["plan", str(tmp_path), *usual.values(), "--json"])
        said = capfd.readouterr()
        return code, json.loads(said.out), said.err

    return run


@pytest.fixture
def built(tmp_path):
    """The model of a folder with this config."""

    def build(config):
        (tmp_path / "config.json").write_text(json.dumps(config))
        return from_folder(tmp_path, torch.bfloat16)

    return build


def test_a_folder_is_planned(planned):
    code, page, err = planned(LLAMA)
    assert (code, err) == (0, "")
    assert page["parameters"] == LLAMA_PARAMETERS
    assert page["left_out"] == page["estimated"] == []
    assert page["without_gradient"] == 0


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("llava", LLAMA),
        ("gemma3", {**SIZES, "model_type": "gemma3_text", "head_dim": 16}),
        ("mllama", {**SIZES, "cross_attention_layers": [], "pad_token_id": 0}),
    ],
)
def test_of_a_model_of_several_media_the_part_for_text_is_built(built, kind, text):
    found = built({"model_type": kind, "text_config": text})
    assert found.left_out == ("vision_config",)
    assert len(found.model.model.layers) == 2
    if kind == "llava":
        assert sum(parameter.numel() for parameter in found.model.parameters()) == LLAMA_PARAMETERS


def test_what_is_left_out_is_said(planned, capfd):
    _, page, _ = planned({"model_type": "llava", "text_config": LLAMA})
    assert page["left_out"] == ["vision_config"]
    _show(page)
    assert "the part for text alone, without vision_config" in capfd.readouterr().out


def test_a_loss_of_the_router_is_not_taken_for_the_output(built):
    found = built({"model_type": "mixtral", **SIZES, "num_local_experts": 4, "output_router_logits": True})
    ids_NT = torch.zeros(2, 32, dtype=torch.long)
    walk = walk_module(found.model, (ids_NT,), "bp")
    assert walk.updated == walk.parameters
    assert walk_module(found.model, (ids_NT,), "feedback").row_width == 256


DEEP = 50_000
REFUSED = {
    "null": (b"null", "expected a JSON object, got NoneType"),
    "list": (b"[]", "expected a JSON object, got list"),
    "nothing": (b"", "as JSON"),
    "half": (b'{"model_type": "llama"', "as JSON"),
    "no text": (b"\xff\xfe\x00", "as JSON"),
    "deep list": (b"[" * DEEP, "as JSON: RecursionError"),
    "deep": (b'{"a":' * DEEP + b"1" + b"}" * DEEP, "as JSON: RecursionError"),
    "rather deep": (b'{"model_type": "llama", "x": ' + b'{"a":' * 900 + b"1" + b"}" * 901, "RecursionError"),
    "long number": (b'{"model_type": "llama", "hidden_size": ' + b"9" * 5000 + b"}", "as JSON"),
    "no kind": ({"hidden_size": 8}, "expected a model_type that transformers knows in config.json, got None"),
    "odd kind": ({"model_type": ["llama"]}, "expected a model_type"),
    "unknown kind": ({"model_type": "perceptron"}, "got 'perceptron'"),
    "null size": ({**LLAMA, "hidden_size": None}, "'hidden_size' expected int, got NoneType"),
    "text for a size": ({**LLAMA, "hidden_size": "wide"}, "'hidden_size' expected int, got str"),
    "no heads": ({**LLAMA, "num_attention_heads": 0}, "transformers cannot build a model"),
    "no words": ({**LLAMA, "vocab_size": 0}, "expected sizes above 0"),
    "negative": ({**LLAMA, "hidden_size": -64}, "transformers cannot build a model"),
    "too many words": ({**LLAMA, "vocab_size": 10**18}, "transformers cannot build a model"),
    "too many layers": ({**LLAMA, "num_hidden_layers": 10**9}, "expected 1 to 1000 layers"),
    "no layers": ({**LLAMA, "num_hidden_layers": 0}, "expected 1 to 1000 layers"),
    "unknown function": (
        {**LLAMA, "hidden_act": "evil"},
        "transformers cannot build a model from config.json: KeyError: 'evil'",
    ),
    "odd rotation": ({**LLAMA, "rope_parameters": 5}, "transformers cannot build a model"),
    "odd text": ({"model_type": "llava", "text_config": {"model_type": "nobody"}}, "transformers cannot build a model"),
    "images": ({"model_type": "vit"}, "no causal language model for vit; package.module:function plans any module"),
    "t5": ({"model_type": "t5"}, "t5 is an encoder-decoder; give package.module:function"),
    "half of it": ({"model_type": "bart"}, "bart is an encoder-decoder"),
    "two models": (
        {"model_type": "encoder-decoder", "encoder": {"model_type": "bert"}, "decoder": {"model_type": "bert"}},
        "is an encoder-decoder",
    ),
    "own code": ({"model_type": "own", "auto_map": {"AutoConfig": "own.Config"}}, "code of its own (auto_map)"),
    "own code within": (
        {"model_type": "llava", "text_config": {**LLAMA, "auto_map": {"AutoModel": "own.M"}}},
        "code of its own (auto_map)",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_config_that_is_off_gets_one_line(planned, name):
    config, said = REFUSED[name]
    code, answer, err = planned(config)
    assert code == 2
    assert said in answer["message"]
    assert err == f"odfa: {answer['message']}\n"


def test_code_in_a_folder_is_not_run_and_nobody_is_asked(planned, built, tmp_path, monkeypatch):
    ran = tmp_path / "ran"
    (tmp_path / "own.py").write_text(f"open({str(ran)!r}, 'w').close()")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked"))
    code, answer, _ = planned({**LLAMA, "auto_map": {"AutoConfig": "own.C", "AutoModelForCausalLM": "own.M"}})
    assert code == 2
    assert not ran.exists()
    assert "own" not in sys.modules
    # as the message advises
    assert "without auto_map, the class of transformers for llama is planned" in answer["message"]
    assert type(built(LLAMA).model).__name__ == "LlamaForCausalLM"


def test_a_kernel_that_a_config_names_is_not_fetched(built, monkeypatch):
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("went to the network"))
    kernels = {"attn_implementation": "somebody/kernels", "experts_implementation": "somebody/kernels"}
    assert built({**LLAMA, **kernels}).model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize(("kind", "named"), [("llama", "max_position_embeddings"), ("mpt", "max_seq_len")])
def test_a_context_has_a_position_for_each_token(planned, kind, named):
    config = {"model_type": kind, "n_layers": 2, "d_model": 64, "n_heads": 4, named: 32}
    config = {**LLAMA, named: 32} if kind == "llama" else config
    code, answer, _ = planned(config, "context=33", "tokens=66")
    assert code == 2
    assert "context: expected at most the 32 positions of" in answer["message"]
    # as the message advises
    assert "context=32 fits" in answer["message"]
    if kind == "llama":
        assert planned(config, "context=32")[0] == 0


def test_a_gpt_by_name_has_as_many_positions_as_published(capsys):
    assert main(["plan", "gpt2", "context=2048", "--json"]) == 2
    assert "expected at most the 1024 positions of gpt2" in capsys.readouterr().out


@pytest.mark.parametrize("words", [("gpt:9999999999x64",), ("gpt2", f"tokens={10**10}"), ("gpt2", f"context={10**10}")])
def test_slips_of_the_pen_get_one_line(capsys, words):
    assert main(["plan", *words, "--json"]) == 2
    assert "1,000,000,000" in capsys.readouterr().out


CHATTY = """
import warnings
import torch
from transformers import T5Config, T5ForConditionalGeneration

def t5():
    print("made")
    warnings.warn("made")
    config = T5Config(d_model=64, d_kv=16, d_ff=96, num_layers=2, num_heads=4, vocab_size=256)
    model = T5ForConditionalGeneration(config)
    ids = torch.zeros(2, 16, dtype=torch.long)
    return model, (ids, torch.ones_like(ids), ids[:, :8])
"""


@pytest.fixture
def chatty(tmp_path, monkeypatch):
    (tmp_path / "chatty_models.py").write_text(CHATTY)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.filterwarnings("default:made")
def test_an_encoder_decoder_is_planned_whole_as_the_message_advises_and_what_it_prints_is_no_result(chatty, capfd):
    """Both stacks: self-attention, cross-attention in the decoder, two layers of the MLP, a bias for each of 32
    distances and 4 heads a stack, norms, one table of words. Standard output holds JSON alone."""
    assert main(["plan", "chatty_models:t5", "--json"]) == 0
    said = capfd.readouterr()
    page = json.loads(said.out)
    attention, mlp = 4 * 64 * 64, 2 * 64 * 96
    stacks = 2 * (attention + mlp + 2 * 64) + 2 * (2 * attention + mlp + 3 * 64) + 2 * (32 * 4 + 64)
    assert page["parameters"] == 256 * 64 + stacks
    assert (page["blocks"], page["rows_per_step"], page["without_gradient"]) == (4, 16, 0)
    assert "odfa+streaming" in page["refused"], "blocks share the bias of positions, whose graph the first one frees"
    assert "made" in said.err


class Idle(torch.nn.Module):
    """A part that never runs, and an operator without a formula."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = torch.nn.ModuleList(torch.nn.Linear(8, 8) for _ in range(3))
        self.idle = torch.nn.Linear(8, 5)
        self.head = torch.nn.Linear(8, 3)

    def forward(self, x_ND):
        for block in self.blocks:
            x_ND = block(x_ND).relu()
        return self.head(x_ND) * torch.linalg.eigvalsh(x_ND[:8].detach()).sum()


def test_what_is_not_known_or_does_nothing_is_said(tmp_path, monkeypatch, capsys):
    (tmp_path / "idle_models.py").write_text(
        "import torch\nfrom tests.scaling.test_pretrained import Idle\nmake = lambda: (Idle(), (torch.empty(8, 8),))"
    )
    monkeypatch.syspath_prepend(tmp_path)
    walk = walk_module(Idle(), (torch.empty(8, 8),), "bp", blocks="blocks.*")
    assert walk.estimated == {"aten._linalg_eigh"}
    assert main(["plan", "idle_models:make"]) == 0
    said = capsys.readouterr().out
    assert "45 parameters do nothing in this step; they count as weights only" in said
    assert "no formula for aten._linalg_eigh: counted as 2 operations for each number in and out" in said
