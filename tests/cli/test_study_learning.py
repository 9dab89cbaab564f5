"""`odfa study learning`: its grid by hand, a study of seconds, going on where a run is missing, words that are off."""

import json
import shutil
from pathlib import Path

import pytest
from tests.talk import write_corpus

from odfa import recipes, settings
from odfa.cli.learning import LearningWords
from odfa.scaling.sizes import SizesSettings, sized
from odfa.settings import apply

SMALL = (
    *("vocabulary=270", "context=12", "limit=200", "batch_size=4", "layers=1", "warmup_steps=2", "head_width=8"),
    *("sizes=8,16", "tokens_per_parameter=0.1", "tensorboard=false", "threads=1", "checkpoint_every=4"),
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> str:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


def _run(corpus: str, *words: str):
    return apply(recipes.whole("dialogue_tiny"), [f"data.path={corpus}", "vocabulary=270", "context=12", *words])


def test_the_compute_of_a_gpt_counted_by_hand(corpus):
    run = _run(corpus, "layers=3", "batch_size=5")
    growth = SizesSettings(sizes=(16, 32), head_width=8, tokens_per_parameter=2.0)
    for size, width in zip(sized(run, growth), (16, 32), strict=True):
        layers, context, vocabulary = 3, 12, 270
        block = 12 * width**2 + 13 * width  # four square maps and two of the MLP, their biases, two norms
        learned = layers * block + vocabulary * width
        steps = round(2.0 * learned / (5 * context))
        # multiply-adds of a token: maps and head forward, and twice that for the gradients of inputs and weights;
        # attention: scores and values forward, and backward scores again and four gradients
        maps = 3 * (layers * 12 * width**2 + vocabulary * width)
        attention = layers * (2 + 5) * context * width
        assert (size.learned, size.run.steps, size.tokens) == (learned, steps, steps * 5 * context)
        assert size.parameters == learned + (vocabulary + context + 2) * width
        assert size.compute == size.tokens * (maps + attention)
        assert size.passes == pytest.approx(steps * 5 / run.data.peek().num_train)
        assert (size.name, size.run.network.heads) == (f"width{width}", width // 8)


def test_blocks_grow_as_well(corpus):
    small, large = sized(_run(corpus, "width=16"), SizesSettings(axis="depth", sizes=(1, 4), head_width=16))
    assert [(size.name, size.run.network.layers, size.run.network.width) for size in (small, large)] == [
        ("depth1", 1, 16),
        ("depth4", 4, 16),
    ]
    assert large.learned - small.learned == 3 * (12 * 16**2 + 13 * 16)


@pytest.mark.parametrize("name", [name for name in recipes.listed() if name.startswith(("dialogue", "deep"))])
def test_no_setting_of_a_run_bears_the_name_of_one_of_the_study(name):
    tree = LearningWords(run=recipes.whole(name))
    own = set(settings.keys(tree)) - set(settings.keys(tree.run))
    assert {"axis", "sizes", "head_width", "tokens_per_parameter", "floor", "arms", "tries"} <= own
    assert [key for key in settings.keys(tree.run) if key.rpartition(".")[2] in own] == []


def test_a_study_and_going_on_with_it(odfa, corpus):
    words = (
        "study",
        "learning",
        "dialogue_tiny",
        f"data.path={corpus}",
        *SMALL,
        "arms=bp,dfa:random+learning_rate=3e-3",
    )
    planned = odfa(*words, "--dry-run", "--json").json
    said = odfa(*words, "--run-dir", "here", "--json")
    found = said.json
    assert said.code == 0
    assert found == json.loads(Path("here/learning.json").read_text(encoding="utf-8"))
    assert {key: found[key] for key in planned} == planned
    assert [size["name"] for size in planned["sizes"]] == ["width8", "width16"]
    assert all(size["tokens"] == size["steps"] * 4 * 12 for size in planned["sizes"])
    assert [(point["arm"], point["size"], point["learning_rate"]) for point in found["points"]] == [
        (arm, size, rate)
        for size in ("width8", "width16")
        for arm, rate in (("bp", 0.002), ("dfa:random+learning_rate=3e-3", 0.003))
    ]
    assert {point["compute"] for point in found["points"]} == {size["compute"] for size in planned["sizes"]}
    assert "too few sizes" in found["verdicts"]["dfa:random+learning_rate=3e-3"]
    assert Path("here/learning.png").stat().st_size > 10_000
    assert {"cpu", "commit"} <= set(found["environment"])
    runs = sorted(Path("here").glob("width*/*/result.json"))
    assert len(runs) == 4
    before = {path: path.stat().st_mtime_ns for path in runs}
    shutil.rmtree(runs[0].parent)
    again = odfa(*words, "--run-dir", "here")
    assert again.code == 0
    losses = [point["loss"] for point in json.loads(Path("here/learning.json").read_text(encoding="utf-8"))["points"]]
    assert losses == [point["loss"] for point in found["points"]]
    assert [path for path in runs if path.stat().st_mtime_ns != before[path]] == runs[:1]
    assert "L_inf" in again.out
    assert "What is electronic:" in again.out
    assert "reused 1 finished run in" in again.err


def test_the_sizes_are_told_and_nothing_is_trained(odfa, corpus):
    said = odfa("study", "learning", "dialogue_tiny", f"data.path={corpus}", *SMALL, "arms=bp,dfa", "--dry-run")
    assert said.code == 0
    assert "width16" in said.out
    assert "the same for all arms" in said.out
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["sizes=16"], "sizes: expected two or more positive integers"),
        (["sizes=16,8"], "each larger than the one before"),
        (["sizes=-8,8"], "sizes: expected two or more positive integers"),
        (["sizes=8,20"], "sizes: expected multiples of head_width=8, got 20"),
        (["axis=breadth"], "axis: expected width or depth, got 'breadth'"),
        (["head_width=-1", "sizes=32,64"], "head_width: expected a positive number"),
        (["tokens_per_parameter=-1"], "tokens_per_parameter: expected a positive number"),
        (["tokens_per_parameter=1e5"], "tokens_per_parameter: expected a positive number up to 10,000"),
        (["floor=-0.1"], "floor: expected a loss of 0 or more, or none"),
        (["width=64"], "expected sizes=32,64,128, got width=64"),
        (["axis=depth", "sizes=1,2", "layers=3"], "expected sizes=4,8,16, got layers=3"),
        (["axis=depth", "sizes=1,2", "width=12"], "width: expected a multiple of head_width=8, got 12"),
        (["steps=3"], "expected tokens_per_parameter=20, got steps=3"),
        (["heads=2"], "expected head_width=32, got heads=2"),
        (["seed=1"], "expected seeds=3, got seed=1"),
        (["arms=bp,dfa+layers=3"], "dfa+layers=3 has another network than the rest"),
        (["arms=bp,dfa+batch_size=3"], "dfa+batch_size=3 has another batch_size than the rest"),
        (["arms=bp,dfa:exact+hops=3"], "hops"),
        (["arms=bp", "rank=3"], "rank"),
        (["colour=3"], "colour"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_words_that_are_off_are_refused_in_a_line(odfa, corpus, words, why):
    given = {word.partition("=")[0] for word in words}
    given |= {"layers"} if "axis=depth" in words else set()
    usual = [word for word in (*SMALL, "arms=bp,dfa") if word.partition("=")[0] not in given]
    said = odfa("study", "learning", "dialogue_tiny", f"data.path={corpus}", *usual, *words, "--run-dir", "here")
    assert said.code == 2
    assert why in said.complaint
    assert not Path("here").exists()


def test_a_recipe_without_blocks_of_text_is_refused(odfa):
    said = odfa("study", "learning", "digits_tiny", "arms=bp,dfa", "--dry-run")
    assert said.code == 2
    assert "expected a recipe of a causal Transformer" in said.complaint
