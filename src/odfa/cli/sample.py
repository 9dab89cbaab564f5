"""`odfa sample`: what a trained model makes."""

from argparse import ArgumentParser, Namespace
from typing import Any

from odfa.cli.command import Command, Outcome, note, place, say
from odfa.cli.help import Help
from odfa.errors import ConfigError


def _configure(parser: ArgumentParser) -> None:
    parser.add_argument("runs", metavar="RUN", type=place, nargs="+", help="run folders of one task")
    parser.add_argument("--prompt", metavar="TEXT", help="text: what was said before (default: nothing)")
    parser.add_argument("--count", metavar="N", type=int, help="text: samples; images: per class (3)")
    parser.add_argument("--tokens", metavar="N", type=int, help="text: most tokens to add (default: the context)")
    parser.add_argument("--temperature", metavar="T", type=float, help="text: 0 is likeliest (0.8)")
    parser.add_argument("--seed", metavar="K", type=int, help="text, images: equal seeds, equal samples (0)")
    parser.add_argument("--image", metavar="FILE", type=place, help="images, maps: draw into this file")
    parser.add_argument("--classes", metavar="A,B", help="images: classes by name or number (default: all)")
    parser.add_argument("--guidance", metavar="W", type=float, help="images: weight of the class (1)")
    parser.add_argument("--sampler", choices=("ddim", "ddpm"), help="images: scheduler (ddim)")
    parser.add_argument("--steps", metavar="N", type=int, help="images: denoising steps (50)")
    parser.add_argument("--sample", metavar="N", type=int, help="climate: number of the test sample (the middle one)")


def _execute(arguments: Namespace) -> Outcome:
    from odfa.lab.destination import check_figure
    from odfa.store.folder import read_config

    draw = {"maps": _maps, "images": _images}.get(read_config(arguments.runs[0]).task.samples)
    if draw is not None and arguments.image is None:
        raise ConfigError("this run draws: expected --image FILE, a file to draw into")
    if draw is None and arguments.image is not None:
        raise ConfigError("--image: this run draws nothing; leave it out")
    if draw is not None:
        check_figure(arguments.image, "--image")
    _fill(arguments, _DEFAULTS[draw])
    note(f"sampling from {', '.join(map(str, arguments.runs))} …")
    return (draw or _texts)(arguments)


def _fill(arguments: Namespace, defaults: dict[str, Any]) -> None:
    """Set what was not given; refuse what was given and these runs have no use for."""
    for name in {key for kind in _DEFAULTS.values() for key in kind}:
        given = getattr(arguments, name)
        if given is not None and name not in defaults:
            has = ", ".join(f"--{key}" for key in defaults)
            raise ConfigError(f"--{name}: these runs have no use for it, they take {has}; leave it out")
        setattr(arguments, name, defaults.get(name) if given is None else given)


def _images(arguments: Namespace) -> Outcome:
    from odfa.lab.images import class_numbers, draw_grid

    result = draw_grid(
        arguments.runs,
        arguments.image,
        classes=range(10) if arguments.classes is None else class_numbers(arguments.classes.split(",")),
        count=arguments.count,
        sampler=arguments.sampler,
        steps=arguments.steps,
        guidance=arguments.guidance,
        seed=arguments.seed,
    )
    return Outcome(json=result, show=lambda: say(f"figure: {result['figure']}"))


def _maps(arguments: Namespace) -> Outcome:
    from odfa.lab.maps import project

    result = project(arguments.runs, arguments.image, sample=arguments.sample)
    return Outcome(json=result, show=lambda: say(_lines(result), indent=4))


def _lines(result: dict[str, Any]) -> str:
    errors = [f"  {result['metric']} {run['rmse']:.3f}  {run['arm']}: {run['run']}" for run in result["runs"]]
    return "\n".join([result["sample"], *errors, f"figure: {result['figure']}"])


def _texts(arguments: Namespace) -> Outcome:
    from odfa.lab.text_samples import sample

    results = [
        sample(
            run,
            arguments.prompt,
            count=arguments.count,
            tokens=arguments.tokens,
            temperature=arguments.temperature,
            seed=arguments.seed,
        )
        for run in arguments.runs
    ]
    return Outcome(json={"runs": results}, show=lambda: _show(results))


def _show(results: list[dict[str, Any]]) -> None:
    for result in results:
        print(f"--- {result['recipe']}, arm {result['arm']}: {result['run']}\n")
        print("\n\n".join(map(readable, result["samples"])), end="\n\n")


def readable(text: str) -> str:
    """Speaker tokens as the beginnings of lines."""
    return text.replace("<|a|>", "\nA: ").replace("<|b|>", "\nB: ").strip()


_DEFAULTS: dict[Any, dict[str, Any]] = {
    None: {"prompt": "", "count": 3, "tokens": None, "temperature": 0.8, "seed": 0},
    _images: {"count": 3, "seed": 0, "classes": None, "guidance": 1.0, "sampler": "ddim", "steps": 50},
    _maps: {"sample": None},
}
"""What writes, draws or projects → its options with their defaults; None writes."""

SAMPLE = Command(
    name="sample",
    help=Help(
        summary="what a trained model writes, draws or projects",
        example='odfa sample runs/dialogue_tiny-odfa-seed0 --prompt "Hi, how are you?"',
    ),
    configure=_configure,
    execute=_execute,
)
