"""A run names where its network is computed. An accelerator that is none (`tests.far`) shows tensors left behind."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.far import CPU, DEVICE, FETCHED, FarTensor, one_accelerator
from tests.talk import small_run, write_corpus
from torch.utils._device import _device_constructors

from odfa import devices as device
from odfa import keys, recipes, train
from odfa.cli import main
from odfa.errors import ConfigError, NonFinite
from odfa.lab.angles import align
from odfa.session import MemorySettings, RunConfig, build, dry_run
from odfa.session.assembly import try_loss
from odfa.settings import SettingError, apply
from odfa.store import load_run
from odfa.train.alignment import measure_alignment
from odfa.train.loop import batches, train_step

FAR = str(DEVICE.type)
_SCALES = "aten._local_scalar_dense.default"
QUIET = ("threads=1", "tensorboard=false")


@pytest.fixture
def far(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One accelerator, whose random numbers are the processor's."""
    with one_accelerator(monkeypatch):
        yield


def test_the_accelerator_that_is_none_leaves_other_devices_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    _device_constructors.cache_clear()  # as in a process in which no device has been named yet
    with monkeypatch.context() as patched, one_accelerator(patched), torch.device("meta"):
        assert torch.tensor([1.0]).is_meta
    with torch.device("meta"):
        assert torch.tensor([1.0]).is_meta


def _steps(config: RunConfig) -> list[Any]:
    """Three steps, the angles to the true gradient, and the validation figures."""
    with torch.random.fork_rng(devices=[]):
        session = build(config)
        try_loss(session)
        rows = [train_step(session, batch) for _, batch in zip(range(3), batches(session), strict=False)]
        feeds = config.rule.feeds and not config.memory.fused
        angles = dict(measure_alignment(session)) if feeds else {}
        assert {parameter.device for parameter in session.model.parameters()} == {session.device}
        assert session.splits.train.x_ND.device == CPU
        return [rows, angles, session.task.evaluate(session.evaluated, session.splits.validation)]


_ARMS = {
    "bp": ("bp",),
    "gaussian": ("dfa",),
    "hadamard": ("dfa", "projection=hadamard"),
    "rademacher": ("dfa", "projection=rademacher"),
    "aligned": ("dfa:aligned", "rule.rank=2", "rule.every=1"),
    "hops": ("dfa:aligned", "rule.rank=2", "rule.every=1", "rule.hops=1"),
    "electronic": ("dfa:electronic", "rule.rank=2", "rule.every=1"),
    "exact": ("dfa:exact",),
    "low_rank": ("dfa:low_rank", "rule.rank=2"),
    "drtp": ("dfa:drtp",),
    "kolen_pollack": ("dfa:kolen_pollack",),
    "shallow": ("shallow",),
    "identity": ("identity",),
    "encoded": ("tdfa",),
    "optical": ("odfa",),
    "muon": ("dfa", "optimizer=muon"),
    "sgd, average": ("dfa", "optimizer=sgd", "optimizer.average=0.9"),
    "recompute": ("dfa", "memory.activations=recompute"),
    "stream": ("dfa", "memory.activations=stream", "memory.fused=true", "clip_norm=none"),
    "fused": ("bp", "memory.fused=true", "clip_norm=none"),
    "convolutions": ("dfa", "network=cnn", "network.width=8", "network.layers=2"),
    "attention": ("dfa", "network=vit", "network.width=8", "network.layers=2", "granularity=linear"),
    "shifts": ("dfa", "network=cnn", "network.width=8", "network.layers=2", "shift=1"),
}


@pytest.mark.usefixtures("far")
@pytest.mark.filterwarnings("ignore:at..frobenius_norm is deprecated")
@pytest.mark.parametrize("words", _ARMS.values(), ids=_ARMS)
def test_digits_learn_on_an_accelerator_as_on_the_processor(words: tuple[str, ...]) -> None:
    config = apply(recipes.get("digits_tiny", words[0]), [*words[1:], *QUIET])
    assert _steps(replace(config, device=FAR)) == _steps(config)


@pytest.mark.usefixtures("far")
@pytest.mark.parametrize("arm", ["bp", "dfa"])
@pytest.mark.parametrize("recipe", ["climate_vit_tiny", "fashion_diffusion_tiny"])
def test_fields_and_noise_are_learned_on_an_accelerator(recipe: str, arm: str) -> None:
    config = apply(recipes.get(recipe, arm), QUIET)
    assert _steps(replace(config, device=FAR)) == _steps(config)


@pytest.mark.usefixtures("far")
@pytest.mark.parametrize("head_rows", [None, 7])
@pytest.mark.parametrize("rule", ["random", "aligned"])
def test_language_is_learned_on_an_accelerator(tmp_path: Path, rule: str, head_rows: int | None) -> None:
    config = small_run(write_corpus(tmp_path), "dfa", rule, memory=MemorySettings(head_rows=head_rows))
    assert _steps(replace(config, device=FAR)) == _steps(config)


@pytest.mark.usefixtures("far")
@pytest.mark.parametrize("there", ["cpu", FAR])
def test_a_run_goes_on_on_another_device(tmp_path: Path, there: str) -> None:
    here = FAR if there == "cpu" else "cpu"
    config = apply(recipes.get("digits_tiny", "dfa:aligned"), ["steps=6", "checkpoint_every=3", "rule.rank=2", *QUIET])
    folders = {name: tmp_path / name for name in ("whole", "parted")}
    train.run(config, folders["whole"], progress=False)
    begun = replace(config, device=there)
    _interrupted(begun, folders["parted"])
    file = folders["parted"] / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "device": here}))
    assert align(folders["parted"])["step"] == 3
    train.resume(folders["parted"], progress=False)
    whole, parted = (load_run(folder) for folder in folders.values())
    assert parted.metrics == whole.metrics
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(parted.model.state_dict()[name], weight)
    sessions = json.loads((folders["parted"] / "environment.json").read_text())["sessions"]
    assert [session["device"].partition(":")[0] for session in sessions] == [there, here]
    assert all(session["device_name"] for session in sessions)


def _interrupted(config: RunConfig, folder: Path) -> None:
    """Begin a run that fails after its first checkpoint."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("odfa.train.loop.train_step", _until(3))
        with pytest.raises(RuntimeError, match="the current failed"):
            train.run(config, folder, progress=False)


def _until(last: int) -> Any:
    def step(session: Any, batch: Any) -> Any:
        if session.step == last:
            raise RuntimeError("the current failed")
        return train_step(session, batch)

    return step


def test_auto_is_the_processor_where_there_is_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "accelerators", list)
    found = []
    for name in ("cpu", "auto"):
        config = apply(recipes.get("digits_tiny", "dfa"), ["steps=4", f"device={name}", *QUIET])
        train.run(config, tmp_path / name, progress=False)
        found.append(load_run(tmp_path / name))
    assert found[0].metrics == found[1].metrics
    for name, weight in found[0].model.state_dict().items():
        assert torch.equal(found[1].model.state_dict()[name], weight)
    assert found[1].config.device == "auto"


def test_auto_is_the_first_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = [torch.device("cuda", 0), torch.device("cuda", 1)]
    monkeypatch.setattr(device, "accelerators", lambda: cuda)
    named = {name: device.device_named(name) for name in ("auto", "cuda", "cuda:1", "cpu")}
    assert named == {"auto": cuda[0], "cuda": cuda[0], "cuda:1": cuda[1], "cpu": CPU}
    with pytest.raises(ConfigError, match="expected one of cpu, auto, cuda, cuda:0, cuda:1 on this machine, got mps"):
        device.device_named("mps")


@pytest.mark.parametrize("name", ["gpu", "CUDA", "cuda:", "cuda:-1", "mps:0", "", "cpu:0"])
def test_a_device_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(SettingError, match="device: expected cpu, cuda, cuda:N, mps, xpu, xpu:N or auto, got"):
        replace(recipes.get("digits_tiny"), device=name)


def test_an_absent_device_is_refused_in_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ["train", "digits_tiny", "device=cuda:99", "--run-dir", str(tmp_path / "run")]
    for more in ([], ["--dry-run"]):
        assert main([*words, *more]) == 2
        told = [line for line in capsys.readouterr().err.splitlines() if "device" in line]
        assert len(told) == 1
        assert "device: expected one of cpu, auto" in told[0]
        assert f"got cuda:99; torch {torch.__version__} sees no such device" in told[0]
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("far")
def test_weights_in_files_are_refused_on_an_accelerator() -> None:
    config = apply(recipes.get("digits_tiny", "bp"), ["memory.storage=disk", f"device={FAR}"])
    with pytest.raises(ConfigError, match=r"memory\.storage=disk: .* expected memory with device=mps, or device=cpu"):
        dry_run(config)


def test_random_states_are_forked_on_accelerators_too(monkeypatch: pytest.MonkeyPatch) -> None:
    states = {"before": 1}
    monkeypatch.setattr(keys, "state_on", lambda _device: states["before"])
    monkeypatch.setattr(keys, "put_back", lambda _device, state: states.update(after=state))
    before = torch.get_rng_state()
    with keys.forked([CPU, DEVICE]):
        states["before"] = torch.manual_seed(5).initial_seed()
    assert states["after"] == 1
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.usefixtures("far")
def test_the_accelerator_of_these_tests_refuses_mixed_devices() -> None:
    near, there = torch.ones(2, 2), torch.ones(2, 2).to(DEVICE)
    assert isinstance(there, FarTensor)
    assert (there @ there.new_ones(2, 2)).device == DEVICE
    for mixed in (lambda: near @ there, lambda: there + near, lambda: near[there.long()], lambda: there.numpy()):
        with pytest.raises((RuntimeError, TypeError), match=r"one device|can't convert"):
            mixed()


def _waits(config: RunConfig) -> list[list[str]]:
    """What each step after the first two, in which the model is traced, waits for."""
    with torch.random.fork_rng(devices=[]):
        session = build(replace(config, device=FAR))
        found = []
        for _, batch in zip(range(4), batches(session), strict=False):
            FETCHED.clear()
            train_step(session, batch)
            found.append(list(FETCHED))
    return found[2:]


@pytest.mark.usefixtures("far")
@pytest.mark.parametrize("arm", ["bp", "shallow", "dfa:random", "dfa:aligned", "dfa:exact"])
def test_a_step_waits_for_the_accelerator_once(arm: str) -> None:
    """Loss, error, signals and gradients come in one transfer, before the optimiser moves."""
    config = apply(recipes.get("digits_tiny", arm), ["clip_norm=none", *QUIET])
    assert _waits(config) == [["tolist"], ["tolist"]]


@pytest.mark.usefixtures("far")
def test_codes_are_waited_for_once_more() -> None:
    """For the number of rows that are not zero: those are drawn and shown. Nobody waits for the density of the code."""
    config = apply(recipes.get("digits_tiny", "tdfa"), ["clip_norm=none", *QUIET])
    assert _waits(config) == [["aten._local_scalar_dense.default", "tolist"]] * 2


@pytest.mark.usefixtures("far")
@pytest.mark.parametrize("head_rows", [None, 7])
@pytest.mark.parametrize("rule", ["random", "aligned", "exact"])
def test_the_scales_of_norms_are_looked_at_once_more(tmp_path: Path, rule: str, head_rows: int | None) -> None:
    """Blocks that are cut take the gradients of scales from weight gradients, which divides by the scales. What the
    library waits for by itself, it waits for in backpropagation too."""
    corpus, memories = write_corpus(tmp_path), (MemorySettings(), MemorySettings(head_rows=head_rows))
    plain, ours = (
        _waits(replace(small_run(corpus, *words, memory=memory), tensorboard=False))
        for words, memory in zip((["bp"], ["dfa", rule]), memories, strict=True)
    )
    assert [sorted(found) for found in ours] == [sorted([*found, _SCALES]) for found in plain]
    assert [found.count("tolist") for found in ours] == [1, 1]


@pytest.mark.usefixtures("far")
def test_backward_of_the_handle_waits_once_and_plain_backward_before_it_returns() -> None:
    with torch.random.fork_rng(devices=[]):
        session = build(replace(apply(recipes.get("digits_tiny", "dfa"), QUIET), device=FAR))
        batch, dfa = session.splits.train.head(40).to(session.device), session.dfa
        for _ in range(2):
            dfa.backward(session.task.loss(session.model, batch))
        loss = session.task.loss(session.model, batch)
        FETCHED.clear()
        dfa.backward(loss)
        assert FETCHED == ["tolist"]
        norms = dfa.last.signal_norms
        assert FETCHED == ["tolist"]
        session.task.loss(session.model, batch).backward()
        assert FETCHED == ["tolist"] * 2
        assert dfa.last.signal_norms == norms
        with pytest.raises(NonFinite, match="the loss is nan and the optimiser has not moved"):
            dfa.backward(session.task.loss(session.model, batch) * float("nan"))
        with pytest.raises(NonFinite, match="output error contains NaN"):
            (session.task.loss(session.model, batch) * float("nan")).backward()
        dfa.backward(session.task.loss(session.model, batch), look=False)
        assert dfa.last.signal_norms == norms


def _shapes(session: Any, batch: Any) -> list[tuple[int, ...]]:
    return [(len(batch), width) for width in session.config.network.widths]


@pytest.mark.usefixtures("far")
@pytest.mark.parametrize("arm", ["bp", "shallow", "dfa", "tdfa"])
def test_what_is_not_finite_there_stops_before_the_optimiser_moves(arm: str) -> None:
    with torch.random.fork_rng(devices=[]):
        session = build(replace(apply(recipes.get("digits_tiny", arm), QUIET), device=FAR))
        good = session.splits.train.head(40)
        train_step(session, good)
        before = {name: value.clone() for name, value in session.model.state_dict().items()}
        bad = replace(good, x_ND=good.x_ND.clone())
        bad.x_ND[3, 5] = float("nan")
        with pytest.raises(NonFinite, match=r"step 2: the (loss is nan|output error contains NaN)"):
            train_step(session, bad)
        assert session.step == 1
        assert all(torch.equal(value.cpu(), before[name].cpu()) for name, value in session.model.state_dict().items())
        train_step(session, good)  # nothing of the bad step is left
        if session.dfa is None or not session.config.rule.feeds:
            return
        broken = [torch.full(call_shape, float("inf"), device=DEVICE) for call_shape in _shapes(session, good)]
        session.dfa.at_work.signals = lambda _error, _calls: broken
        with pytest.raises(NonFinite, match=r"step 3: the feedback of .* contains NaN or infinity"):
            train_step(session, good)
        assert session.step == 2


def test_tf32_is_how_float32_is_multiplied_during_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = apply(recipes.get("digits_tiny", "dfa"), ["steps=2", "memory.precision=tf32", *QUIET])
    with pytest.raises(ConfigError, match=r"memory\.precision=tf32: expected a cuda or xpu device, got cpu; say"):
        train.run(config, tmp_path / "refused", progress=False)
    assert not (tmp_path / "refused").exists()
    monkeypatch.setattr("odfa.session.memory.device_named", lambda _name: torch.device("cuda", 0))
    before, during = torch.get_float32_matmul_precision(), []

    def step(session: Any, batch: Any) -> Any:
        during.append(torch.get_float32_matmul_precision())
        return train_step(session, batch)

    monkeypatch.setattr("odfa.train.loop.train_step", step)
    train.run(config, tmp_path / "run", progress=False)
    train.run(apply(config, ["memory.precision=float32"]), tmp_path / "other", progress=False)
    assert during == ["high"] * 2 + [before] * 2
    assert torch.get_float32_matmul_precision() == before
    assert {weight.dtype for weight in load_run(tmp_path / "run").model.parameters()} == {torch.float32}
