"""Damage that a remade manifest hides: every kind is named in one line, before anything uses what is damaged."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from odfa import train
from odfa.errors import CheckpointError, NonFinite
from odfa.session import RunConfig, Session, build
from odfa.settings import apply
from odfa.store import checkpoint, folder, load_run
from odfa.store.folder import RunFolder
from odfa.store.shards import seal

Quick = Callable[..., RunConfig]
Tensors = dict[str, Tensor]
Refused = Callable[..., None]
ARMS = [("bp", "random"), ("dfa", "random"), ("odfa", "aligned"), ("dfa", "electronic")]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, quick: Quick) -> dict[str, Path]:
    """Runs of twelve steps by arm and rule, not finished."""
    made = {}
    for arm, rule in ARMS:
        run_dir = made[f"{arm} {rule}"] = tmp_path_factory.mktemp("runs") / "run"
        train.run(apply(quick(arm, rule=rule), ["epochs=2"]), run_dir, progress=False)
        (run_dir / "status.json").unlink()
    return made


@pytest.fixture(scope="module")
def sessions(runs: dict[str, Path]) -> dict[str, Session]:
    """What they are restored into, again and again: nothing of a refused checkpoint is left behind by the next."""
    with torch.random.fork_rng(devices=[]):
        return {name: build(folder.read_config(run_dir)) for name, run_dir in runs.items()}


@pytest.fixture
def run_of(runs: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    """A copy of one of them."""
    return lambda name: Path(shutil.copytree(runs[name], tmp_path / "run"))


@pytest.fixture
def refused(sessions: dict[str, Session]) -> Refused:
    """`refused(run_dir, message)`: the newest checkpoint is, by `restore` and if asked for by `load_run`."""

    def check(run_dir: Path, message: str, *, load: bool = False) -> None:
        config = folder.read_config(run_dir)
        name = next(name for name, session in sessions.items() if session.config == config)
        session, newest = sessions[name], checkpoint.find(run_dir / "checkpoints")[-1]
        for act in (lambda: checkpoint.restore(session, newest), *([lambda: load_run(run_dir)] if load else [])):
            with pytest.raises(CheckpointError, match=message) as caught:
                act()
            assert "\n" not in str(caught.value)
            assert newest.name in str(caught.value)

    return check


def _change(run_dir: Path, name: str, change: Callable[[Any], Any]) -> None:
    """Change a file of the newest checkpoint and remake the manifest; a change that returns None works in place."""
    newest = checkpoint.find(run_dir / "checkpoints")[-1]
    file = newest / name
    if file.suffix == ".json":
        value = json.loads(file.read_text())
        file.write_text(json.dumps(change(value) or value))
    else:
        tensors = load_file(file)
        save_file(change(tensors) or tensors, file)
    (newest / "manifest.json").unlink()
    seal(newest)


def _put(name: str, value: Callable[[Tensor], Tensor]) -> Callable[[Tensors], None]:
    def change(tensors: Tensors) -> None:
        tensors[name] = value(tensors[name]).contiguous()

    return change


def _with(position: int, value: float) -> Callable[[Tensor], Tensor]:
    def change(tensor: Tensor) -> Tensor:
        tensor.view(-1)[position] = value
        return tensor

    return change


def _without(key: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda values: {name: value for name, value in values.items() if name != key}


WEIGHTS: dict[str, tuple[Callable[[Tensors], Any], str]] = {
    "cut": (_put("head.weight", lambda t: t[:1]), r"head\.weight is float32 of shape \(1, 24\) there and .*\(10, 24\)"),
    "turned": (_put("head.weight", lambda t: t.T), r"head\.weight is float32 of shape \(24, 10\)"),
    "int8": (_put("head.weight", lambda t: t.to(torch.int8)), "head.weight is int8 of shape"),
    "half": (_put("head.weight", lambda t: t.half()), "head.weight is float16 of shape"),
    "eight bits": (_put("head.weight", lambda t: t.to(torch.float8_e4m3fn)), "holds 'head.weight' of type F8_E4M3"),
    "nan": (_put("head.weight", _with(7, float("nan"))), r"model\.safetensors: head\.weight holds NaN or infinity"),
    "infinity": (_put("head.bias", _with(0, float("-inf"))), r"head\.bias holds NaN or infinity"),
    "gone": (_without("head.bias"), r"head\.bias is nothing there"),
    "more": (
        lambda tensors: {**tensors, "x\ny": torch.ones(1)},
        r"'x\\ny' is float32 of shape \(1,\) there and nothing",
    ),
    "empty": (lambda tensors: tensors.clear(), "is nothing there"),
}


@pytest.mark.parametrize(("change", "message"), WEIGHTS.values(), ids=WEIGHTS)
def test_weights(
    run_of: Callable[[str], Path], refused: Refused, change: Callable[[Tensors], Any], message: str
) -> None:
    run_dir = run_of("bp random")
    _change(run_dir, "model.safetensors", change)
    refused(run_dir, message, load=True)


def _rename(old: str, new: str) -> Callable[[Tensors], Any]:
    return lambda tensors: {new if name == old else name: tensor for name, tensor in tensors.items()}


MOMENTS: dict[str, tuple[Callable[[Tensors], Any], str]] = {
    "cut to a row": (
        lambda tensors: {name: t[:1].contiguous() if t.ndim else t for name, t in tensors.items()},
        r"0\.exp_avg: expected float32 of shape \(24, 64\), got float32 of shape \(1, 64\)",
    ),
    "of another parameter": (_put("0.exp_avg", lambda t: t.T), r"0\.exp_avg: expected .*\(24, 64\), got"),
    "double": (_put("0.exp_avg_sq", Tensor.double), r"0\.exp_avg_sq: expected float32 of .* got float64"),
    "nan": (_put("0.exp_avg", _with(3, float("nan"))), r"0\.exp_avg: holds NaN or infinity"),
    "negative squares": (_put("1.exp_avg_sq", _with(0, -1.0)), r"1\.exp_avg_sq: expected nothing below zero, got -1"),
    "a step ahead": (_put("0.step", lambda t: t + 1), r"0\.step: expected 1 to 12, got 13"),
    "a step of minus five": (_put("0.step", lambda t: t * 0 - 5), r"0\.step: expected 1 to 12, got -5"),
    "steps in a list": (_put("0.step", lambda t: t.view(1)), r"0\.step: expected float32 of shape \(\), got"),
    "a whole step": (_put("0.step", Tensor.int), r"0\.step: expected float32 of shape \(\), got int32"),
    "half a parameter's": (_without("2.exp_avg"), r"2\.exp_avg is missing"),
    "a parameter's": (
        lambda tensors: {name: t for name, t in tensors.items() if not name.startswith("2.")},
        "but '2' is missing or unknown",
    ),
    "all": (lambda tensors: tensors.clear(), "but '0' is missing or unknown"),
    "unknown parameter": (_rename("0.step", "77.step"), "but '77' is missing or unknown"),
    "a word": (_rename("0.step", "a\nb.step"), r"but 'a\\nb' is missing or unknown"),
    "unknown": (_rename("0.step", "0.momentum_buffer"), r"0\.step is missing"),
    "without a name": (_rename("0.step", "step"), "but '' is missing or unknown"),
}


@pytest.mark.parametrize(("change", "message"), MOMENTS.values(), ids=MOMENTS)
def test_moments(
    run_of: Callable[[str], Path], refused: Refused, change: Callable[[Tensors], Any], message: str
) -> None:
    run_dir = run_of("bp random")
    _change(run_dir, "optimizer.safetensors", change)
    refused(run_dir, message)


def _set(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda state: state.update({key: value})


STATES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "step -5": (_set("step", -5), r"state\.json\.step: expected an integer of zero or more, got -5"),
    "step 10^9": (_set("step", 10**9), r"state\.json\.step: expected 12 of at most 12, got 1000000000"),
    "step 8": (_set("step", 8), r"step: expected 12 of at most 12, got 8"),
    "step 12.0": (_set("step", 12.0), r"step: expected an integer"),
    "step true": (_set("step", True), r"step: expected an integer"),
    "step 10^400": (_set("step", 10**400), r"step: expected an integer .* got 1000000000.*…"),
    "seconds nan": (_set("seconds", float("nan")), r"state\.json is not JSON: NaN is not finite"),
    "seconds in words": (_set("seconds", "long"), r"seconds: expected a finite number, got 'long'"),
    "seconds -1": (_set("seconds", -1), r"seconds: expected zero or more, got -1"),
    "seconds 10^400": (_set("seconds", 10**400), r"seconds: expected a finite number"),
    "projecting": (_set("projecting_s", None), r"projecting_s: expected a finite number, got None"),
    "config": (_set("config", "0" * 64), "belongs to another config"),
    "config 7": (_set("config", 7), r"config: expected text, got 7"),
    "learned": (
        _set("learned", ["0"]),
        "expected the moments of the parameters in state.json, but '1' is missing or unknown",
    ),
    "learned 7": (_set("learned", 7), r"learned: expected a list of any number, got 7"),
    "a feedback": (_set("dfa", {"items": []}), r"state\.json\.dfa: expected none"),
    "sizes": (_set("log_sizes", {"metrics": 0}), r"log_sizes: timing is missing"),
    "sizes -1": (_set("log_sizes", {"metrics": -1, "timing": 0}), r"log_sizes\.metrics: expected an integer of zero"),
    "more sizes": (_set("log_sizes", {"metrics": 0, "timing": 0, "../x": 0}), r"log_sizes: '../x' is unknown"),
    "more": (_set("more\n", 1), r"state\.json: 'more\\n' is unknown"),
    "less": (_without("seconds"), r"state\.json: seconds is missing"),
    "a list": (lambda state: [state], r"state\.json: expected an object, got \["),
}


@pytest.mark.parametrize(("change", "message"), STATES.values(), ids=STATES)
def test_states(
    run_of: Callable[[str], Path], refused: Refused, change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    run_dir = run_of("bp random")
    _change(run_dir, "state.json", change)
    refused(run_dir, message)


def test_a_size_in_the_middle_of_a_line(run_of: Callable[[str], Path]) -> None:
    run_dir = run_of("bp random")
    _change(run_dir, "state.json", _set("log_sizes", {"metrics": 5, "timing": 0}))
    before = (run_dir / "metrics.jsonl").read_bytes()
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl has no line that ends where its checkpoint says"):
        train.resume(run_dir, progress=False)
    assert (run_dir / "metrics.jsonl").read_bytes() == before


def test_a_step_beyond_the_run_is_refused_under_any_name(run_of: Callable[[str], Path]) -> None:
    run_dir = run_of("bp random")
    _change(run_dir, "state.json", _set("step", 10**9))
    newest = checkpoint.find(run_dir / "checkpoints")[-1]
    newest.rename(newest.with_name("step_1000000000"))
    with pytest.raises(CheckpointError, match="step: expected 1000000000 of at most 12"):
        train.resume(run_dir, progress=False)


RAW = {
    "model.safetensors": (b"", b"\xff" * 40, b"\x08" + b"\0" * 7 + b"nonsense", b"\xff" * 7 + b"\x7f"),
    "optimizer.safetensors": (b"", b"\x02" + b"\0" * 7 + b"[]"),
    "state.safetensors": (b"{}",),
    "state.json": (b"", b"\xff", b"{", b"[" * 100_000, b"null", b'{"step": 1e999}'),
}


@pytest.mark.parametrize(("name", "content"), [(name, content) for name in RAW for content in RAW[name]])
def test_files_of_other_kinds(run_of: Callable[[str], Path], refused: Refused, name: str, content: bytes) -> None:
    run_dir = run_of("dfa random")
    newest = checkpoint.find(run_dir / "checkpoints")[-1]
    (newest / name).write_bytes(content)
    (newest / "manifest.json").unlink()
    seal(newest)
    refused(run_dir, rf"{name}(: | is not JSON)", load=name.startswith("model"))
    (newest / name).unlink()
    (newest / "manifest.json").unlink()
    seal(newest)
    if name != "state.safetensors":  # which this arm leaves empty
        refused(run_dir, "missing|nothing there", load=name.startswith("model"))


@pytest.mark.parametrize("content", [b"[]", b"{}", b"null", b'{"files":[],"format":2}', b"[" * 100_000, b"\xff"])
def test_manifests_of_other_kinds(run_of: Callable[[str], Path], refused: Refused, content: bytes) -> None:
    run_dir = run_of("bp random")
    (checkpoint.find(run_dir / "checkpoints")[-1] / "manifest.json").write_bytes(content)
    refused(run_dir, r"corrupt \(.*\); remove it to go on from the checkpoint before it", load=True)


def test_another_form_is_named(run_of: Callable[[str], Path], refused: Refused) -> None:
    run_dir = run_of("bp random")
    (checkpoint.find(run_dir / "checkpoints")[-1] / "manifest.json").write_bytes(b'{"files":{},"format":1}')
    refused(run_dir, r"was written by another version \(expected form 2, got 1\); train the run anew", load=True)


def _leaves(packed: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths to everything in a packed state that is no dict with items."""
    if isinstance(packed, dict) and "items" in packed:
        return [
            path,
            *(leaf for n, (_, item) in enumerate(packed["items"]) for leaf in _leaves(item, (*path, "items", n, 1))),
        ]
    return [path]


@pytest.mark.parametrize("name", [" ".join(arm) for arm in ARMS[1:]])
def test_every_entry_of_the_feedback_s_state(
    run_of: Callable[[str], Path], sessions: dict[str, Session], name: str
) -> None:
    """Each is replaced by each of these; what is not its own value is refused, and nothing crashes."""
    run_dir = run_of(name)
    newest = checkpoint.find(run_dir / "checkpoints")[-1]
    sound = json.loads((newest / "state.json").read_text())
    session = sessions[name]
    assert checkpoint.restore(session, newest)
    strange = [None, "7", -1, 10**30, 2.5, [0, 0, 0], {"items": [["\n", 1]]}, {"__tensor__": "9"}]
    for path in (("dfa", *leaf) for leaf in _leaves(sound["dfa"])):
        for value in strange:
            state = json.loads(json.dumps(sound))
            place = state
            for key in path[:-1]:
                place = place[key]
            if place[path[-1]] == value or (isinstance(place[path[-1]], float) and type(value) in (int, float)):
                continue
            place[path[-1]] = value
            (newest / "state.json").write_text(json.dumps(state))
            (newest / "manifest.json").unlink()
            seal(newest)
            with pytest.raises(CheckpointError, match="step_0000012") as caught:
                checkpoint.restore(session, newest)
            assert "\n" not in str(caught.value), (path, value)


TENSORS = {
    "a row": lambda t: t[:1],
    "an axis more": lambda t: t[None],
    "half": lambda t: t.abs().half(),
    "nan": _with(0, float("nan")),
}


@pytest.mark.parametrize("name", ["odfa aligned", "dfa electronic"])
def test_every_tensor_of_the_feedback_s_state(run_of: Callable[[str], Path], refused: Refused, name: str) -> None:
    run_dir = run_of(name)
    sound = load_file(checkpoint.find(run_dir / "checkpoints")[-1] / "state.safetensors")
    for key, change in ((key, change) for key in sound for change in TENSORS.values()):
        damaged = {**sound, key: change(sound[key].clone()).contiguous()}
        _change(run_dir, "state.safetensors", lambda _, damaged=damaged: damaged)
        refused(run_dir, "does not fit|head is|holds NaN")
    _change(run_dir, "state.safetensors", lambda _: {**sound, "99": torch.ones(1)})
    refused(run_dir, "state.json does not name '99'")


def test_names_that_are_no_checkpoints_are_left_alone(run_of: Callable[[str], Path]) -> None:
    run_dir = run_of("bp random")
    for name in ("step_final", "step_0000012.bak", "step_", "step_-000012"):
        (run_dir / "checkpoints" / name).mkdir()
    assert [path.name for path in checkpoint.find(run_dir / "checkpoints")] == ["step_0000008", "step_0000012"]
    for step in (9_999_999, 10_000_000):
        (run_dir / f"checkpoints/step_{step}").mkdir()
    assert checkpoint.step_of(checkpoint.find(run_dir / "checkpoints")[-1]) == 10_000_000


@pytest.mark.parametrize("content", [b"{}", b'{"status": "complete"}', b'{"status": 1, "step": 1, "reason": null}'])
def test_a_damaged_status(run_of: Callable[[str], Path], content: bytes) -> None:
    run_dir = run_of("bp random")
    (run_dir / "status.json").write_bytes(content)
    with pytest.raises(OSError, match=r"status\.json is damaged .*; remove it to go on from the newest checkpoint"):
        train.resume(run_dir, progress=False)
    (run_dir / "status.json").unlink()
    assert train.resume(run_dir, progress=False).steps == 12


def test_no_file_of_a_run_holds_nan(tmp_path: Path, quick: Quick) -> None:
    with RunFolder(tmp_path / "run", quick("bp"), resume=False) as folder:
        for write in (
            lambda: folder.log("metrics", {"step": 1, "norms": {"a": [1.0, float("nan")]}}),
            lambda: folder.finish({"metric": {"value": float("inf")}}, step=1),
        ):
            with pytest.raises(NonFinite, match=r"norms\.a\.1 is nan: expected|metric\.value is inf: expected"):
                write()
        assert (tmp_path / "run/metrics.jsonl").read_bytes() == b""
        assert {file.name for file in (tmp_path / "run").iterdir()} == {
            *(".lock", "config.json", "checkpoints", "metrics.jsonl", "timing.jsonl")
        }
