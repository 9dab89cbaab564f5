"""A task of another package: data, network, loss and recipe in one module, nothing of it known here."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.recipes.conftest import Refused

from odfa import train
from odfa.cli import main
from odfa.recipes import get
from odfa.settings import to_dict
from odfa.store import load_run

HERE = "tests.recipes.outside"


def _said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict, str]:
    code = main([*words, "--json"])
    out, err = capsys.readouterr()
    return code, json.loads(out) if out else {}, err


def test_a_task_from_outside_trains_resumes_compares_and_is_planned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    name, words = f"{HERE}:parity", ("margin=0.5", "floors=3", "rows=60")
    code, done, err = _said(capsys, "train", name, *words, "arm=odfa", "--run-dir", "run")
    assert (code, done.get("steps")) == (0, 4), err
    assert done["metric"]["name"] == "wrong"
    saved = json.loads((tmp_path / "run" / "config.json").read_text())
    assert saved["task"] == {"type": f"{HERE}:Hinge", "margin": 0.5}
    assert saved["network"] == {"type": f"{HERE}:Tower", "width": 8, "floors": 3}
    assert saved["data"] == {"type": f"{HERE}:Parity", "limit": None, "rows": 60}
    loaded = load_run("run")
    assert len(loaded.model) == 4
    assert torch.isfinite(loaded.model(torch.ones(1, 6))).all()
    assert _said(capsys, "train", "--resume", "run")[1] == done
    assert _said(capsys, "align", "run")[0] == 0
    code, table, err = _said(capsys, "compare", name, "arms=bp,dfa,shallow", "seeds=1", "tries=1", "--run-dir", "all")
    assert code == 0, err
    assert set(table["learning_rates"]) == {"bp", "dfa", "shallow"}
    assert _said(capsys, "train", name, "--dry-run")[1]["steps"] == 4
    code, page, err = _said(capsys, "plan", name)
    assert code == 0, err
    assert page["blocks"] == 2
    with pytest.raises(SystemExit):
        main(["train", name, "--help"])
    assert "network.floors=2  (integer)\n      How many." in capsys.readouterr().out


def test_a_task_from_outside_is_sampled_by_its_own_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for run in ("a", "b"):
        assert _said(capsys, "train", f"{HERE}:parity", "--run-dir", run)[0] == 0
    code, made, err = _said(capsys, "sample", "a", "sign=minus", "b", "rows=3")
    assert code == 0, err
    with torch.no_grad():
        answer = load_run("a").model(-torch.ones(1, 6)).argmax().item()
    assert made == {"a": [answer] * 3, "b": [answer] * 3}
    assert (main(["sample", "a"]), capsys.readouterr().out.startswith("a: [")) == (0, True)
    with pytest.raises(SystemExit):
        main(["sample", "a", "--help"])
    assert "  sign=plus  (plus | minus)\n      Sign of every entry.\n" in capsys.readouterr().out
    for words, told in (
        ("rowz=3", "unknown setting 'rowz'; did you mean rows?"),
        ("rows=0", "rows: expected a positive number, got 0"),
        ("sign=both", "sign: expected plus or minus, got 'both'"),
    ):
        assert (main(["sample", "a", words]), told in capsys.readouterr().err) == (2, True)


@pytest.mark.parametrize(
    ("task", "told"),
    [("Silent", f"whose task={HERE}:Silent offers no samples"), ("Misled", "expected settings of samples")],
)
def test_a_task_from_outside_without_samples_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], task: str, told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert _said(capsys, "train", f"{HERE}:parity", f"task={HERE}:{task}", "--run-dir", "run")[0] == 0
    assert main(["sample", "run"]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n"), told in err) == ("", 1, True)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((f"{HERE}:nothing",), "expected a function that returns a RunConfig, got 3"),
        ((f"{HERE}:absent",), "cannot be imported"),
        (("no.such.module:recipe",), "cannot be imported"),
        ((f"{HERE}:parity", "network=mlp"), "needs a network that returns parities; name one"),
        ((f"{HERE}:parity", "data=digits"), "data=digits: task=tests.recipes.outside:Hinge learns from parities"),
        (("digits_tiny", f"network={HERE}:Tower"), f"network={HERE}:Tower: task=classify needs a network that returns"),
        (("digits_tiny", f"task={HERE}:Hinge"), "data=digits: task=tests.recipes.outside:Hinge learns from parities"),
        ((f"{HERE}:parity", "rows=0"), "data.rows: expected a positive number"),
        (
            (f"{HERE}:parity", "floors=0"),
            f"network={HERE}:Tower: expected blocks to be one or more names, each once, got []",
        ),
        (
            (f"{HERE}:parity", "network.width=0"),
            "expected widths to be one positive integer for each of its 2 blocks, got",
        ),
        (
            (f"{HERE}:parity", "network.width=-3", "arm=bp"),
            "expected widths to be one positive integer for each of its 2",
        ),
        ((f"{HERE}:parity", f"network={HERE}:parity"), "expected settings of the kind AbstractNetwork"),
    ],
)
def test_what_does_not_fit_is_one_line(words: tuple[str, ...], told: str, refused: Refused) -> None:
    refused(words, told)


def test_a_loss_that_fails_leaves_no_run_folder(tmp_path: Path) -> None:
    from tests.recipes.outside import Broken, parity

    with pytest.raises(ValueError, match="batch_size"):
        train.run(replace(parity(), task=Broken()), tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_a_named_recipe_is_what_its_function_returns() -> None:
    from tests.recipes.outside import parity

    assert to_dict(get(f"{HERE}:parity")) == to_dict(parity())
