"""Figures of a comparison are found: those of this package, and those that another one registers."""

from collections.abc import Callable
from pathlib import Path

import matplotlib.image
import pytest
from tests.cli.conftest import Said, odfa  # noqa: F401 - a fixture

from odfa.errors import ConfigError
from odfa.lab.figures import ComparisonFigure, found
from odfa.settings import kinds_of

COMPARE = ("compare", "digits_tiny", "epochs=1", "arms=bp,dfa", "seeds=1", "tries=1", "--run-dir", "all")
HERE = "tests.lab.outside_figures"


@pytest.fixture
def register(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Install a distribution with these figures, as pip would leave it."""

    def install(**points: str) -> None:
        info = tmp_path / "site" / "my_lab-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-lab\nVersion: 1.0\n", encoding="utf-8")
        lines = ["[odfa.figures]", *(f"{name} = {value}" for name, value in points.items())]
        (info / "entry_points.txt").write_text("\n".join(lines), encoding="utf-8")
        monkeypatch.syspath_prepend(info.parent)

    return install


def test_a_figure_of_another_package_is_drawn_beside_the_others(
    odfa: Callable[..., Said],  # noqa: F811
    tmp_path: Path,
    register: Callable[..., None],
) -> None:
    alone = odfa(*COMPARE, "--json").json
    assert "figures" not in alone
    picture = (tmp_path / "all" / "comparison.png").read_bytes()
    register(seconds=f"{HERE}:Seconds", gaps=f"{HERE}:Gaps")
    beside = odfa(*COMPARE, "--json").json
    assert beside.pop("figures") == {"seconds": "all/seconds.png"}  # without shallow there is no gap to draw
    assert beside == alone
    assert sorted(path.name for path in Path("all").glob("*.png")) == ["comparison.png", "seconds.png"]
    assert matplotlib.image.imread("all/seconds.png").shape == (300, 450, 4)
    assert Path("all/comparison.png").read_bytes() == picture
    assert odfa(*COMPARE).out.splitlines()[-2:] == ["figure: all/comparison.png", "figure: all/seconds.png"]


@pytest.mark.parametrize(
    ("point", "told"),
    [
        ("nowhere.at_all:Seconds", "cannot be imported"),
        (f"{HERE}:no_figure", "expected settings of the kind ComparisonFigure"),
        ("odfa.tasks.vision.classify:Classify", "expected a ComparisonFigure, got Classify"),
    ],
)
def test_a_figure_that_is_none_is_told_before_anything_is_trained(
    odfa: Callable[..., Said],  # noqa: F811
    tmp_path: Path,
    register: Callable[..., None],
    point: str,
    told: str,
) -> None:
    register(strange=point)
    said = odfa(*COMPARE)
    assert (said.code, told in said.complaint) == (2, True), said.err
    assert not (tmp_path / "all").exists()


def test_a_name_that_no_file_has_is_refused(register: Callable[..., None]) -> None:
    register(**{"../up": f"{HERE}:Seconds"})
    with pytest.raises(ConfigError, match="rename the entry point"):
        found()


def test_this_package_s_figures_are_found_in_their_room() -> None:
    assert list(found()) == list(kinds_of(ComparisonFigure)) == ["comparison"]
