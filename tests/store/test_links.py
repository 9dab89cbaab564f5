"""A run folder from somebody else: nothing outside it is read or written through what lies in it."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from odfa import train
from odfa.errors import RunFolderError
from odfa.files import new_folder, remove, write_file
from odfa.session import RunConfig
from odfa.store import checkpoint, load_run

Quick = Callable[..., RunConfig]
WORDS = "my thesis\n"
READ = ("config.json", "status.json", "environment.json", "metrics.jsonl")


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory, quick: Quick) -> Path:
    """A run that has not been finished, with two checkpoints."""
    run_dir = tmp_path_factory.mktemp("runs") / "run"
    train.run(replace(quick("bp"), epochs=2), run_dir, progress=False)
    status = {"status": "running", "step": 12, "reason": None}
    (run_dir / "status.json").write_text(json.dumps(status))
    (run_dir / "result.json").unlink()
    return run_dir


@pytest.fixture
def received(stopped: Path, tmp_path: Path) -> Path:
    """A copy of it, beside a file and a folder of the user."""
    (tmp_path / "home/.ssh").mkdir(parents=True)
    (tmp_path / "home/thesis").write_text(WORDS)
    (tmp_path / "home/.ssh/key").write_text("secret")
    return Path(shutil.copytree(stopped, tmp_path / "run"))


def _home(run_dir: Path) -> dict[str, str]:
    home = run_dir.parent / "home"
    return {str(file.relative_to(home)): file.read_text() for file in home.rglob("*") if file.is_file()}


def _resume(run_dir: Path) -> None:
    train.resume(run_dir, progress=False)


@pytest.mark.parametrize(
    "name", [".lock", ".status.json.partial", ".result.json.partial", ".environment.json.partial", "result.json", *READ]
)
def test_links_are_never_written_through(received: Path, name: str) -> None:
    link, before = received / name, _home(received)
    link.unlink(missing_ok=True)
    link.symlink_to(received.parent / "home/thesis")
    if name in (".lock", *READ):
        with pytest.raises(RunFolderError, match=rf"{name} is a symbolic link; put what it points to in its place"):
            _resume(received)
        link.unlink()  # what the message advises
        if name in ("status.json", "environment.json", ".lock"):
            _resume(received)
    else:
        _resume(received)
        assert not link.is_symlink()
    assert _home(received) == before


def test_links_to_nothing_make_no_files(received: Path) -> None:
    for name in (".lock", "status.json"):
        (received / name).unlink()
        (received / name).symlink_to(received.parent / "home/new")
        with pytest.raises(RunFolderError, match="is a symbolic link"):
            _resume(received)
        (received / name).unlink()
    assert not (received.parent / "home/new").exists()


@pytest.mark.parametrize("name", ["metrics.jsonl", ".lock"])
def test_second_names_of_files_elsewhere_are_not_written(received: Path, name: str) -> None:
    elsewhere, before = received.parent / "home/elsewhere", (received / name).read_bytes()
    os.link(received / name, elsewhere)
    with pytest.raises(RunFolderError, match=r"has a second name elsewhere \(a hard link\); put a copy in its place"):
        _resume(received)
    (received / name).unlink()
    shutil.copy(elsewhere, received / name)  # what the message advises
    _resume(received)
    assert elsewhere.read_bytes() == before


@pytest.mark.parametrize("name", ["checkpoints", "checkpoints/step_0000012"])
def test_folders_that_are_links_are_refused(received: Path, name: str) -> None:
    (received / name).rename(received.parent / "home/there")
    (received / name).symlink_to(received.parent / "home/there")
    before = sorted((received.parent / "home").rglob("*"))
    for act in (_resume, load_run):
        with pytest.raises(RunFolderError, match=f"{Path(name).name} is a symbolic link") as caught:
            act(received)
        assert "\n" not in str(caught.value)
    assert sorted((received.parent / "home").rglob("*")) == before


def test_events_are_not_written_through_a_link(tmp_path: Path, quick: Quick) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run/tb").symlink_to(tmp_path / "home")
    with pytest.raises(RunFolderError, match="tb is a symbolic link"):
        train.run(replace(quick("bp"), tensorboard=True), tmp_path / "run", progress=False)
    assert not list((tmp_path / "home").iterdir())


def test_links_inside_a_checkpoint_are_refused(received: Path) -> None:
    newest = checkpoint.find(received / "checkpoints")[-1]
    weights = newest / "model.safetensors"
    weights.rename(received.parent / "home/weights")
    weights.symlink_to(received.parent / "home/weights")
    for act in (_resume, load_run):
        with pytest.raises(RunFolderError, match=r"model\.safetensors is a symbolic link"):
            act(received)


def test_leftovers_that_are_links_are_removed_and_what_they_point_to_stays(received: Path) -> None:
    before = _home(received)
    for name in (".step_0000099.partial", ".step_0000098.0123.partial", ".step_0000003.removed"):
        (received / "checkpoints" / name).symlink_to(received.parent / "home/.ssh")
    (received / ".status.json.0123.partial").write_text("half")
    _resume(received)
    assert _home(received) == before
    assert not list((received / "checkpoints").glob(".*"))
    assert [file.name for file in received.glob(".*")] == [".lock"]


def test_pipes_are_not_waited_for(received: Path) -> None:
    for name in ("config.json", ".lock"):
        before = (received / name).read_bytes()
        (received / name).unlink()
        os.mkfifo(received / name)
        with pytest.raises(RunFolderError, match=name):
            _resume(received)
        (received / name).unlink()
        (received / name).write_bytes(before)


def test_a_run_folder_may_itself_be_reached_by_a_link(received: Path) -> None:
    (received.parent / "latest").symlink_to(received)
    _resume(received.parent / "latest")
    assert load_run(received.parent / "latest").result is not None


def test_writing_is_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    write_file(file, b"one")
    (tmp_path / "link").symlink_to(file)
    write_file(tmp_path / "link", b"two")
    assert (file.read_bytes(), (tmp_path / "link").read_bytes()) == (b"one", b"two")

    def full(_descriptor: int) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="disk"):
        write_file(file, b"three")
    with pytest.raises(OSError, match="disk"), new_folder(tmp_path / "new") as made:
        write_file(made / "half", b"half")
    assert (file.read_bytes(), {path.name for path in tmp_path.iterdir()}) == (b"one", {"file", "link"})
    (tmp_path / "folder").symlink_to(tmp_path)
    remove(tmp_path / "folder")
    assert file.exists()
