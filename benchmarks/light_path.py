"""Speed of the twin's whole light path: error vectors per second, and one frame of the full instrument.

    python benchmarks/light_path.py [--vectors 2000] [--rounds 5]

A frame of 1,039,680 mirrors to 2,219,520 pixels, first (the medium is drawn) and again, with the process's peak memory;
then 1,024 inputs to 1,024 outputs through the preset with all its noise (encode, mirrors, medium, camera, demodulate),
median of the rounds after one to warm up.
"""

import argparse
import resource
import statistics
import sys
import time

import torch

from odfa import Anchor, OffAxis, Optical, PhaseSteps, Twin
from odfa.flow import Frames
from odfa.keys import torch_generator


def vectors_per_second(demodulator: object, num_vectors: int, rounds: int) -> float:
    """Median rate of one demodulator."""
    optical = Optical(Twin.preset("opu-2021"), demodulator=demodulator).shaped(1024, 1024)  # type: ignore[arg-type]
    e_ND = torch.randn(num_vectors, 1024, generator=torch_generator(0))
    times_s = []
    for _ in range(rounds + 1):
        start_s = time.perf_counter()
        optical.project(e_ND)
        times_s.append(time.perf_counter() - start_s)
    return num_vectors / statistics.median(times_s[1:])


def full_frame() -> tuple[float, float, float]:
    """Seconds of the first and of the second full frame, and the peak memory in GB."""
    twin, times_s = Twin.preset("opu-2021"), []
    bits_NFD = torch.rand((1, 1, twin.num_mirrors), generator=torch_generator(0)) < 0.5
    frames = Frames(bits_NFD=bits_NFD, gain_NF=torch.ones(1, 1), encoder="bench", arm="blocked")
    for _ in range(2):
        start_s = time.perf_counter()
        twin.run(frames, roi=twin.shape_cam)
        times_s.append(time.perf_counter() - start_s)
    unit = 1e9 if sys.platform == "darwin" else 1e6
    return times_s[0], times_s[1], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--vectors", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    first_s, again_s, peak_gb = full_frame()  # before the others, whose memory would count
    print(f"full frame: first {first_s:.2f} s, again {again_s:.2f} s, peak {peak_gb:.2f} GB")
    for demodulator in (PhaseSteps(4), OffAxis(), Anchor()):
        rate = vectors_per_second(demodulator, arguments.vectors, arguments.rounds)
        print(f"{demodulator!r:28} {rate:8.0f} vectors/s on {torch.get_num_threads()} threads")


if __name__ == "__main__":
    main()
