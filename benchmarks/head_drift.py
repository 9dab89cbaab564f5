"""How far the aligned head of a run has moved from its start, and what of that its electronic part can follow.

    python benchmarks/head_drift.py RUN [--rows 2048]

For errors of validation samples, the signal a B e + (electronic part) against W^T e: root mean square of the difference
over that of W^T e, by the rank of the correction and the number of drawn entries; in brackets the same of the mean over
all errors, which no averaging takes away.
"""

import argparse
from pathlib import Path

from run_errors import run_errors

from odfa.engine.rules import AlignedHead
from odfa.engine.rules.head import Head
from odfa.feedback import LowRank, of_drawn
from odfa.keys import torch_generator
from odfa.store.folder import read_config

RANKS, DRAWS = (0, 8, 16, 32, 64), (0, 1, 2, 4, 8)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--rows", type=int, default=2048)
    options = parser.parse_args()
    if not isinstance(read_config(options.run).rule, AlignedHead):
        parser.error(f"{options.run}: expected a run by the aligned head")
    session, e_ND = run_errors(options.run, options.rows)
    head: Head = session.dfa.at_work.head
    exact_NK = e_ND @ head.matrix_VK
    moved = head.drift_VK.norm() / head.start_VK.norm()
    print(f"{len(e_ND)} errors of {e_ND.shape[1]} entries; the head has moved by {moved:.2f} of its start's length")
    print("rank  " + "".join(f"{f'{draws} drawn':>16}" for draws in DRAWS))
    for rank in RANKS:
        low_rank = LowRank(rank)
        low_rank.fit(head.drift_VK, 0)
        cells = []
        for draws in DRAWS:
            q_NK = e_ND @ head.start_VK
            rest = of_drawn(e_ND, draws, head.drift_VK, low_rank, torch_generator(draws)) if draws else None
            q_NK = sum((part for part in (low_rank(e_ND), rest) if part is not None), q_NK)
            off = (q_NK - exact_NK).norm() / exact_NK.norm()
            mean_off = (q_NK - exact_NK).mean(0).norm() / exact_NK.mean(0).norm()
            cells.append(f"{off:.1%} ({mean_off:.0%})")
        print(f"{rank:4d}  " + "".join(f"{cell:>16}" for cell in cells))


if __name__ == "__main__":
    main()
