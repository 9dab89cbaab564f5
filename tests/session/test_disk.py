"""Weights and moments on disk are the same weights and moments."""

import errno
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.talk import small_run, write_corpus

from odfa import train
from odfa.errors import ConfigError
from odfa.session import MemorySettings, RunConfig, build, disk, dry_run
from odfa.store import load_run
from odfa.tasks.language import text

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="files without names are mapped on Linux only")
LEAN = MemorySettings(activations="stream", fused=True)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(disk, "LARGE_BYTES", 1)  # every tensor is large
    text._corpus.cache_clear()
    return small_run(write_corpus(tmp_path), "dfa", "random", layers=2)


def mapped_bytes() -> int:
    """Bytes of this process's memory that lie in nameless files of weights."""
    total = 0
    for line in Path("/proc/self/maps").read_text().splitlines():
        if "weights-" in line and line.endswith("(deleted)"):
            low, high = line.split()[0].split("-")
            total += int(high, 16) - int(low, 16)
    return total


@pytest.mark.filterwarnings("ignore")  # torch's compiler, which torchao uses, warns of itself
@pytest.mark.parametrize(
    "memory",
    [
        MemorySettings(),
        LEAN,
        pytest.param(replace(LEAN, precision="bfloat16"), marks=pytest.mark.slow),
    ],
)
def test_a_run_on_disk_is_the_run_in_memory(tmp_path, config, memory) -> None:
    weights = []
    for storage in ("memory", "disk"):
        one = replace(
            config, memory=replace(memory, storage=storage), optimizer=replace(config.optimizer, clip_norm=None)
        )
        train.run(one, tmp_path / storage, progress=False)
        weights.append(load_run(tmp_path / storage).model.state_dict())
    for name, ours in weights[0].items():
        assert torch.equal(weights[1][name], ours), name


def test_weights_and_moments_lie_in_files_that_are_gone_with_the_process(tmp_path, config) -> None:
    before = mapped_bytes()
    session = build(replace(config, memory=replace(LEAN, storage="disk")))
    weights = sum(p.numel() * p.element_size() for p in session.model.parameters() if p.ndim > 1)
    assert mapped_bytes() - before >= weights
    train.train_step(session, session.splits.train.head(config.batch_size))
    assert mapped_bytes() - before >= 3 * weights
    assert not list((tmp_path / "cache").rglob("weights-*"))


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, config, monkeypatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(ConfigError, match=r"storage=disk: no room for [\d,]+ bytes more in .*; free space or set XDG"):
        build(replace(config, memory=replace(LEAN, storage="disk")))
    assert not list((tmp_path / "cache").rglob("weights-*"))


def test_a_dry_run_says_what_goes_to_disk(config) -> None:
    memory, on_disk = (dry_run(replace(config, memory=replace(LEAN, storage=at))) for at in ("memory", "disk"))
    assert memory["disk_bytes"] == 0
    assert on_disk["disk_bytes"] == memory["memory_bytes"]["total"] - on_disk["memory_bytes"]["total"]
    assert on_disk["disk_bytes"] == memory["memory_bytes"]["weights"] + memory["memory_bytes"]["optimizer"]
