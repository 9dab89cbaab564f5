"""`odfa train`: train a recipe in a run folder, or resume the run of a folder."""

from argparse import ArgumentParser, Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

from odfa.cli.command import Command, Outcome, note, place, print_table
from odfa.cli.help import Help, add_settings, of_recipe
from odfa.cli.quantities import label, quantity, short
from odfa.errors import ConfigError
from odfa.session import RunConfig
from odfa.settings import digest


def _configure(parser: ArgumentParser) -> None:
    parser.add_argument("recipe", metavar="NAME", nargs="?", help="a recipe (see odfa recipes)")
    add_settings(parser)
    parser.add_argument(
        "--run-dir",
        metavar="DIR",
        type=place,
        help="folder of the run (default: runs/NAME-ARM-seedK…)",
    )
    parser.add_argument("--resume", metavar="DIR", type=place, help="go on with the run in this folder")
    parser.add_argument(
        "--dry-run", action="store_true", help="print parameters, memory, frames, light time and energy only"
    )


def _execute(arguments: Namespace) -> Outcome:
    result = _run(arguments)
    return Outcome(json=result, show=lambda: _show(result))


def _run(arguments: Namespace) -> dict[str, Any]:
    from odfa import train
    from odfa.devices import device_named
    from odfa.lab.destination import check_folder
    from odfa.session import dry_run

    if arguments.resume is not None:
        _refuse_besides_resume(arguments)
        return {**train.resume(arguments.resume, note=note).to_json(), "run_dir": str(arguments.resume)}
    arm, config = _config(arguments)
    if arguments.dry_run:
        note(f"counting what {config.recipe} takes …")
        return dry_run(config)
    run_dir = arguments.run_dir or default_run_dir(arguments.recipe, arm, config)
    if not run_dir.is_file():  # train.run refuses a file by a message of its own
        check_folder(run_dir, "--run-dir")
    device_named(config.device)  # refused in one line, before anything is told
    note(f"{config.recipe}: reading data, building the network …")
    return {**train.run(config, run_dir, note=note).to_json(), "run_dir": str(run_dir)}


def default_run_dir(recipe: str, arm: str, config: RunConfig) -> Path:
    """runs/<recipe>-<arm>-seed<k>, and where other settings differ from the arm's, eight digits of their digest."""
    from odfa import recipes

    usual = replace(recipes.usual(recipe, arm), seed=config.seed)
    mark = "" if usual == config else f"-{digest(config)[:8]}"
    return Path("runs") / f"{config.recipe}-{arm.replace(':', '-')}-seed{config.seed}{mark}"


def _config(arguments: Namespace) -> tuple[str, RunConfig]:
    from odfa import recipes

    if arguments.recipe is None:
        raise ConfigError(f"expected a recipe ({', '.join(recipes.listed())}) or --resume DIR, got neither")
    return recipes.worded(arguments.recipe, arguments.settings)


def _refuse_besides_resume(arguments: Namespace) -> None:
    besides = [word for word in (arguments.recipe, *arguments.settings) if word is not None]
    if besides or arguments.run_dir or arguments.dry_run:
        strange = besides[0] if besides else "--run-dir" if arguments.run_dir else "--dry-run"
        raise ConfigError(
            f"--resume goes on with the folder's own recipe and settings, got {strange!r} besides; leave it out"
        )


def _show(result: dict[str, Any]) -> None:
    print_table(("", "value"), [(label(key), _cell(key, value)) for key, value in result.items()])


def _cell(key: str, value: Any) -> str:
    if key == "metric":
        return f"{value['name']} {short(value['value'])} ({value['better']} is better)"
    if key == "light" and not value["frames"]:
        return "none"
    if isinstance(value, dict):
        unit = "_bytes" if key.endswith("bytes") else ""
        return " · ".join(f"{label(name)} {quantity(name + unit, inner)}" for name, inner in value.items())
    return quantity(key, value)


TRAIN = Command(
    name="train",
    help=Help(
        summary="train a recipe, or resume a run",
        example="odfa train digits arm=odfa seed=1 --run-dir runs/first",
        more=of_recipe,
    ),
    configure=_configure,
    execute=_execute,
)
