"""Commands that read finished runs compute where they are asked to, or where the run was trained, or say it is absent.

The accelerator is none (`tests.far`): tensors that were left behind show.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.far import CPU, DEVICE, one_accelerator
from tests.garments import write_images
from tests.talk import small_run, write_corpus

from odfa import devices, keys, load_run, recipes, train
from odfa.cli import main
from odfa.errors import ConfigError
from odfa.lab import sample
from odfa.lab.angles import AlignSettings, align
from odfa.lab.image_judge import JudgeSettings, judge
from odfa.session import RunConfig
from odfa.settings import SettingError, apply
from odfa.store.placed import device_of_run, loading_on
from odfa.tasks.base import device_of

FAR = str(DEVICE.type)
QUIET = ("threads=1", "tensorboard=false")


@pytest.fixture
def far(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One accelerator, whose random numbers are the processor's."""
    with one_accelerator(monkeypatch):
        yield


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small run of each task that is sampled, trained on the processor."""
    folder = tmp_path_factory.mktemp("runs")
    garments = write_images(folder)
    few = ["steps=2", "batch_size=8", "limit=120", *QUIET]
    made = {
        "digits": apply(recipes.get("digits_tiny", "dfa:aligned"), ["steps=2", "rule.rank=2", *QUIET]),
        "text": replace(small_run(write_corpus(folder), "bp"), steps=2, epochs=1, tensorboard=False),
        "images": apply(recipes.get("fashion_diffusion_tiny", "bp"), [*few, "validation=8", f"path={garments}"]),
        "judge": apply(recipes.get("fashion_cnn_tiny", "bp"), [*few, "validation=8", f"path={garments}"]),
        "maps": apply(recipes.get("climate_vit_tiny", "bp"), few),
    }
    for name, config in made.items():
        train.run(config, folder / name, progress=False)
    return {name: folder / name for name in made}


def trained_on(run_dir: Path, name: str) -> None:
    """Write another device into the run's settings."""
    file = run_dir / "config.json"
    text = file.read_text()
    before = next(line for line in text.splitlines() if '"device"' in line)
    file.write_text(text.replace(before, f'  "device": "{name}",'))


@pytest.fixture
def absent(runs: dict[str, Path]) -> Iterator[None]:
    """The runs were trained on a device that is not here."""
    kept = {run: (run / "config.json").read_text() for run in runs.values()}
    for run in runs.values():
        trained_on(run, "cuda:99")
    yield
    for run, text in kept.items():
        (run / "config.json").write_text(text)


@pytest.mark.usefixtures("far")
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("text", ["prompt=is 3", "count=2", "tokens=4", "temperature=1"]),
        ("images", ["classes=bag", "count=2", "steps=2", "guidance=2"]),
        ("maps", ["sample=3"]),
    ],
)
def test_a_run_is_sampled_on_an_accelerator_as_on_the_processor(
    runs: dict[str, Path], tmp_path: Path, name: str, words: list[str]
) -> None:
    out = [] if name == "text" else [f"out={tmp_path / 'drawn.png'}"]
    before = torch.get_rng_state()
    near, there = (sample([runs[name]], [*words, *out, f"device={device}"]) for device in ("cpu", FAR))
    assert there == near == sample([runs[name]], [*words, *out])
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.usefixtures("far")
def test_images_are_judged_on_an_accelerator_as_on_the_processor(runs: dict[str, Path]) -> None:
    settings = JudgeSettings(by=runs["judge"], count=100, steps=1)
    near, there = (judge([runs["images"]], replace(settings, device=device)) for device in ("cpu", FAR))
    assert there == near


@pytest.mark.usefixtures("far")
def test_angles_are_measured_where_they_are_asked_for(runs: dict[str, Path]) -> None:
    near, there = (align(runs["digits"], AlignSettings(device=device)) for device in (None, FAR))
    assert (near["device"], there["device"]) == ("cpu", str(DEVICE))
    assert there["blocks"] == near["blocks"]


@pytest.mark.usefixtures("far")
def test_a_model_is_where_it_was_trained_only_while_somebody_asks(runs: dict[str, Path]) -> None:
    run_dir = runs["digits"]
    kept = (run_dir / "config.json").read_text()
    x_ND = torch.ones(2, load_run(run_dir).kept.shape.num_features)
    trained_on(run_dir, FAR)
    try:
        with loading_on(None, [run_dir]):
            there = load_run(run_dir).model
        near = load_run(run_dir).model
        assert (device_of(there), device_of(near)) == (DEVICE, CPU)
        assert there(x_ND).device == CPU
        assert torch.equal(there(x_ND), near(x_ND))
        with loading_on("cpu", [run_dir]):
            assert device_of(load_run(run_dir).model) == CPU
    finally:
        (run_dir / "config.json").write_text(kept)


def test_random_numbers_of_the_device_go_on(runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    states: list[object] = []
    monkeypatch.setattr(devices, "accelerators", lambda: [DEVICE])
    monkeypatch.setattr(keys, "state_on", lambda device: device)
    monkeypatch.setattr(keys, "put_back", lambda device, state: states.append((device, state)))
    with loading_on(FAR, [runs["digits"], runs["text"]]):
        assert states == []
    assert states == [(DEVICE, DEVICE)]


def _commands(runs: dict[str, Path], tmp_path: Path) -> list[list[str]]:
    return [
        ["align", str(runs["digits"])],
        ["sample", str(runs["text"])],
        ["sample", str(runs["images"]), f"out={tmp_path / 'a.png'}"],
        ["sample", str(runs["maps"]), f"out={tmp_path / 'b.png'}"],
        ["judge", str(runs["images"]), f"by={runs['judge']}"],
    ]


def _told(capsys: pytest.CaptureFixture[str]) -> str:
    (told,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("odfa: ")]
    return told


def test_an_absent_device_is_refused_in_one_line(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in _commands(runs, tmp_path):
        assert main([*command, "device=cuda:99"]) == 2
        told = _told(capsys)
        assert told.startswith("odfa: device: expected one of cpu, auto"), command
        assert f"got cuda:99; torch {torch.__version__} sees no such device (see odfa env)" in told
        assert main([*command, "device=gpu"]) == 2
        assert "gpu" in _told(capsys)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("absent")
def test_a_run_of_an_absent_device_is_refused_and_read_where_it_is_told(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in _commands(runs, tmp_path):
        assert main(command) == 2
        assert "(the run was trained there; say device=cpu, or another one that is here)" in _told(capsys)
    assert list(tmp_path.iterdir()) == []
    assert main(["align", str(runs["digits"]), "device=cpu"]) == 0
    assert main(["sample", str(runs["text"]), "device=cpu", "tokens=2"]) == 0
    assert main(["export", str(runs["text"]), str(tmp_path / "exported")]) == 0  # nothing is computed
    assert device_of(load_run(runs["digits"]).model) == CPU


@pytest.mark.parametrize("settings", [JudgeSettings, AlignSettings])
def test_a_device_that_is_none_is_refused(settings: type[JudgeSettings | AlignSettings]) -> None:
    with pytest.raises(SettingError, match=r"device: expected cpu, cuda, cuda:N, mps, xpu, xpu:N or auto, got .gpu."):
        settings(device="gpu")


def test_what_is_asked_for_comes_before_the_device_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "accelerators", lambda: [torch.device("cuda", 0)])
    config: RunConfig = replace(recipes.get("digits_tiny"), device="cuda")
    assert device_of_run(config, None) == device_of_run(config, "auto") == torch.device("cuda", 0)
    assert device_of_run(config, "cpu") == CPU
    with pytest.raises(ConfigError, match="got xpu"):
        device_of_run(config, "xpu")
