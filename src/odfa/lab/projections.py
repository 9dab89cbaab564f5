"""Times of this package's projections and of their peers, measured in one process: medians and ratios.

Shape letters: `N` rows · `D` inputs · `M` outputs.
"""

import os
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor

from odfa.devices import check_name, device_named
from odfa.engine.unseen import Stopwatch
from odfa.keys import torch_generator
from odfa.project import Rademacher
from odfa.session.threads import using_threads
from odfa.settings import Settings, require
from odfa.structured import Structured, kernels_available, triton_runs_on

MEANING = (
    "effective TeraOPS: 2 n m operations a projection, what a dense matrix would need. A structured projection does "
    "far fewer (about 2 log2 N additions an output) and has far fewer random bits (3 N a block of N outputs, not n m)."
)
OPU_TERAOPS = 1500.0
SIZES = {
    "1e3x1e3": (1_000, 1_000, 512),
    "1e3x1e5": (1_000, 100_000, 512),
    "1e4x1e4": (10_000, 10_000, 512),
    "5e4x1e5": (50_000, 100_000, 64),
    "opu": (2**20, 2**21, 16),
}
"""Name → inputs, outputs, batch."""
_PEER_BYTES = 2**31
"""Peers whose matrix is larger than this are left out."""
_PEER_ROWS = 64
"""Slow peers (scikit-learn, the complex simulator) project fewer rows."""
_MOST_REPEATS = 10_000
_CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class ProjectionBenchSettings(Settings):
    """Which sizes are timed, how often, and where."""

    sizes: tuple[str, ...] = tuple(SIZES)
    """Inputs x outputs; opu: 2^20 x 2^21, as many as an OPU has."""
    repeats: int = 7
    """Times that each is timed; the median counts."""
    threads: int | None = None
    """Processor threads; none: as many as torch takes by itself."""
    device: str = "cpu"
    """Where everything is projected: cpu, cuda, cuda:N, mps, xpu or xpu:N; auto: the first accelerator of this machine,
    or else cpu. On an accelerator peers that need the processor are left out."""

    def __post_init__(self) -> None:
        check_name(self.device)
        require(bool(self.sizes), "sizes", f"some of {', '.join(SIZES)}", "none")
        for size in self.sizes:
            require(size in SIZES, "sizes", f"some of {', '.join(SIZES)}", size)
        require(
            0 < self.repeats <= _MOST_REPEATS, "repeats", f"a positive integer up to {_MOST_REPEATS:,}", self.repeats
        )
        most = os.cpu_count() or 1
        fits = self.threads is None or 0 < self.threads <= most
        require(fits, "threads", f"a positive integer up to {most:,}, the processors here", self.threads)


@dataclass(kw_only=True)
class Row:
    """One projection at one size."""

    name: str
    n: int
    m: int
    batch: int
    dtype: str
    threads: int
    """Of the processor."""
    device: str
    per_second: float
    effective_teraops: float
    state_bytes: int
    max_rel_error: float | None
    """Largest error of an output over the rms of outputs, against float64; None for a peer with another matrix."""
    rms_rel_error: float | None
    ratios: dict[str, float] = field(default_factory=dict)
    """Peer → how many times faster this one is."""


def run(settings: ProjectionBenchSettings | None = None, *, note: Callable[[str], None] = lambda _: None) -> list[Row]:
    """Time ours and the peers at each size; every figure is a median of `repeats` with results written in place.

    Raises:
        ConfigError: this machine has no such device.
    """
    settings = settings or ProjectionBenchSettings()
    device = device_named(settings.device, "see odfa env")
    rows: list[Row] = []
    with using_threads(settings.threads):
        for size in settings.sizes:
            n, m, batch = SIZES[size]
            note(f"{size}: {n} -> {m}, batch {batch} …")
            ours = list(_ours((n, m, batch), settings.repeats, device))
            peers = list(_peers((n, m, batch), settings.repeats, device))
            for row in ours:
                row.ratios = {peer.name: row.per_second / peer.per_second for peer in peers}
            rows += ours + peers
    return rows


def _median_s(call: Callable[[], object], repeats: int, device: torch.device = _CPU) -> float:
    """Seconds of a call, until the device is done with it."""
    times = []
    for _ in range(1 + repeats):
        watch = Stopwatch(device)
        call()
        watch.stop()
        times.append(watch.seconds)
    return statistics.median(times[1:])


def _row(
    name: str,
    size: tuple[int, int, int],
    dtype: str,
    seconds: float,
    state: int,
    errors: Any = None,
    device: torch.device = _CPU,
) -> Row:
    n, m, batch = size
    return Row(
        name=name,
        n=n,
        m=m,
        batch=batch,
        dtype=dtype,
        threads=torch.get_num_threads(),
        device=str(device),
        per_second=batch / seconds,
        effective_teraops=2.0 * n * m * batch / seconds / 1e12,
        state_bytes=state,
        max_rel_error=errors and errors[0],
        rms_rel_error=errors and errors[1],
    )


def _errors(p_NM: Tensor, exact_NM: Tensor) -> tuple[float, float]:
    wrong_NM, rms = p_NM.cpu().double() - exact_NM, exact_NM.square().mean().sqrt()
    return float(wrong_NM.abs().max() / rms), float(wrong_NM.square().mean().sqrt() / rms)


def _ours(size: tuple[int, int, int], repeats: int, device: torch.device) -> Iterator[Row]:
    (n, m, batch), generator = size, torch_generator(1)
    t_ND = torch.randint(-1, 2, (batch, n), dtype=torch.int8, generator=generator)
    x_ND = torch.randn((batch, n), generator=generator)
    structured = Structured(0, n)
    state = structured.state_bytes(m)
    exact_NM, exact_ternary_NM = (structured.portable(rows[:1].double(), m) for rows in (x_ND, t_ND))
    out_NM = _room(structured, batch, m, device)
    there_ND = x_ND.to(device)
    seconds = _median_s(lambda: structured.project(there_ND, m, out=out_NM), repeats, device)
    yield _row("hadamard", size, "float32", seconds, state, _errors(out_NM[:1], exact_NM), device)
    if device.type == "cpu" and kernels_available():
        yield from _by_int16(structured, t_ND, size, repeats, exact_ternary_NM)
    if triton_runs_on(device):
        yield from _by_triton(structured, (there_ND, t_ND.to(device)), size, repeats, (exact_NM, exact_ternary_NM))
    if 2 * n * m * batch < 2**38:
        at_once = max(1, 2**19 // m) if device.type == "cpu" else batch
        pair_NM = _room(structured, at_once, 2 * m, device)
        seconds = _median_s(lambda: _modulus_squared(structured, there_ND, pair_NM, out_NM), repeats, device)
        yield _row("hadamard |.|^2", size, "complex64", seconds, structured.state_bytes(2 * m), device=device)
        yield _signs(t_ND, m, device)


def _room(structured: Structured, num_rows: int, num_outputs: int, device: torch.device) -> Tensor:
    if device.type == "cpu":
        return structured.empty(num_rows, num_outputs, torch.float32)
    return torch.empty((num_rows, num_outputs), device=device)


def _by_int16(
    structured: Structured, t_ND: Tensor, size: tuple[int, int, int], repeats: int, exact_NM: Tensor
) -> Iterator[Row]:
    """The processor's int16 arithmetic, results in float32 and in int16."""
    (_, m, batch), state = size, structured.state_bytes(size[1])
    out_NM = structured.empty(batch, m, torch.float32)
    seconds = _median_s(lambda: structured.project_ternary(t_ND, m, out=out_NM), repeats)
    yield _row("hadamard int16", size, "int8 -> float32", seconds, state, _errors(out_NM[:1], exact_NM))
    raw_NM = structured.empty(batch, m, torch.int16)
    seconds = _median_s(lambda: structured.project_ternary(t_ND, m, raw=True, out=raw_NM), repeats)
    _, scale_N = structured.project_ternary(t_ND[:1], m, raw=True, out=raw_NM[:1])
    errors = _errors(raw_NM[:1] * scale_N[:, None], exact_NM)
    yield _row("hadamard int16 out", size, "int8 -> int16", seconds, state, errors)


def _by_triton(
    structured: Structured,
    rows: tuple[Tensor, Tensor],
    size: tuple[int, int, int],
    repeats: int,
    exact: tuple[Tensor, Tensor],
) -> Iterator[Row]:
    """What Triton's kernels read beside float32: bfloat16, and codes as int8."""
    (x_ND, t_ND), (_, m, batch), state = rows, size, structured.state_bytes(size[1])
    for name, in_ND, out_dtype, exact_NM in (
        ("bfloat16", x_ND.bfloat16(), torch.bfloat16, exact[0]),
        ("int8", t_ND, torch.float32, exact[1]),
    ):
        out_NM = torch.empty((batch, m), dtype=out_dtype, device=x_ND.device)
        call = partial(structured.project, in_ND, m, out=out_NM)
        seconds = _median_s(call, repeats, x_ND.device)
        dtype = "int8 -> float32" if name == "int8" else name
        yield _row(f"hadamard {name}", size, dtype, seconds, state, _errors(out_NM[:1], exact_NM), x_ND.device)


def _signs(t_ND: Tensor, m: int, device: torch.device) -> Row:
    """`Rademacher` on codes: all rows where a kernel makes the signs, else some."""
    n = t_ND.shape[1]
    rademacher = Rademacher(0).shaped(n, m)
    some_ND = t_ND[: None if triton_runs_on(device) else 8]
    there_ND = some_ND.to(device)
    seconds = _median_s(lambda: rademacher.project(there_ND), 3, device)
    checked: tuple[float, float] | None = None
    if n * m <= 10**8:
        checked = _errors(rademacher.project(there_ND[:1]), some_ND[:1].double() @ rademacher.matrix().double())
    return _row("rademacher", (n, m, len(some_ND)), "int8 -> float32", seconds, 8, checked, device)


def _modulus_squared(structured: Structured, x_ND: Tensor, pair_nM: Tensor, out_NM: Tensor) -> None:
    """|A x|^2 from two real outputs a mode, as many rows at a time as there is room for; few stay in cache."""
    for start in range(0, len(x_ND), len(pair_nM)):
        part_nD = x_ND[start : start + len(pair_nM)]
        p_nM = structured.project(part_nD, pair_nM.shape[1], out=pair_nM[: len(part_nD)])
        p_nM.square_()
        torch.add(p_nM[:, ::2], p_nM[:, 1::2], out=out_NM[start : start + len(part_nD)])


def _intensity(field_NM: Tensor) -> Tensor:
    return torch.view_as_real(field_NM).square().sum(-1)


def _peers(size: tuple[int, int, int], repeats: int, device: torch.device) -> Iterator[Row]:
    n, m, batch = size
    if device.type == "cpu" and find_spec("fht_cpu"):
        yield _fht(size, repeats)
    if 4 * n * m > _PEER_BYTES:
        return
    x_ND, w_DM = (torch.randn(shape, device=device) for shape in ((batch, n), (n, m)))
    for dtype in (torch.float32, torch.bfloat16):
        x, w, out = x_ND.to(dtype), w_DM.to(dtype), torch.empty((batch, m), dtype=dtype, device=device)
        seconds = _median_s(partial(torch.mm, x, w, out=out), 3, device)
        yield _row(f"torch {str(dtype)[6:]}", size, str(dtype)[6:], seconds, w.nbytes, device=device)
    if device.type != "mps":  # which has no such product
        t = torch.randint(-1, 2, (batch, n), dtype=torch.int8, device=device)
        s = torch.randint(-127, 128, (n, m), dtype=torch.int8, device=device)
        out = torch.empty((batch, m), dtype=torch.int32, device=device)
        seconds = _median_s(lambda: torch._int_mm(t, s, out=out), 3, device)
        yield _row("torch int8", size, "int8 -> int32", seconds, s.nbytes, device=device)
    yield from _slow_peers(x_ND[:_PEER_ROWS], w_DM)


def _slow_peers(x_ND: Tensor, w_DM: Tensor) -> Iterator[Row]:
    (batch, n), m, device = x_ND.shape, w_DM.shape[1], x_ND.device
    if 8 * n * m > _PEER_BYTES:
        return
    if device.type == "cpu":
        yield from _scikit_learn(x_ND, m)
    matrix_DM, x_complex = torch.complex(w_DM, w_DM), x_ND.to(torch.complex64)
    seconds = _median_s(lambda: _intensity(x_complex @ matrix_DM), 3, device)
    yield _row("complex64 simulator", (n, m, batch), "complex64", seconds, matrix_DM.nbytes, device=device)


def _scikit_learn(x_ND: Tensor, m: int) -> Iterator[Row]:
    from sklearn.random_projection import GaussianRandomProjection, SparseRandomProjection

    batch, n = x_ND.shape
    x = x_ND.numpy().astype(np.float64)
    for make in (GaussianRandomProjection, SparseRandomProjection):
        peer = make(n_components=m, random_state=0).fit(np.zeros((1, n)))
        matrix = peer.components_
        state = matrix.nbytes if isinstance(matrix, np.ndarray) else matrix.data.nbytes + matrix.indices.nbytes
        seconds = _median_s(partial(peer.transform, x), 3)
        yield _row(
            f"scikit-learn {make.__name__.removesuffix('RandomProjection')}", (n, m, batch), "float64", seconds, state
        )


def _fht(size: tuple[int, int, int], repeats: int) -> Row:
    """Three transforms of fht-cpu with sign products in NumPy, as many blocks as the outputs take."""
    import fht_cpu

    n, m, batch = size
    batch = min(batch, max(1, 2**24 // max(n, m)))
    points = 1 << (n - 1).bit_length()
    random = np.random.default_rng(0)
    signs = random.choice(np.array([-1, 1], dtype=np.float32), (3, points))
    x = random.standard_normal((batch, n), dtype=np.float32)
    out = np.empty((batch, -(-m // points) * points), dtype=np.float32)

    def project() -> None:
        for start in range(0, out.shape[1], points):
            y = np.zeros((batch, points), dtype=np.float32)
            y[:, :n] = x
            for sign in signs:
                y *= sign
                y = fht_cpu.fht(y, axis=1)
            out[:, start : start + points] = y

    return _row("fht-cpu, signs in NumPy", (n, m, batch), "float32", _median_s(project, repeats), signs.nbytes)
