"""What an accelerator makes of odfa, as ratios of one run: `python benchmarks/accelerator.py [DEVICE]`.

    python benchmarks/accelerator.py [DEVICE] [--small] [--compile] [--only steps,memory,…] [--out FILE]

Steps of GPT-2 (12 x 768, vocabulary 50,304, 8 x 1,024 tokens, bfloat16) by each rule over backpropagation, eager and
compiled, peak memory, projections, full frames of the twin; `--only billion`: 1.3 billion parameters, a few minutes
more. Calls are interleaved; figures are medians over rounds. Without a device the first accelerator is taken. `--small`
takes sizes that a processor does in seconds, and compiles only with `--compile`: its figures say that the code runs.

Whatever fails is named with its reason, the rest goes on, and the exit status is 1. Writes JSON with everything
measured, the machine, versions and commit, to `--out`.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from accelerator_parts import figures, projections, training
from accelerator_parts.found import WHOLE, Found, Setting
from accelerator_parts.light import frames
from measuring import reason, release

from odfa.devices import device_named
from odfa.store import environment
from odfa.store.provenance import computed_on

PARTS: dict[str, Callable[[Setting], Found]] = {
    "steps": training.step_times,
    "memory": training.memory,
    "projections": projections.projections,
    "frames": frames,
    "billion": training.billion,
}
USUAL = ("steps", "memory", "projections", "frames")
"""What runs unless something else is chosen; with small sizes all do."""


def measured(
    device: torch.device, *, small: bool, parts: Sequence[str] | None = None, compiler: bool | str | None = None
) -> dict[str, Any]:
    """Every figure, all that was measured for it, and where.

    Args:
        parts: names of `PARTS`; None: the usual ones.
        compiler: as `DFA(compile=…)`; None: blocks are compiled unless sizes are small.
    """
    setting = Setting(device=device, small=small, compiler=not small if compiler is None else compiler)
    chosen = parts if parts is not None else tuple(PARTS) if small else USUAL
    found, seconds = {}, {}
    for name in (name for name in PARTS if name in chosen):
        start = time.perf_counter()
        found[name] = attempt(name, setting)
        seconds[name] = time.perf_counter() - start
        show(name, found[name], seconds[name])
    table = figures.evaluated(found, asks=not small)
    print(f"\nfigures{_remark(setting)}", *figures.told(table, found), sep="\n")
    return {
        **environment(),
        **computed_on(device),
        "triton": _triton(),
        "small": small,
        "compile": setting.compiler,
        "figures": table,
        "failed": {f"{part}: {name}": why for part, each in found.items() for name, why in each.failed.items()},
        "parts": {name: {**each.as_json(), "took_s": seconds[name]} for name, each in found.items()},
        **(found["projections"].more if "projections" in found else {}),
    }


def attempt(name: str, setting: Setting) -> Found:
    """A part of the benchmark; if it fails as a whole, so it says."""
    try:
        return PARTS[name](setting)
    except Exception as error:
        found = Found(unit="", failed={WHOLE: reason(error)})
    release(setting.device)
    return found


def show(name: str, found: Found, took_s: float) -> None:
    """A part as soon as it is done."""
    print(f"\n{name}, {took_s:.0f} s")
    if name == "projections" and found.more:
        print(*projections.told(found), sep="\n")
    else:
        for key, values in found.measured.items():
            middle = figures.typical(values)
            print(f"    {key:58}{middle:14,.5g} {found.unit}   {len(values)} rounds")
    for key, why in found.failed.items():
        print(f"    {key:58}failed: {why}")
    sys.stdout.flush()


def _remark(setting: Setting) -> str:
    told = [" of small sizes, which say that the code runs and nothing of its speed"] if setting.small else []
    return "".join([*told, *([] if setting.compiler else [", nothing compiled"])])


def _triton() -> str | None:
    try:
        return version("triton")
    except PackageNotFoundError:
        return None


def _parts(words: str) -> list[str]:
    names = words.split(",")
    odd = [name for name in names if name not in PARTS]
    if odd:
        raise argparse.ArgumentTypeError(f"expected some of {','.join(PARTS)}, got {odd[0]!r}")
    return names


def main(words: Sequence[str] | None = None) -> int:
    """Measure, print, write.

    Returns:
        1 if anything failed, else 0.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("device", nargs="?", default="auto")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--compile", action="store_true", help="also with --small")
    parser.add_argument("--only", type=_parts, metavar="PART,…", help=", ".join(PARTS))
    parser.add_argument("--out", default="accelerator.json")
    given = parser.parse_args(words)
    compiler = True if given.compile else None
    result = measured(device_named(given.device), small=given.small, parts=given.only, compiler=compiler)
    Path(given.out).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"written to {given.out}" + (f"; {len(result['failed'])} failed" if result["failed"] else ""))
    return 1 if result["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
