"""A run goes on with its own data only, and needs none to be used."""

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.cut import train_and_cut
from tests.garments import write_images
from tests.talk import small_run, write_corpus

from odfa import arms, recipes, settings, train
from odfa.errors import CheckpointError, DataError, RunFolderError
from odfa.lab import align, compare, export
from odfa.session import build
from odfa.store import checkpoint, folder, load_run
from odfa.store.kept import read_kept
from odfa.tasks.diffusion.diffuse import Diffuse
from odfa.tasks.language import text
from odfa.tasks.language.samples import TextSamples
from odfa.tasks.vision.classify import Classify


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a corpus and a run of six steps on it, cut after the fourth, named by a relative path."""
    home = tmp_path_factory.mktemp("home")
    (home / "corpus").mkdir()
    write_corpus(home / "corpus")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        train_and_cut(small_run("corpus", "dfa"), home / "run", after=4)
    return home


@pytest.fixture
def home(trained: Path, tmp_path: Path) -> Path:
    """A copy in another place, whose run still names the first one."""
    text._corpus.cache_clear()
    return Path(shutil.copytree(trained, tmp_path / "home"))


def _change_config(run_dir: Path, override: str) -> None:
    config = settings.apply(folder.read_config(run_dir), [override])
    (run_dir / "config.json").write_text(json.dumps(settings.to_dict(config)))


def _texts(run_dir: Path) -> list[str]:
    (run,) = TextSamples(prompt="is 3", count=2, tokens=4, temperature=1.0).make([run_dir]).json["runs"]
    return run["samples"]


def _edit(home: Path) -> None:
    file = home / "corpus/movie_lines.txt"
    file.write_text(file.read_text(encoding="iso-8859-1").replace("more", "less", 1), encoding="iso-8859-1")
    text._corpus.cache_clear()


def test_the_folder_names_its_data(trained: Path) -> None:
    config = folder.read_config(trained / "run")
    assert config.data.path == trained / "corpus"
    kept = read_kept(trained / "run")
    with torch.random.fork_rng(devices=[]):
        session = build(config)
    assert (kept.fingerprint, kept.shape) == (session.splits.fingerprint, session.splits.shape)
    assert (kept.source, kept.has_turns) == (str(trained / "corpus"), True)
    words = (trained / "run/tokenizer.json").read_text(encoding="utf-8")
    assert words == session.splits.tokenizer.to_str()


@pytest.mark.parametrize("what", ["edited", "gone"])
def test_a_trained_model_is_used_without_its_corpus(home: Path, tmp_path: Path, what: str) -> None:
    before = _texts(home / "run")
    export(home / "run", tmp_path / "before")
    _change_config(home / "run", f"data.path={home / 'corpus'}")
    if what == "edited":
        _edit(home)
    else:
        shutil.rmtree(home / "corpus")
    assert _texts(home / "run") == before
    assert all(words.startswith("<|a|>is 3<|b|>") for words in before)
    export(home / "run", tmp_path / "after")
    for file in (tmp_path / "before").iterdir():
        assert file.read_bytes() == (tmp_path / "after" / file.name).read_bytes()


def test_edited_data_are_refused(home: Path) -> None:
    _change_config(home / "run", f"data.path={home / 'corpus'}")
    status = (home / "run/status.json").read_bytes()
    _edit(home)
    for act in (lambda: train.resume(home / "run", progress=False), lambda: align(home / "run")):
        with pytest.raises(
            DataError, match=r"run was trained on other data than .*corpus holds now; put back"
        ) as caught:
            act()
        assert "\n" not in str(caught.value)
    assert (home / "run/status.json").read_bytes() == status


def test_moved_data_go_on_where_the_message_says(trained: Path, home: Path) -> None:
    _change_config(home / "run", "data.path=/nowhere/corpus")
    with pytest.raises(DataError, match=r"cannot read /nowhere.*; .* put them back, or write where they are now into "):
        train.resume(home / "run", progress=False)
    _change_config(home / "run", f"data.path={home / 'corpus'}")
    moved = train.resume(home / "run", progress=False)
    shutil.copytree(trained / "run", home / "again")
    assert train.resume(home / "again", progress=False).metric == moved.metric
    assert (home / "again/metrics.jsonl").read_bytes() == (home / "run/metrics.jsonl").read_bytes()
    assert align(home / "run")["step"] == 6


_DRAWS = ["encoder=sampled", "encoder.repeats=4"]
BESIDE = {
    "climate_vit": ["hops=0"],
    "climate_vit_E1": ["hops=0"],
    "dialogue_gpt": [*_DRAWS, "hops=0"],
    "dialogue_gpt_1b": _DRAWS,
    "dialogue_llama": [*_DRAWS, "hops=0"],
    "fashion_cnn": ["hops=0"],
    "fashion_diffusion": ["rule=aligned", "rank=none", "hops=0", "feedback.group=2"],
    "fashion_vit": ["hops=0"],
}
"""What a recorded comparison had beside its recipe, as its page's command says."""
RECORDED = sorted(file.parent for file in (Path(__file__).parents[2] / "docs/results").glob("*/*/config.json"))


@pytest.mark.parametrize("comparison", sorted({run.parent.name for run in RECORDED}))
def test_recorded_runs_are_read_and_are_the_arms_that_their_folders_name(comparison: str) -> None:
    for run in (run for run in RECORDED if run.parent.name == comparison):
        config = folder.read_config(run)
        assert settings.to_dict(config) == json.loads((run / "config.json").read_text())
        word, _, rule = run.name.partition("-lr")[0].partition("-")
        assert arms.name_of(config) == word
        recipe = settings.apply(recipes.whole(config.recipe), BESIDE.get(comparison, []))
        own = arms.arm(recipe, f"{word}:{rule}" if rule else word)
        assert (own.rule, own.projection, own.feedback) == (config.rule, config.projection, config.feedback)
        assert folder.read_result(run) is not None


DAMAGE: dict[str, tuple[str, bytes, str]] = {
    "no record": ("data.json", b"", r"data\.json is not JSON"),
    "a list": ("data.json", b"[]", r"data\.json: expected a JSON object"),
    "nothing": ("data.json", b"{}", r"data\.json is damaged \(data\.json: fingerprint is missing"),
    "no tokenizer": ("tokenizer.json", b"", r"tokenizer\.json is not the tokenizer with which .*; restore it"),
    "another": ("tokenizer.json", b"{}", r"tokenizer\.json is not the tokenizer with which the run began"),
}


@pytest.mark.parametrize(("name", "content", "message"), DAMAGE.values(), ids=DAMAGE)
def test_damaged_records(home: Path, name: str, content: bytes, message: str) -> None:
    (home / "run" / name).write_bytes(content)
    with pytest.raises(RunFolderError, match=message) as caught:
        TextSamples().make([home / "run"])
    assert "\n" not in str(caught.value)
    (home / "run" / name).unlink()
    with pytest.raises(RunFolderError, match=name):
        TextSamples().make([home / "run"])


def _sizes(run_dir: Path, change: dict[str, Any]) -> None:
    values = json.loads((run_dir / "data.json").read_text())
    values["shape"] |= change
    (run_dir / "data.json").write_text(json.dumps(values))


def test_sizes_that_the_weights_do_not_have_are_refused_before_there_is_room_for_them(home: Path) -> None:
    _sizes(home / "run", {"num_classes": 10**11})
    with pytest.raises(CheckpointError, match=r"is of another model: .*\(100000000000, 16\) here"):
        load_run(home / "run")
    _sizes(home / "run", {"num_classes": -1})
    with pytest.raises(RunFolderError, match=r"shape\.num_classes: expected an integer of zero or more"):
        load_run(home / "run")


def test_one_pixel_one_label_and_one_unit_make_other_data(tmp_path: Path) -> None:
    recipe = recipes.get("fashion_cnn")
    config = replace(recipe, data=replace(recipe.data, path=write_images(tmp_path), validation=8)).data
    task = Classify()
    first = task.load(config).fingerprint
    assert task.load(config).fingerprint == first == Diffuse().load(config).fingerprint
    assert task.load(replace(config, limit=20)).fingerprint != first
    images = tmp_path / "t10k-images-idx3-ubyte"
    content = images.read_bytes()
    images.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert task.load(config).fingerprint != first
    images.write_bytes(content)
    labels = tmp_path / "train-labels-idx1-ubyte"
    labels.write_bytes(labels.read_bytes()[:-1] + b"\3")
    assert task.load(config).fingerprint != first


def test_a_comparison_does_not_mix_data(tmp_path: Path) -> None:
    recipe = recipes.get("fashion_cnn")
    write_images(tmp_path)
    data = replace(recipe.data, path=str(tmp_path), validation=8)
    config = replace(recipes.get("digits_tiny"), data=data, steps=2, batch_size=8, tensorboard=False)
    compare(config, ["bp"], seeds=1, tries=1, out_dir=tmp_path / "out")
    labels = tmp_path / "train-labels-idx1-ubyte"
    labels.write_bytes(labels.read_bytes()[:-1] + b"\3")
    with pytest.raises(DataError, match=r"bp-lr.* was trained on other data"):
        compare(config, ["bp", "shallow"], seeds=1, tries=1, out_dir=tmp_path / "out")
    assert len(list((tmp_path / "out").glob("shallow*"))) == 0


def test_a_checkpoint_that_a_run_removes_meanwhile_gives_way_to_the_next(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder is listed, then the run that trains in it writes another checkpoint and prunes the one found."""
    run_dir = Path(shutil.copytree(trained / "run", tmp_path / "run"))
    train.resume(run_dir, progress=False)
    (step_3, step_6), real = checkpoint.find(run_dir / "checkpoints"), checkpoint.find
    step_6.rename(tmp_path / step_6.name)

    def find_then_prune(checkpoints: Path) -> list[Path]:
        found = real(checkpoints)
        if step_3.exists():
            os.rename(tmp_path / step_6.name, step_6)
            shutil.rmtree(step_3)
        return found

    monkeypatch.setattr(checkpoint, "find", find_then_prune)
    assert align(run_dir)["step"] == 6
    shutil.rmtree(step_6)
    with pytest.raises(CheckpointError, match="holds no checkpoint yet"):
        align(run_dir)


def test_a_checkpoint_that_stays_and_is_damaged_is_named(home: Path) -> None:
    newest = checkpoint.find(home / "run/checkpoints")[-1]
    (newest / "manifest.json").unlink()
    _change_config(home / "run", f"data.path={home / 'corpus'}")
    for act in (align, load_run):
        with pytest.raises(CheckpointError, match=r"step_0000003 is not a checkpoint: it has no manifest\.json"):
            act(home / "run")
