"""The whole surface of the command line, so that it grows on purpose only."""

import argparse
import contextlib
import functools
import io
import json
import re
import runpy
import shlex
import sys

import pytest

from odfa import recipes, settings
from odfa.cli import main
from odfa.cli.entry import COMMANDS, _parse
from odfa.lab import AlignSettings
from odfa.lab.image_judge import JudgeSettings
from odfa.lab.samples import SampleSettings


def _options(command) -> list[str] | dict[str, list[str]]:
    parser = argparse.ArgumentParser(add_help=False)
    command.configure(parser)
    if parser._subparsers is not None:
        (actions,) = parser._subparsers._group_actions
        return {name: _named(sub)[1:-1] for name, sub in actions.choices.items()}  # without --help and --json
    return _named(parser)


def _named(parser) -> list[str]:
    return [action.option_strings[-1] if action.option_strings else action.metavar for action in parser._actions]


HELPS = [
    (command.name, *action)
    for command in COMMANDS
    for action in [(), *((name,) for name in (_options(command) if isinstance(_options(command), dict) else ()))]
]


@pytest.mark.parametrize("words", [(), *HELPS], ids=" ".join)
def test_every_help_is_its_own_and_its_example_is_understood(odfa, monkeypatch, words):
    monkeypatch.setenv("COLUMNS", "80")
    text = _help(words)
    assert text.startswith(f"usage: {' '.join(['odfa', *words])} ")
    assert max(map(len, text.splitlines())) <= 80
    example = text.rpartition("example:\n")[2]
    said, *given = shlex.split(example, comments=True)
    assert said == "odfa"
    assert tuple(given[: len(words)]) == words
    assert all("=" in setting for setting in getattr(_parse(given), "settings", []))


def _help(words) -> str:
    out = io.StringIO()
    with pytest.raises(SystemExit) as left, contextlib.redirect_stdout(out):
        main([*words, "--help"])
    assert left.value.code == 0
    return out.getvalue()


@pytest.mark.parametrize("name", ["digits", "dialogue_gpt", "fashion_unet", "climatebench_vit"])
def test_the_help_of_a_recipe_lists_every_setting(name):
    text, config = _help(("train", name)), recipes.get(name)
    for key, place in settings.keys(config).items():
        value = functools.reduce(getattr, key.split("."), config)
        shown = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        if place.slot:
            tag = "none" if value is None else settings.word_of(value)
            assert f"\n  {key}={tag}  (" in text
        elif place.settings is None and not place.fixed:
            place = text.index(f"  {key}={shown if isinstance(value, str | tuple) else shown.lower()}  (")
            entry = re.split(r"\n(?=  \S|\n)", text[place:])[0]
            assert "\n      " in entry, f"{key} has no meaning"
    assert "\noptimizer: AdamW: steps along the mean gradient over the root of the mean" in text
    assert "optimizer.betas=0.9,0.99  (number, by commas, 2 of them)" in _help(("train", "digits"))


@pytest.mark.parametrize("word", settings.kinds_of(SampleSettings))
def test_the_help_of_samples_lists_every_setting_of_every_kind(word):
    text = _help(("sample",)).partition(f"\n{word}:\n")[2]
    for key, place in settings.keys(settings.kinds_of(SampleSettings)[word]()).items():
        shown = str(place.value) if isinstance(place.value, str) else str(place.value).lower()
        entry = re.split(r"\n(?=  \S|\n)", text[text.index(f"  {key}={shown}  (") :])[0]
        assert "\n      " in entry, f"{key} has no meaning"


@pytest.mark.parametrize(("command", "kind"), [("judge", JudgeSettings), ("align", AlignSettings)])
def test_the_help_of_judge_and_align_lists_every_setting(command, kind):
    text = _help((command,))
    for key, place in settings.keys(kind()).items():
        shown = str(place.value) if isinstance(place.value, str) else str(place.value).lower()
        entry = re.split(r"\n(?=  \S|\n)", text[text.index(f"  {key}={shown}  (") :])[0]
        assert "\n      " in entry, f"{key} has no meaning"


def test_the_help_of_a_run_lists_what_its_task_takes(odfa, tmp_path):
    (tmp_path / "run").mkdir()
    config = settings.apply(recipes.get("climate_vit_tiny"), ["seed=3"])
    (tmp_path / "run" / "config.json").write_text(json.dumps(settings.to_dict(config)))
    text = _help(("sample", "run"))
    assert "\nsettings of run:\n" in text
    assert ("\n  sample=none  (" in text, "prompt=" in text.partition("example:")[0]) == (True, False)
    assert "\n  sample=5  (" in _help(("sample", "run", "sample=5"))
    assert "config.json is missing" in odfa("sample", "nowhere", "--help").complaint


def test_the_help_of_an_unknown_recipe(odfa):
    assert odfa("train", "digitz", "--help").complaint == "odfa: unknown recipe 'digitz'; did you mean digits?"


def test_version_and_module(monkeypatch, capsys):
    import odfa

    monkeypatch.setattr(sys, "argv", ["odfa", "--version"])
    with pytest.raises(SystemExit) as left:
        runpy.run_module("odfa", run_name="__main__")
    assert (left.value.code, capsys.readouterr().out) == (0, f"odfa {odfa.__version__}\n")


def test_commands_and_options():
    assert {command.name: _options(command) for command in COMMANDS} == {
        "recipes": [],
        "train": ["NAME", "key=value", "--run-dir", "--resume", "--dry-run"],
        "compare": ["NAME", "key=value", "--run-dir"],
        "align": ["RUN", "key=value"],
        "sample": ["RUN", "key=value"],
        "judge": ["RUN", "key=value"],
        "export": ["RUN", "FOLDER"],
        "opu": {
            "list": [],
            "check": ["NAME", "key=value"],
            "calibrate": ["NAME", "key=value"],
            "show": ["NAME", "key=value"],
        },
        "project": {"bench": ["key=value"]},
        "plan": ["MODEL", "key=value"],
        "study": {
            **{action: ["key=value", "--dry-run"] for action in ("measure", "scaling", "share")},
            "learning": ["NAME", "key=value", "--run-dir", "--dry-run"],
        },
        "env": [],
    }
