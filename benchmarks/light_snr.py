"""How noisy the light of a run is: its errors through its OPU and through an ideal twin.

    python benchmarks/light_snr.py RUN [--rows 512]

The same ternary codes go both ways, so what differs is shot noise, read noise and the camera's steps. Beside it stands
what the ternary code itself adds: exact projection of the code against exact projection of the error.
"""

import argparse
import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from run_errors import run_errors
from torch import Tensor

from odfa.opu import TwinSettings
from odfa.project import OpticalSettings
from odfa.store.folder import read_config

IDEAL = TwinSettings.presets["ideal"]()


def projected(light: OpticalSettings, e_ND: Tensor, *, seed: int, width: int) -> Tensor:
    """Through this light path of a run of this seed, (N, width)."""
    return light.build(seed).shaped(e_ND.shape[1], width).project(e_ND)


def decibel(signal: Tensor, noise: Tensor) -> float:
    """Mean squares compared."""
    return 10 * math.log10(float(signal.square().mean() / noise.square().mean()))


def main() -> None:
    """Print two ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--rows", type=int, default=512)
    options = parser.parse_args()
    config = read_config(options.run)
    real = config.projection
    if not isinstance(real, OpticalSettings) or not isinstance(real.opu, TwinSettings):
        parser.error(f"{options.run}: expected a run through a twin, got projection={real}")
    ideal = replace(real, opu=replace(real.opu, sensor=IDEAL.sensor, reference=IDEAL.reference, name=IDEAL.name))
    session, e_ND = run_errors(options.run, options.rows)
    width = session.dfa.at_work.projection.num_outputs
    through = partial(projected, seed=config.seed, width=width)
    ideal_NK, real_NK = through(ideal, e_ND), through(real, e_ND)
    exact = e_ND @ through(ideal, torch.eye(e_ND.shape[1]))  # one entry, and one entry spread, have exact codes
    print(f"{len(e_ND)} errors of {e_ND.shape[1]} entries, {real.encoder}, {width} outputs")
    print(f"light:        {decibel(ideal_NK, real_NK - ideal_NK):5.1f} dB  OPU {real.opu.name} against ideal")
    print(f"code:         {decibel(exact, ideal_NK - exact):5.1f} dB  against the exact error")


if __name__ == "__main__":
    main()
