"""A language model from corpus to samples: trained, resumed, evaluated, sampled, exported."""

import json
import math
import resource
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.cut import train_and_cut
from tests.talk import small_run, write_corpus

from odfa import recipes, train
from odfa.cli import main
from odfa.errors import ConfigError, OdfaError, RunFolderError
from odfa.lab import align, compare, export, sample
from odfa.lab.samples import settings_of
from odfa.session import RunConfig, build
from odfa.settings import from_dict, to_dict
from odfa.store import checkpoint, load_run
from odfa.store.kept import kept_tokenizer
from odfa.store.shards import verify
from odfa.tasks.language import samples, text
from odfa.tasks.language.samples import TextSamples
from odfa.tasks.language.text import MASKED
from odfa.tasks.language.transformer import Gpt2Network, LlamaNetwork

ARMS = [("bp", "random"), ("shallow", "random"), ("dfa", "random"), ("dfa", "exact"), ("odfa", "aligned")]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
    text._corpus.cache_clear()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.mark.parametrize(("arm", "rule"), ARMS)
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_run_cut_in_two_equals_a_whole_one(tmp_path: Path, corpus: str, arm: str, rule: str, family: str) -> None:
    config = small_run(corpus, arm, rule, family=family)
    whole = train.run(config, tmp_path / "whole", progress=False)
    train_and_cut(config, tmp_path / "cut", after=4)
    again = train.resume(tmp_path / "cut", progress=False)
    assert again.metric == whole.metric
    assert (tmp_path / "cut/metrics.jsonl").read_bytes() == (tmp_path / "whole/metrics.jsonl").read_bytes()
    assert whole.steps == 6
    assert ("light_frames" in (tmp_path / "whole/metrics.jsonl").read_text()) == (arm in ("dfa", "odfa"))


def test_perplexity_and_bits_per_byte_against_a_sum_over_tokens(corpus: str) -> None:
    config = small_run(corpus)
    with torch.random.fork_rng(devices=[]):
        session = build(config)
    part, nats, num_bytes, count = session.splits.validation, 0.0, 0, 0
    model = session.model.double().eval()
    for x_T, y_T in zip(part.x_ND, part.y_N, strict=True):
        log_TV = model(input_ids=x_T[None]).logits[0].detach().log_softmax(-1)
        for place, target in enumerate(y_T.tolist()):
            if target != MASKED:
                nats -= float(log_TV[place, target])
                num_bytes += int(part.bytes_V[target])
                count += 1
    figures = session.task.evaluate(model, part)
    assert figures["loss"] == pytest.approx(nats / count)
    assert figures["perplexity"] == pytest.approx(math.exp(nats / count))
    assert figures["bits_per_byte"] == pytest.approx(nats / math.log(2) / num_bytes)


def test_groups_of_blocks_are_fed_at_the_end_of_each(corpus: str) -> None:
    config = replace(small_run(corpus, "dfa"), network=Gpt2Network(width=16, layers=5, heads=2))
    config = replace(config, feedback=replace(config.feedback, group=2))
    with torch.random.fork_rng(devices=[]):
        session = build(config)
    assert session.dfa is not None
    assert list(session.dfa.blocks) == ["transformer.h.0", "transformer.h.2", "transformer.h.4"]


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_sublayers_learn_apart(corpus: str, family: str) -> None:
    config = small_run(corpus, "dfa", family=family)
    config = replace(config, feedback=replace(config.feedback, granularity="sublayer"))
    with torch.random.fork_rng(devices=[]):
        session = build(config)
        train.train_step(session, session.splits.train.head(4))
    assert session.dfa is not None
    assert list(session.dfa.branches) == list(config.network.branches)
    digits = recipes.get("digits_tiny")
    with pytest.raises(ConfigError, match="granularity=sublayer: this network has no residual branches"):
        build(replace(digits, feedback=replace(digits.feedback, granularity="sublayer")))


@pytest.mark.parametrize(("rule", "share"), [("aligned", 0.25), ("random", 8.0)])
def test_the_read_out_moves_at_its_own_rate(corpus: str, rule: str, share: float) -> None:
    config = small_run(corpus, "dfa", rule)
    config = replace(config, feedback=replace(config.feedback, head_share=share))
    with torch.random.fork_rng(devices=[]):
        session = build(config)
        train.train_step(session, session.splits.train.head(4))
    body, head = session.optimizer.param_groups
    assert [p.shape for p in head["params"]] == [(270, 16)]
    assert head["lr"] == body["lr"] * share


def test_runs_too_short_for_a_look_at_validation_are_drawn(tmp_path: Path, corpus: str) -> None:
    config = replace(small_run(corpus), steps=3)
    found = compare(config, ["bp"], seeds=1, tries=1, out_dir=tmp_path)
    assert Path(found.paths["figure"]).stat().st_size > 0


def test_samples_are_keyed_and_answer_the_prompt(tmp_path: Path, corpus: str) -> None:
    train.run(small_run(corpus), tmp_path / "run", progress=False)

    def said(prompt: str = "", **settings: float) -> dict:
        made = TextSamples(**{"prompt": prompt, "temperature": 1.0, **settings}).make([tmp_path / "run"])
        (of_run,) = made.json["runs"]
        return of_run

    first = said("is 3", count=3, tokens=5)
    assert first == said("is 3", count=3, tokens=5)
    assert first != said("is 3", count=3, tokens=5, seed=1)
    assert len({*first["samples"]}) > 1
    assert all(words.startswith("<|a|>is 3<|b|>") for words in first["samples"])
    greedy = said(count=2, temperature=0)["samples"]
    assert greedy[0] == greedy[1]
    with pytest.raises(ConfigError, match="of the context of 12 tokens"):
        said("is it more than this context can hold, or is it not?")
    with pytest.raises(ConfigError, match="tokens=99; expected 1 to"):
        said(tokens=99)


@pytest.mark.parametrize("given", ["classes=1", "guidance=nan", "steps=5", "sample=0", "out=a.png"])
def test_settings_of_other_tasks_are_refused(tmp_path: Path, corpus: str, capsys, given: str) -> None:
    train.run(small_run(corpus), tmp_path / "run", progress=False)
    assert main(["sample", str(tmp_path / "run"), given]) == 2
    assert f"unknown setting '{given.partition('=')[0]}'; " in capsys.readouterr().err
    assert main(["sample", str(tmp_path / "run"), "temprature=1"]) == 2
    assert "unknown setting 'temprature'; did you mean temperature?" in capsys.readouterr().err


def test_a_text_ends_at_the_end_token_and_not_where_the_word_is_spelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Documents of plain text have no speakers: what is written without a prompt begins behind an end token."""
    lines = [f"line {k} <|end|> more of it, {k % 7}" for k in range(400)]
    (tmp_path / "lines.txt").write_text("\n".join(lines), encoding="utf-8")
    train.run(small_run(str(tmp_path / "lines.txt")), tmp_path / "run", progress=False)
    (made,) = TextSamples(temperature=0.0, count=1).make([tmp_path / "run"]).json["runs"]
    assert all(made["samples"])
    run = load_run(tmp_path / "run")
    tokenizer = kept_tokenizer(run.path, run.kept)
    tokenizer.encode_special_tokens = True
    said = tokenizer.encode("line 3 <|end|> more").ids
    end = tokenizer.token_to_id(run.config.data.end)
    assert end not in said
    written_CT = torch.tensor([[end, *said, end, 5, 6], [end, *said, 5, 6, 7]])
    monkeypatch.setattr(samples, "_generate", lambda *_given, **_settings: written_CT)
    (made,) = TextSamples(count=2).make([tmp_path / "run"]).json["runs"]
    assert made["samples"][0] == "line 3 <|end|> more"
    assert made["samples"][1] == "line 3 <|end|> more" + tokenizer.decode([5, 6, 7], skip_special_tokens=False)


def test_words_and_settings_sample_alike(tmp_path: Path, corpus: str, capsys: pytest.CaptureFixture[str]) -> None:
    train.run(small_run(corpus), tmp_path / "run", progress=False)
    assert settings_of([tmp_path / "run"]) == TextSamples()
    made = sample([tmp_path / "run"], ["prompt=is 3", "count=2", "tokens=4", "seed=5"])
    assert made == TextSamples(prompt="is 3", count=2, tokens=4, seed=5).make([tmp_path / "run"])
    words = ["sample", str(tmp_path / "run"), "--json", "count=2", "prompt=is 3", "tokens=4", "seed=5"]
    assert (main(words), json.loads(capsys.readouterr().out)) == (0, made.json)
    words.remove("--json")
    assert (main(words), capsys.readouterr().out) == (0, made.text + "\n")
    assert "\n\nA: is 3\nB: " in made.text


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_an_export_loads_in_transformers_with_equal_logits(tmp_path: Path, corpus: str, family: str) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    train.run(small_run(corpus, "odfa", "aligned", family=family), tmp_path / "run", progress=False)
    export(tmp_path / "run", tmp_path / "plain")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "plain").eval()
    ours = load_run(tmp_path / "run").model
    words = AutoTokenizer.from_pretrained(tmp_path / "plain")
    ids = torch.tensor([words("<|a|>is 3<|b|>no")["input_ids"]])
    assert words.decode(ids[0]) == "<|a|>is 3<|b|>no"
    for name, tensor in (*ours.named_parameters(), *ours.named_buffers()):
        assert torch.equal(theirs.get_parameter_or_buffer(name), tensor), name
    assert torch.equal(theirs(ids).logits, ours(ids).logits)
    with pytest.raises(RunFolderError, match="plain exists"):
        export(tmp_path / "run", tmp_path / "plain")


def test_a_full_disk_leaves_no_half_export(tmp_path: Path, corpus: str, capfd: pytest.CaptureFixture[str]) -> None:
    train.run(small_run(corpus), tmp_path / "run", progress=False)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(RunFolderError, match=r"cannot write .*plain: .*too large.*; free space"):
            export(tmp_path / "run", tmp_path / "plain")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    export(tmp_path / "run", tmp_path / "new" / "plain")
    assert capfd.readouterr() == ("", "")  # no bars of the library's own


def test_only_language_runs_are_sampled_and_exported(tmp_path: Path) -> None:
    digits = replace(recipes.get("digits_tiny"), epochs=1, tensorboard=False)
    train.run(digits, tmp_path / "run", progress=False)
    for action in (
        lambda: sample([tmp_path / "run"]),
        lambda: TextSamples().make([tmp_path / "run"]),
        lambda: export(tmp_path / "run", tmp_path / "out"),
    ):
        with pytest.raises(ConfigError, match="a run of digits_tiny"):
            action()


def test_alignment_is_measured_per_block(tmp_path: Path, corpus: str) -> None:
    train.run(small_run(corpus, "dfa", "exact"), tmp_path / "run", progress=False)
    blocks = align(tmp_path / "run")["blocks"]
    assert [block["name"] for block in blocks] == ["transformer.h.0", "transformer.h.1"]
    assert blocks[-1]["cosine"] == pytest.approx(1.0, abs=1e-5)  # the last block's place is exact


MISFITS = {
    "another architecture": lambda run: replace(run, network=LlamaNetwork(width=16, heads=2)),
    "another vocabulary": lambda run: replace(run, data=replace(run.data, vocabulary=274)),
}


@pytest.mark.parametrize("change", MISFITS.values(), ids=MISFITS)
def test_checkpoints_of_another_model_are_refused(tmp_path: Path, corpus: str, change) -> None:
    config = small_run(corpus)
    train.run(config, tmp_path / "run", progress=False)
    with torch.random.fork_rng(devices=[]):
        session = build(change(config))
    found = checkpoint.find(tmp_path / "run/checkpoints")[-1]
    with pytest.raises(OdfaError, match="is of another model: ") as caught:
        checkpoint.load_model(session.model, verify(found), found)
    assert "\n" not in str(caught.value)


def test_tied_embeddings_are_refused_by_aligned_rules_and_allowed_by_random(corpus: str) -> None:
    tied = Gpt2Network(width=16, layers=2, heads=2, tied=True)
    with torch.random.fork_rng(devices=[]):
        build(replace(small_run(corpus, "dfa", "random"), network=tied))
        with pytest.raises(OdfaError, match="tied embeddings"):
            build(replace(small_run(corpus, "dfa", "aligned"), network=tied))


def test_every_arm_of_the_comparison_starts_from_a_read_out_of_one_size(corpus: str) -> None:
    """Otherwise the larger start that the aligned rules get would be an advantage of theirs alone."""
    recipe = recipes.whole("dialogue_gpt")
    network = replace(recipe.network, width=64, layers=1)
    for arm, rule in ARMS:
        config = small_run(corpus, arm, rule)
        own = replace(config.rule, scale=recipe.rule.scale) if config.rule.sets_head else config.rule
        with torch.random.fork_rng(devices=[]):
            session = build(replace(config, network=network, rule=own))
        start_VK = session.model.get_output_embeddings().weight
        assert start_VK.std().item() * 64**0.5 == pytest.approx(recipe.rule.scale, rel=0.05)


def test_a_bound_takes_light_for_the_start_of_its_head_alone(corpus: str) -> None:
    with torch.random.fork_rng(devices=[]):
        session = build(small_run(corpus, "odfa", "exact"))
        assert session.dfa is not None
        start = session.dfa.projection.spent.frames
        assert start > 0
        for _ in range(2):
            train.train_step(session, session.splits.train.head(4))
    assert session.dfa.projection.spent.frames == start


@pytest.mark.parametrize(
    ("key", "network"),
    [
        ("width", {"type": "gpt2", "width": 30, "heads": 4}),
        ("width", {"type": "llama", "width": 12, "heads": 4}),
        ("kv_heads", {"type": "llama", "kv_heads": 3}),
        ("layers", {"type": "gpt2", "layers": 0}),
        ("head_scale", {"type": "gpt2", "head_scale": 0.0}),
        ("head_scale", {"type": "gpt2", "head_scale": 1.0, "tied": True}),
    ],
)
def test_models_that_cannot_be_built_are_refused(key: str, network: dict) -> None:
    run = to_dict(recipes.get("dialogue_tiny"))
    with pytest.raises(ConfigError, match=f"^network\\.{key}: expected"):
        from_dict({**run, "network": network}, RunConfig)
