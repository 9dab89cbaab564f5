"""`odfa recipes`: the list of recipes, with their data, size and training time."""

from argparse import ArgumentParser, Namespace
from typing import Any

from odfa.cli.command import Command, Outcome, print_table
from odfa.cli.help import Help


def _configure(parser: ArgumentParser) -> None:
    del parser  # this command takes no arguments


def _execute(_arguments: Namespace) -> Outcome:
    from odfa import recipes

    result = {
        "recipes": [
            {
                "name": name,
                "summary": (recipe.make.__doc__ or "").partition("\n")[0],
                "source": recipe.source,
                "size": recipe.size,
                "expected_time": recipe.expected_time,
            }
            for name, recipe in recipes.listed().items()
        ]
        + [
            {"name": name, "summary": "", "source": source, "size": "", "expected_time": ""}
            for name, source in recipes.registered().items()
        ]
    }
    return Outcome(json=result, show=lambda: _show(result))


def _show(result: dict[str, Any]) -> None:
    columns = ("name", "size", "expected_time", "source")
    rows = [[recipe[column] for column in columns] for recipe in result["recipes"]]
    print_table(("recipe", "size", "training time of one run", "data"), rows)


RECIPES = Command(
    name="recipes",
    help=Help(
        summary="list the recipes, their data, size and expected time",
        example="odfa recipes",
    ),
    configure=_configure,
    execute=_execute,
)
