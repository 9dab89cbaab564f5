"""What goes wrong is said in one line, the optimiser has not moved, and nothing half-written stays."""

import json
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from odfa import data, train
from odfa.arms import arm
from odfa.engine import ElectronicOnly
from odfa.errors import CheckpointError, ConfigError, DataError, NonFinite, OdfaError, RunFolderError
from odfa.session import RunConfig, SgdSettings, build, dry_run
from odfa.store import RunFolderLost, checkpoint, load_run
from odfa.store.shards import verify
from odfa.tasks.language.language import Language
from odfa.tasks.language.transformer import Gpt2Network
from odfa.tasks.vision.digits import DigitsData, load_digits

Quick = Callable[..., RunConfig]


def _one_line(error: BaseException) -> bool:
    return "\n" not in str(error) and bool(str(error))


def _status(run_dir: Path) -> dict[str, object]:
    status: dict[str, object] = json.loads((run_dir / "status.json").read_text())
    return status


@pytest.mark.parametrize("word", ["bp", "shallow", "dfa", "tdfa", "odfa"])
def test_a_nan_in_a_batch_stops_before_the_optimiser_moves(tmp_path: Path, quick: Quick, word: str) -> None:
    with torch.random.fork_rng(devices=[]):
        session = build(quick(word))
        good = session.splits.train.head(40)
        train.train_step(session, good)
        before = {name: value.clone() for name, value in session.model.state_dict().items()}
        moments = {name: value.clone() for entry in session.optimizer.state.values() for name, value in entry.items()}
        bad = data.Split(x_ND=good.x_ND.clone(), y_N=good.y_N)
        bad.x_ND[3, 5] = float("nan")
        with pytest.raises(NonFinite, match="step 2: the loss is nan") as caught:
            train.train_step(session, bad)
    assert _one_line(caught.value)
    assert session.step == 1
    assert all(torch.equal(value, before[name]) for name, value in session.model.state_dict().items())
    last = {name: value for entry in session.optimizer.state.values() for name, value in entry.items()}
    assert all(torch.equal(value, moments[name]) for name, value in last.items())


def test_an_infinite_gradient_stops_too(quick: Quick) -> None:
    with torch.random.fork_rng(devices=[]):
        session = build(quick("bp"))
        session.model.head.weight.register_hook(lambda gradient: gradient * float("inf"))
        with pytest.raises(NonFinite, match="step 1: the gradient norm is"):
            train.train_step(session, session.splits.train.head(40))
    assert session.step == 0


def test_a_diverging_run_is_recorded_as_failed(tmp_path: Path, quick: Quick) -> None:
    config = quick("bp")
    sgd = SgdSettings(learning_rate=1e30)
    wild = replace(config, optimizer=sgd, network=replace(config.network, activation="relu"))
    with pytest.raises(NonFinite, match=r"step \d+: the loss is"):
        train.run(wild, tmp_path / "run", progress=False)
    status = _status(tmp_path / "run")
    assert status["status"] == "failed"
    assert str(status["reason"]).startswith("NonFinite: step")


@pytest.mark.parametrize("spoiled", ["weight", "moment"])
def test_no_checkpoint_is_left_that_nobody_could_go_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: Quick, spoiled: str
) -> None:
    step = train.loop.train_step

    def spoil(session, batch):
        row = step(session, batch)
        if session.step == 3:
            weight = session.model.head.weight
            with torch.no_grad():
                (weight if spoiled == "weight" else session.optimizer.state[weight]["exp_avg_sq"])[1, 2] = float("inf")
        return row

    monkeypatch.setattr(train.loop, "train_step", spoil)
    config = replace(quick("bp"), steps=3, checkpoint_every=1, evaluate_every=None)
    named = r"model: head\.weight" if spoiled == "weight" else r"optimizer: \d\.exp_avg_sq"
    with pytest.raises(NonFinite, match=rf"^step 3: {named} holds NaN or infinity; lower the learning rate$"):
        train.run(config, tmp_path / "run", progress=False)
    assert [path.name for path in checkpoint.find(tmp_path / "run/checkpoints")] == [
        "step_0000001",
        "step_0000002",
    ]
    assert (_status(tmp_path / "run")["status"], _status(tmp_path / "run")["step"]) == ("failed", 2)
    monkeypatch.setattr(train.loop, "train_step", step)
    assert train.resume(tmp_path / "run", progress=False).steps == 3


@pytest.mark.parametrize(
    ("x", "y", "message"), [(float("nan"), 0, "NaN or infinity"), (0.0, 10, "label 10 of sample 7")]
)
def test_bad_data_leave_no_run_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: Quick, x: float, y: int, message: str
) -> None:
    def load(_data: DigitsData) -> data.Splits:
        splits = load_digits()
        splits.train.x_ND[7, 0], splits.train.y_N[7] = x, y
        return splits

    monkeypatch.setattr(DigitsData, "load", load)
    with pytest.raises(DataError, match=message):
        train.run(quick("bp"), tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_misfits_are_config_errors(tmp_path: Path, quick: Quick) -> None:
    config = quick("bp")
    uneven = replace(arm(config, "identity"), network=replace(config.network, widths=(24, 32)))
    for wrong, message in [
        (replace(config, batch_size=241), "batch_size: expected at most 240"),
        (replace(config, task=Language()), "task=language learns from tokens, expected one of kernel_docs, text"),
        (
            replace(config, network=Gpt2Network()),
            "task=classify needs a network that returns classes, expected one of cnn, mlp",
        ),
        (uneven, "expected blocks of one width"),
    ]:
        with pytest.raises(ConfigError, match=message) as caught:
            train.run(wrong, tmp_path / "run", progress=False)
        assert _one_line(caught.value)
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("where", ["file/run", "file", "/proc/odfa-run"])
def test_folders_that_cannot_be_written(tmp_path: Path, quick: Quick, where: str) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunFolderError, match="cannot use the run folder") as caught:
        train.run(quick("bp"), tmp_path / where, progress=False)
    assert _one_line(caught.value)
    assert (tmp_path / "file").read_text() == "in the way"


@contextmanager
def _largest_file(num_bytes: int) -> Iterator[None]:
    """Writing beyond that size fails, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    ("num_bytes", "place"),
    [(100, "config.json"), (1600, "metrics"), (2200, "metrics"), (5000, "model"), (19_000, "optimizer")],
)
def test_a_full_disk_leaves_nothing_half_written(
    tmp_path: Path, quick: Quick, traces: Callable[[Path], dict[str, bytes]], num_bytes: int, place: str
) -> None:
    config, run_dir = quick("bp"), tmp_path / "run"
    with _largest_file(num_bytes), pytest.raises(RunFolderError, match=r"File too large|disk is full") as caught:
        train.run(config, run_dir, progress=False)
    assert _one_line(caught.value)
    for log in run_dir.glob("*.jsonl"):
        assert all(json.loads(line) for line in log.read_text().splitlines())
        assert not log.stat().st_size or log.read_text().endswith("\n")
    for file in run_dir.glob("*.json"):
        assert json.loads(file.read_text())
    assert not list(run_dir.rglob("*.partial"))
    assert all(checkpoint_files(path) for path in (run_dir / "checkpoints").glob("step_*"))
    train.run(config, run_dir, resume=True, progress=False)
    train.run(config, tmp_path / "whole", progress=False)
    assert traces(run_dir) == traces(tmp_path / "whole")


def checkpoint_files(path: Path) -> dict[str, Path]:

    return verify(path)


def test_no_space_left_in_the_middle_of_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: Quick) -> None:
    """The disk takes the first half of a row: it is taken back."""
    monkeypatch.setattr("odfa.train.loop.environment", dict)  # else longer than the row, with a long command
    config = quick("bp")
    train.run(config, tmp_path / "whole", progress=False)
    config_size = (tmp_path / "whole/config.json").stat().st_size  # must fit, or the run does not begin
    size = (tmp_path / "whole/metrics.jsonl").read_bytes().index(b"\n", config_size) + 20
    with _largest_file(size), pytest.raises(RunFolderLost):
        train.run(config, tmp_path / "run", progress=False)
    rows = (tmp_path / "run/metrics.jsonl").read_bytes()
    assert (tmp_path / "whole/metrics.jsonl").read_bytes().startswith(rows)
    assert rows.endswith(b"\n")


def test_folders_that_hold_no_run(tmp_path: Path) -> None:
    for action in (load_run, lambda path: train.resume(path, progress=False)):
        with pytest.raises(RunFolderError, match=r"config\.json is missing; is .* a run folder"):
            action(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(RunFolderError, match="is not JSON"):
        load_run(tmp_path)


def test_a_run_without_checkpoint_cannot_be_loaded(tmp_path: Path, quick: Quick) -> None:
    train.run(quick("bp"), tmp_path / "run", progress=False)
    for path in (tmp_path / "run/checkpoints").iterdir():
        path.rename(tmp_path / path.name)
    with pytest.raises(CheckpointError, match="holds no checkpoint yet"):
        load_run(tmp_path / "run")


def test_a_log_cut_short_is_noticed(tmp_path: Path, quick: Quick) -> None:
    train.run(quick("bp"), tmp_path / "run", progress=False)
    (tmp_path / "run/status.json").unlink()
    (tmp_path / "run/metrics.jsonl").write_text("")
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl is shorter"):
        train.resume(tmp_path / "run", progress=False)


def test_a_full_disk_in_the_middle_of_a_run_is_a_failed_run(tmp_path: Path, quick: Quick) -> None:
    with _largest_file(5000), pytest.raises(RunFolderLost, match="File too large; free space"):
        train.run(quick("bp"), tmp_path / "run", progress=False)
    status = _status(tmp_path / "run")
    assert (status["status"], status["step"]) == ("failed", 0)


_DAMAGED = [
    ("status.json", "[]"),
    ("status.json", "{"),
    ("result.json", "7"),
    ("result.json", '{"status": "complete"}'),
    ("result.json", "\xff"),
    ("metrics.jsonl", '{"step": 1}\n{"ste'),
    ("metrics.jsonl", "[1]"),
    ("metrics.jsonl", '{"loss": 1.0}'),
    ("config.json", "[]"),
]


@pytest.mark.parametrize(("name", "content"), _DAMAGED)
def test_damaged_files_are_named_in_one_line(tmp_path: Path, quick: Quick, name: str, content: str) -> None:
    train.run(quick("bp"), tmp_path / "run", progress=False)
    (tmp_path / "run" / name).write_bytes(content.encode("latin-1"))
    with pytest.raises(RunFolderError, match=name) as caught:
        load_run(tmp_path / "run")
    assert _one_line(caught.value)


@pytest.mark.parametrize("key", ["light", "metric", "validation", "steps"])
@pytest.mark.parametrize("value", [None, {}, "many", [1.0]])
def test_every_damaged_figure_of_a_result_is_named(tmp_path: Path, quick: Quick, key: str, value: object) -> None:
    train.run(replace(quick("bp"), epochs=1), tmp_path / "run", progress=False)
    file = tmp_path / "run/result.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), key: value}))
    with pytest.raises(RunFolderError, match=rf"result\.json is damaged \(.*{key}"):
        train.resume(tmp_path / "run", progress=False)


@pytest.mark.parametrize("content", ["[]", "{}", '{"sessions": 3}'])
def test_a_damaged_environment_is_named(tmp_path: Path, quick: Quick, content: str) -> None:
    train.run(quick("bp"), tmp_path / "run", progress=False)
    (tmp_path / "run/status.json").unlink()
    (tmp_path / "run/environment.json").write_text(content)
    with pytest.raises(RunFolderError, match=r"environment\.json") as caught:
        train.resume(tmp_path / "run", progress=False)
    assert _one_line(caught.value)


def test_a_refused_resume_leaves_the_status_as_it_was(tmp_path: Path, quick: Quick) -> None:
    config = quick("bp")
    train.run(config, tmp_path / "run", progress=False)
    (tmp_path / "run/status.json").write_text(json.dumps({"status": "running", "step": 16, "reason": None}))
    for weights in (tmp_path / "run/checkpoints").glob("*/model.safetensors"):
        weights.write_bytes(b"")
    before = {file: file.read_bytes() for file in (tmp_path / "run").iterdir() if file.is_file()}
    with pytest.raises(CheckpointError, match="corrupt"):
        train.resume(tmp_path / "run", progress=False)
    assert {file: file.read_bytes() for file in (tmp_path / "run").iterdir() if file.is_file()} == before


def test_a_config_without_a_key_takes_the_default(tmp_path: Path, quick: Quick) -> None:
    whole = train.run(quick("bp"), tmp_path / "run", progress=False)
    file = tmp_path / "run/config.json"
    config = json.loads(file.read_text())
    del config["memory"]["fused"]
    file.write_text(json.dumps(config))
    (tmp_path / "run/status.json").unlink()
    assert train.resume(tmp_path / "run", progress=False).metric == whole.metric


def _aligned(config: RunConfig, **changes: object) -> RunConfig:
    light = arm(config, "odfa:aligned")
    return light.changed("rule", replace(light.rule, **changes))


_REFUSED: dict[str, tuple[Callable[[RunConfig], RunConfig], str]] = {
    "rank": (lambda config: _aligned(config, rank=10), "rule.rank: .* 10 x 24 expects 0 to 9"),
    "no rank": (
        lambda config: _aligned(config).changed("rule", ElectronicOnly(rank=0)),
        "rule.rank: rule=electronic .* expects 1 to 9",
    ),
    "widths": (
        lambda config: replace(arm(config, "identity"), network=replace(config.network, widths=(24, 32))),
        "expected blocks of one width",
    ),
    "batch": (lambda config: replace(config, batch_size=241), "batch_size: expected at most 240"),
    "validation": (
        lambda config: replace(config, data=replace(config.data, validation=5000)),
        "cannot hold out 5000 of 1400 samples",
    ),
    "modes": (
        lambda config: replace(arm(config, "odfa"), network=replace(config.network, widths=(2**20,) * 9)),
        "camera pixels, the blocks need 2314 x 2040",
    ),
    "threads": (lambda config: replace(config, threads=100_000), "threads: expected at most"),
    "device": (lambda config: replace(config, device="cuda:99"), "device: expected one of cpu, auto"),
}


@pytest.mark.parametrize(("change", "message"), _REFUSED.values(), ids=_REFUSED)
def test_a_dry_run_refuses_what_the_run_refuses(
    tmp_path: Path, quick: Quick, change: Callable[[RunConfig], RunConfig], message: str
) -> None:
    config = change(quick("bp"))
    for action in (dry_run, lambda config: train.run(config, tmp_path / "run", progress=False)):
        with pytest.raises(ValueError, match=message) as caught:
            action(config)
        assert isinstance(caught.value, OdfaError)
        assert _one_line(caught.value)
    assert not (tmp_path / "run").exists()
