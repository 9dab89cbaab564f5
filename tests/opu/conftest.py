"""Packages that register OPUs."""

import sys
from pathlib import Path

import pytest


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Install a distribution `my-lab` with these entry points, as pip would leave it."""

    def install(points: dict[str, str], source: str) -> None:
        (tmp_path / "my_lab.py").write_text(source, encoding="utf-8")
        info = tmp_path / "my_lab-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-lab\nVersion: 1.0\n", encoding="utf-8")
        lines = [f"{name} = {value}" for name, value in points.items()]
        (info / "entry_points.txt").write_text("\n".join(["[odfa.opus]", *lines]), encoding="utf-8")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "my_lab", raising=False)

    return install
