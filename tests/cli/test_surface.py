"""The whole surface of the command line, so that it grows on purpose only."""

import argparse

from odfa.cli.entry import COMMANDS


def _options(command) -> list[str]:
    parser = argparse.ArgumentParser(add_help=False)
    command.configure(parser)
    return [action.option_strings[0] if action.option_strings else action.metavar for action in parser._actions]


def test_commands_and_options():
    assert {command.name: _options(command) for command in COMMANDS} == {
        "recipes": [],
        "train": ["NAME", "key=value", "--run-dir", "--resume", "--dry-run"],
        "compare": ["NAME", "key=value", "--run-dir"],
        "align": ["RUN", "--image"],
        "sample": [
            "RUN",
            "--prompt",
            "--count",
            "--tokens",
            "--temperature",
            "--seed",
            "--image",
            "--classes",
            "--guidance",
            "--sampler",
            "--steps",
            "--sample",
        ],
        "judge": ["RUN", "--by", "--count", "--steps", "--sampler", "--guidance", "--seed"],
        "export": ["RUN", "FOLDER"],
        "device": ["ACTION", "NAME", "key=value"],
        "project": ["ACTION", "key=value"],
        "plan": ["MODEL", "key=value"],
        "study": ["ACTION", "key=value", "--dry-run"],
        "env": [],
    }
