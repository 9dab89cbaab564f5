"""Where one way of projecting overtakes another, on one core: `python benchmarks/crossover.py`.

Dense product over structured projection by number of inputs; gathering over dense product by share of non-zeros.
"""

import statistics
import time
from collections.abc import Callable

import torch

from odfa.sparse import few_nonzeros
from odfa.structured import Structured

_ROWS = 512


def median_s(call: Callable[[], object]) -> float:
    """Median of nine calls."""
    call()
    times = []
    for _ in range(9):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def dense_over_structured(num_inputs: int, num_outputs: int) -> float:
    """Time of the dense product over that of the structured projection."""
    structured, x_ND = Structured(0, num_inputs), torch.randn(_ROWS, num_inputs)
    out_NM, matrix_DM = structured.empty(_ROWS, num_outputs, torch.float32), torch.randn(num_inputs, num_outputs)
    dense_s = median_s(lambda: torch.mm(x_ND, matrix_DM, out=out_NM))
    return dense_s / median_s(lambda: structured.project(x_ND, num_outputs, out=out_NM))


def gather_over_dense(num_inputs: int, every: int) -> float:
    """Time of gathering one entry in `every` over that of the dense product, 1,024 outputs."""
    e_ND, matrix_DM = torch.zeros(_ROWS, num_inputs), torch.randn(num_inputs, 1024)
    for row in e_ND:
        row[torch.randperm(num_inputs)[: num_inputs // every]] = 1.0

    def gather() -> torch.Tensor:
        few = few_nonzeros(e_ND)
        assert few is not None
        return few.times(matrix_DM)

    return median_s(gather) / median_s(lambda: e_ND @ matrix_DM)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for num_outputs in (2048, 8192):
        cells = [f"{n}: {dense_over_structured(n, num_outputs):.2f}" for n in (16, 32, 64, 96, 128, 256)]
        print(f"dense / structured, {num_outputs} outputs, by inputs    {', '.join(cells)}")
    for num_inputs in (256, 1024, 8192):
        cells = [f"1 in {every}: {gather_over_dense(num_inputs, every):.2f}" for every in (256, 128, 64)]
        print(f"gather / dense, {num_inputs} inputs, by non-zeros    {', '.join(cells)}")
