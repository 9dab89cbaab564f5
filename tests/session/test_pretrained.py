"""A network from a folder of transformers: its config alone, or weights that have learned."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.talk import small_run, write_corpus
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel

from odfa import train
from odfa.errors import ConfigError
from odfa.lab.exports import export
from odfa.session import RunConfig, build, build_model, dry_run
from odfa.settings import apply, from_dict, to_dict
from odfa.store import load_run
from odfa.tasks.language.pretrained import PretrainedNetwork
from odfa.tasks.language.transformer import Gpt2Network, LlamaNetwork

KINDS = {"gpt2": Gpt2Network(width=16, layers=2, heads=2), "llama": LlamaNetwork(width=16, layers=2, heads=2)}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> str:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


def _model(kind: str, corpus: str) -> torch.nn.Module:
    with torch.random.fork_rng(devices=[]):
        return build_model(replace(small_run(corpus), network=KINDS[kind]), small_run(corpus).data.peek())


@pytest.mark.parametrize("kind", KINDS)
def test_names_are_those_of_the_kind_and_weights_are_drawn_anew(tmp_path: Path, corpus: str, kind: str) -> None:
    known, model = KINDS[kind], _model(kind, corpus)
    model.config.save_pretrained(tmp_path)
    found = PretrainedNetwork(path=tmp_path)
    assert not found.learned
    assert (found.widths, found.blocks) == (known.widths, known.blocks)
    assert (found.branches, found.linears) == (known.branches, known.linears)
    config = replace(small_run(corpus, "odfa", "aligned"), network=found)
    again = from_dict(json.loads(json.dumps(to_dict(config))), RunConfig)
    assert again == config
    with torch.random.fork_rng(devices=[]):
        session = build(config)
    assert {name: p.shape for name, p in session.model.named_parameters()} == {
        name: p.shape for name, p in model.named_parameters()
    }
    result = train.run(config, tmp_path / "run", progress=False)
    assert result.steps == 6
    assert dry_run(config)["parameters"] == result.parameters


@pytest.mark.parametrize("kind", KINDS)
def test_weights_that_have_learned_are_where_a_run_begins(tmp_path: Path, corpus: str, kind: str) -> None:
    first = replace(small_run(corpus), network=KINDS[kind])
    train.run(first, tmp_path / "first", progress=False)
    export(tmp_path / "first", tmp_path / "given")
    given = load_run(tmp_path / "first").model.state_dict()
    words = ["network=pretrained", f"network.path={tmp_path / 'given'}"]
    for method in ("bp", "dfa", "shallow"):
        config = apply(small_run(corpus, method), words)
        with torch.random.fork_rng(devices=[]):
            session = build(config)
        assert all(torch.equal(value, given[name]) for name, value in session.model.state_dict().items())
        train.run(config, tmp_path / method, progress=False)
        assert load_run(tmp_path / method).result.steps == 6
    for rule in ("aligned", "electronic", "exact"):
        with pytest.raises(ConfigError, match=f"rule={rule}: it overwrites the head's weights"):
            build(apply(small_run(corpus, "dfa", rule), words))
    with pytest.raises(ConfigError, match=r"memory\.storage=disk"):
        build(apply(small_run(corpus, "dfa"), [*words, "storage=disk"]))


def _published(folder: Path, *, tokens: bool) -> Path:
    """A tiny GPT-2 that has learned, 270 tokens, and a tokenizer of its own."""
    text = [f"quite another text of {k} words" for k in range(400)]
    trainer = trainers.BpeTrainer(vocab_size=270, special_tokens=["<|endoftext|>"], show_progress=False)
    words = Tokenizer(models.BPE())
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.train_from_iterator(text, trainer)
    with torch.random.fork_rng(devices=[]):
        sizes = GPT2Config(vocab_size=270, n_positions=12, n_embd=16, n_layer=2, n_head=2)
        GPT2LMHeadModel(sizes).save_pretrained(folder)
    if tokens:
        words.save(str(folder / "tokenizer.json"))
    return folder


@pytest.mark.parametrize("tokens", [True, False])
def test_weights_that_know_other_tokens_are_refused(tmp_path: Path, corpus: str, tokens: bool) -> None:
    words = ["network=pretrained", f"network.path={_published(tmp_path, tokens=tokens)}"]
    config = apply(small_run(corpus), words)
    told = "know other tokens than the data" if tokens else r"expected tokenizer\.json beside them"
    for make in (build, dry_run):
        with pytest.raises(ConfigError, match=told), torch.random.fork_rng(devices=[]):
            make(config)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"tokenizer\.json cannot be read"):
        dry_run(config)
    (tmp_path / "model.safetensors").unlink()
    assert dry_run(config)["parameters"] > 0  # drawn anew: no token means anything yet


def test_folders_that_do_not_fit_are_refused(tmp_path: Path, corpus: str) -> None:
    _model("gpt2", corpus).config.save_pretrained(tmp_path)
    config = apply(small_run(corpus), ["network=pretrained", f"network.path={tmp_path}"])
    for word, told in {
        "network.path=none": "network.path: expected a folder with a config.json of transformers, got none",
        f"network.path={tmp_path / 'no'}": "expected a folder with a config.json",
        "data.vocabulary=275": "data.vocabulary: expected 270, the entries of",
        "data.context=13": "data.context: expected at most 12, the positions of",
    }.items():
        with pytest.raises(ConfigError, match=told), torch.random.fork_rng(devices=[]):
            build(apply(config, [word]))
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(ConfigError, match="is a pickle"), torch.random.fork_rng(devices=[]):
        build(config)
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ConfigError, match="cannot be read"), torch.random.fork_rng(devices=[]):
        build(config)
