"""Nanoseconds that a random number takes on one core: by numba, by torch's operations, by torch's own generator.

python benchmarks/draws.py
"""

from statistics import median

import torch
from benchmarks.measuring import interleaved

from odfa.draws import Draws, arithmetic
from odfa.store import environment

SHAPES = ((1, 2**16), (64, 10_000), (128, 10), (100_000, 2))
CPU = torch.device("cpu")


def operations(law: str, rows: int, columns: int) -> torch.Tensor:
    """The numbers of `Draws(1)` as they are made where no kernel runs."""
    words_4RQ = arithmetic.words(Draws(1).key, range(rows), columns, CPU)
    return arithmetic.normals(words_4RQ) if law == "normal" else arithmetic.uniforms(words_4RQ, torch.float32)


def main() -> None:
    """Print a row for each shape and law."""
    torch.set_num_threads(1)
    print(environment())
    generator = torch.Generator().manual_seed(0)
    print(f"{'rows x columns':>16} {'law':>8} {'numba':>8} {'operations':>11} {'generator':>10}   ns a number")
    for rows, columns in SHAPES:
        for law, torchs in (("normal", torch.randn), ("uniform", torch.rand)):
            calls = {
                "numba": lambda law=law, n=rows, m=columns: getattr(Draws(1), law)(n, m),
                "operations": lambda law=law, n=rows, m=columns: operations(law, n, m),
                "generator": lambda torchs=torchs, n=rows, m=columns: torchs(n, m, generator=generator),
            }
            took = interleaved(calls, 15, device=CPU)
            numba, by_torch, generated = (median(took[name]) * 1e9 / rows / columns for name in calls)
            print(f"{rows:>6} x {columns:>7} {law:>8} {numba:8.2f} {by_torch:11.2f} {generated:10.2f}")


if __name__ == "__main__":
    main()
