"""How noisy the light of a run is: the errors of a language model through its OPU and through an ideal twin.

    python benchmarks/light_snr.py RUN [--rows 512]

The same ternary codes go both ways, so what differs is shot noise, read noise and the camera's steps. Beside it stands
what the ternary code itself adds: exact projection of the code against exact projection of the error.
"""

import argparse
import math
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from odfa import train
from odfa.tasks.language.text import MASKED, TextData
from odfa.train import RunConfig
from odfa.train.build import build_optical


def errors(run: train.LoadedRun, rows: int) -> Tensor:
    """Softmax less target of the first validation tokens, e_ND."""
    assert isinstance(run.config.data, TextData)
    part = run.config.task.load(run.config.data).validation.head(-(-rows // run.config.data.context))
    with torch.no_grad():
        p_ND = run.model(input_ids=part.x_ND).logits.flatten(0, 1).float().softmax(1)
    target_N = part.y_N.flatten()
    known_N = target_N != MASKED
    return (p_ND - one_hot(target_N.clamp(min=0), p_ND.shape[1]))[known_N][:rows]


def projected(config: RunConfig, opu: str, e_ND: Tensor, width: int) -> Tensor:
    """Through this OPU, with the run's medium, demodulator and quantiser."""
    return (
        build_optical(replace(config, feedback=replace(config.feedback, opu=opu)))
        .shaped(e_ND.shape[1], width)
        .project(e_ND)
    )


def decibel(signal: Tensor, noise: Tensor) -> float:
    """Mean squares compared."""
    return 10 * math.log10(float(signal.square().mean() / noise.square().mean()))


def main() -> None:
    """Print two ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--rows", type=int, default=512)
    options = parser.parse_args()
    run = train.load_run(options.run)
    e_ND, width = errors(run, options.rows), run.config.network.widths[-1]
    ideal, real = (projected(run.config, opu, e_ND, width) for opu in ("ideal", run.config.feedback.opu))
    one_by_one = projected(
        replace(run.config, feedback=replace(run.config.feedback, quantiser="sampled", repeats=1)),
        "ideal",
        torch.eye(e_ND.shape[1]),
        width,
    )
    exact = e_ND @ one_by_one
    print(f"{len(e_ND)} errors of {e_ND.shape[1]} entries, {run.config.feedback.quantiser}, "
          f"repeats={run.config.feedback.repeats}, {width} outputs")  # fmt: skip
    print(f"light:        {decibel(ideal, real - ideal):5.1f} dB  OPU {run.config.feedback.opu} against ideal")
    print(f"ternary code: {decibel(exact, ideal - exact):5.1f} dB  against the exact error")


if __name__ == "__main__":
    main()
