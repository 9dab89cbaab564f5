"""`odfa sample`: what a trained model makes."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from odfa.cli.command import Command, Outcome


def _configure(parser: ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", type=Path, help="a run folder of a language model")
    parser.add_argument("--prompt", metavar="TEXT", default="", help="what was said before (default: nothing)")
    parser.add_argument("--count", metavar="N", type=int, default=3, help="number of samples (default: 3)")
    parser.add_argument("--tokens", metavar="N", type=int, help="most tokens to add (default: what the context holds)")
    parser.add_argument("--temperature", metavar="T", type=float, default=0.8, help="0: likeliest (default: 0.8)")
    parser.add_argument("--seed", metavar="K", type=int, default=0, help="equal seeds, equal samples (default: 0)")


def _execute(arguments: Namespace) -> Outcome:
    from odfa.report.sample import sample

    result = sample(
        arguments.run,
        arguments.prompt,
        count=arguments.count,
        tokens=arguments.tokens,
        temperature=arguments.temperature,
        seed=arguments.seed,
    )
    return Outcome(json=result, show=lambda: print("\n\n".join(map(readable, result["samples"]))))


def readable(text: str) -> str:
    """Speaker tokens as the beginnings of lines."""
    return text.replace("<|a|>", "\nA: ").replace("<|b|>", "\nB: ").strip()


SAMPLE = Command(name="sample", summary="what a trained model writes", configure=_configure, execute=_execute)
