"""`odfa sample`: what a trained model makes."""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from odfa.cli.command import Command, Outcome


def _configure(parser: ArgumentParser) -> None:
    parser.add_argument("runs", metavar="RUN", type=Path, nargs="+", help="run folders of language models")
    parser.add_argument("--prompt", metavar="TEXT", default="", help="what was said before (default: nothing)")
    parser.add_argument("--count", metavar="N", type=int, default=3, help="number of samples (default: 3)")
    parser.add_argument("--tokens", metavar="N", type=int, help="most tokens to add (default: what the context holds)")
    parser.add_argument("--temperature", metavar="T", type=float, default=0.8, help="0: likeliest (default: 0.8)")
    parser.add_argument("--seed", metavar="K", type=int, default=0, help="equal seeds, equal samples (default: 0)")


def _execute(arguments: Namespace) -> Outcome:
    from odfa.report.sample import sample

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
        print(f"--- {result['recipe']}, method {result['method']}: {result['run']}\n")
        print("\n\n".join(map(readable, result["samples"])), end="\n\n")


def readable(text: str) -> str:
    """Speaker tokens as the beginnings of lines."""
    return text.replace("<|a|>", "\nA: ").replace("<|b|>", "\nB: ").strip()


SAMPLE = Command(name="sample", summary="what a trained model writes", configure=_configure, execute=_execute)
