"""A network from a folder of transformers: its config alone, or weights that have learned."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.talk import small_run, write_corpus

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
