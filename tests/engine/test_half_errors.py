"""Errors in bfloat16 stay so where the device multiplies them, sums in float32, and are rounded once.

No processor of these tests is such a device, so the decision is pretended: its products of bfloat16
are sums in float32, too.
"""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from odfa import (
    DFA,
    AlignedHead,
    ElectronicOnly,
    ExactHead,
    Gaussian,
    Hadamard,
    Optical,
    Rademacher,
    RandomFeedback,
    Ternary,
    Twin,
    devices,
)
from odfa.demodulate import PhaseSteps
from odfa.engine import Drtp, KolenPollack, LinearCrossEntropy, LowRankHead
from odfa.engine.rules import AbstractRule
from odfa.error import error_rows
from odfa.feedback import projected
from odfa.project import Encoded

U = 2.0**-8
"""bfloat16 has 8 significant bits: rounding to nearest changes a number by this share of it at most, by half of it in
the root mean square."""
CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The processor is a device that multiplies bfloat16."""
    monkeypatch.setattr(devices, "multiplies", lambda dtype, _device: dtype == torch.bfloat16)
    return


@pytest.mark.parametrize("able", [True, False])
def test_the_decision_is_the_device_s(monkeypatch: pytest.MonkeyPatch, able: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: able or including_emulation)
    assert devices.multiplies(torch.bfloat16, CUDA) == able
    assert Gaussian().reads_half(torch.bfloat16, CUDA) == able
    for dtype in (torch.float16, torch.float32, torch.float64):
        assert not devices.multiplies(dtype, CUDA)
    for device in (CPU, torch.device("mps", 0), torch.device("meta")):
        assert not devices.multiplies(torch.bfloat16, device)


@pytest.mark.parametrize("kind", ["Hadamard", "Rademacher"])
def test_kernels_of_triton_read_halves_as_they_are(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    made = {"Hadamard": Hadamard, "Rademacher": Rademacher}[kind]()
    assert not made.reads_half(torch.bfloat16, CPU)
    monkeypatch.setattr(f"odfa.project.{kind.lower()}.triton_runs_on", lambda _device: True)
    assert made.reads_half(torch.bfloat16, CUDA)


def test_rows_stay_in_bfloat16_there_and_float16_never_does(pretended: None) -> None:
    for dtype, expected in (
        (torch.bfloat16, torch.bfloat16),
        (torch.float16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ):
        assert error_rows(torch.ones(2, 3, 4, dtype=dtype), "x").e_ND.dtype == expected


def test_rows_are_float32_elsewhere() -> None:
    for dtype in (torch.bfloat16, torch.float16):
        assert error_rows(torch.ones(2, 3, dtype=dtype), "x").e_ND.dtype == torch.float32


@pytest.mark.parametrize(
    ("make", "given"),
    [
        (Gaussian, torch.bfloat16),
        (Hadamard, torch.float32),  # without Triton
        (lambda: Encoded(Gaussian(), Ternary()), torch.float32),
        (lambda: Optical(Twin(), demodulator=PhaseSteps(), encoder=Ternary()), torch.float32),
    ],
    ids=["gaussian", "hadamard", "encoded", "twin"],
)
def test_who_cannot_read_halves_gets_float32_rows(
    pretended: None, monkeypatch: pytest.MonkeyPatch, make: Any, given: torch.dtype
) -> None:
    projection, found = make().shaped(40, 6), list[torch.dtype]()
    usual = projection._project
    monkeypatch.setattr(projection, "_project", lambda e_ND: (found.append(e_ND.dtype), usual(e_ND))[1])
    e_ND = torch.randn(5, 40, generator=torch.Generator().manual_seed(0)).bfloat16()
    assert projected(projection, e_ND).dtype == torch.float32
    assert found == [given]


def test_halves_that_a_product_would_overflow_with_are_scaled(pretended: None) -> None:
    """bfloat16 has float32's range: rows of huge values are made smaller, as in float32."""
    gaussian = Gaussian().shaped(64, 8)
    e_ND = torch.full((2, 64), 2.0**124).bfloat16()
    e_ND[1] = 1.0
    p_NM = gaussian.project(e_ND)
    assert p_NM.isfinite().all()
    bound_NM = 2.02 * U * (e_ND.double().abs() @ gaussian.matrix().double().abs())
    assert ((p_NM.double() - e_ND.double() @ gaussian.matrix().double()).abs() <= bound_NM).all()


def _net() -> nn.Module:
    torch.manual_seed(0)
    blocks = [nn.Sequential(nn.Linear(24, 24), nn.Tanh()) for _ in range(3)]
    return nn.Sequential(*blocks, nn.Linear(24, 50))


def _batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(32, 24, generator=generator), torch.randint(0, 50, (32,), generator=generator)


def _signals(rule: AbstractRule, *, cast: bool = True) -> tuple[DFA, list[Tensor], list[list[Tensor]]]:
    """Errors and signals of two passes under autocast, between which the head moves."""
    model = _net()
    dfa = DFA(model, rule=rule, projection=Gaussian(seed=3))
    errors, signals = list[Tensor](), list[list[Tensor]]()
    usual = dfa.at_work.signals

    def noted(error: Any, calls: Any) -> list[Tensor]:
        errors.append(error.e_ND)
        signals.append(usual(error, calls))
        return signals[-1]

    dfa.at_work.signals = noted  # type: ignore[method-assign]
    x, y = _batch()
    for _ in range(2):
        dfa.targets(y)
        with torch.autocast("cpu", torch.bfloat16, enabled=cast):
            loss = cross_entropy(model(x), y)
        loss.backward()
        with torch.no_grad():
            head = model[3].weight  # type: ignore[index]
            head += 0.05 * torch.randn(head.shape, generator=torch.Generator().manual_seed(2))
    return dfa, errors, signals


def _sizes(dfa: DFA, rule: AbstractRule, head_VK: Tensor) -> Tensor:
    """Of what the error is multiplied by, number by number: no entry of the signal is larger than |e| times it."""
    work: Any = dfa.at_work
    if isinstance(rule, ExactHead):
        return head_VK.abs()
    if isinstance(rule, RandomFeedback):
        return work.projection.matrix().abs() / 24**0.5
    size_VK = torch.zeros_like(head_VK) if isinstance(rule, ElectronicOnly) else work.head.start_VK.abs()
    if work.low_rank.u_Dr is not None:
        size_VK = size_VK + work.low_rank.u_Dr.abs() @ work.low_rank.v_rK.abs()
    return size_VK


RULES = [
    ExactHead(),
    RandomFeedback(shared=True),
    RandomFeedback(),
    AlignedHead(rank=4, every=1),
    AlignedHead(rank=0),
    ElectronicOnly(rank=4, every=1),
]


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_signals_are_those_of_float32_rows_to_two_roundings(
    monkeypatch: pytest.MonkeyPatch, rule: AbstractRule
) -> None:
    """The matrix is rounded, and so is what is written: 2 u |e| |M| at most, entry by entry."""
    _, full_errors, full = _signals(rule)
    with monkeypatch.context() as patch:
        patch.setattr(devices, "multiplies", lambda dtype, _device: dtype == torch.bfloat16)
        dfa, errors, half = _signals(rule)
    assert [e.dtype for e in errors] == [torch.bfloat16] * 2
    assert [e.dtype for e in full_errors] == [torch.float32] * 2
    assert torch.equal(errors[0].float(), full_errors[0])  # the pass is the same: only the products differ
    assert torch.equal(errors[1].float(), full_errors[1])
    head_VK = dfa.model[3].weight.detach()  # type: ignore[index]
    head_VK = head_VK - 0.05 * torch.randn(head_VK.shape, generator=torch.Generator().manual_seed(2))
    size_VK = _sizes(dfa, rule, head_VK)
    bound = 2.02 * U * (full_errors[1].abs() @ size_VK) + 1e-9
    differ = False
    for start, (ours, theirs) in enumerate(zip(half[1], full[1], strict=True)):
        assert ours.dtype == torch.float32
        part = bound[:, 24 * start :][:, :24] if bound.shape[1] > 24 else bound
        assert ((ours - theirs).abs() <= part).all()
        differ = differ or not torch.equal(ours, theirs)
    assert differ


@pytest.mark.parametrize("rule", [Drtp(), KolenPollack(), LowRankHead(rank=3)], ids=repr)
def test_rules_that_learn_from_more_than_a_product_get_float32(pretended: None, rule: AbstractRule) -> None:
    _, errors, signals = _signals(rule)
    expected = torch.bfloat16 if isinstance(rule, LowRankHead) else torch.float32
    assert {e.dtype for e in errors} == {expected}
    assert {s.dtype for pass_ in signals for s in pass_} == {torch.float32}


def test_drawn_entries_are_those_of_float32_rows(pretended: None) -> None:
    _, errors, signals = _signals(AlignedHead(rank=2, drawn=3, every=1))
    assert errors[1].dtype == torch.bfloat16
    assert all(s.isfinite().all() for s in signals[1])


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_gradients_under_autocast_are_those_of_float32(pretended: None, rule: AbstractRule) -> None:
    """A gradient of these nets passes at most 8 products: three blocks and the head forward, the head's and the
    signal's and the block's own backward, and the loss's softmax. Each rounds two inputs and a result, by u / 2 in the
    root mean square, which add up as squares: sqrt(8 · 3) u / 2 = 2.5 u of the norm.
    """
    found = []
    for cast in (False, True):
        dfa, _, _ = _signals(rule, cast=cast)
        found.append({name: p.grad for name, p in dfa.model.named_parameters() if p.ndim == 2})
    for name, exact in found[0].items():
        assert (found[1][name] - exact).norm() <= 24**0.5 * U / 2 * exact.norm(), name


@pytest.mark.parametrize("rule", [*RULES, AlignedHead(rank=2, drawn=3, every=1)], ids=repr)
def test_a_head_in_rows_has_the_signals_of_a_whole_one(pretended: None, rule: AbstractRule) -> None:
    """The error of a head in rows is made from logits that are not rounded: it differs by that, at most 2 u of it."""
    found = []
    for rows in (None, 7):
        (x, y), net = _batch(), _net()
        model = nn.Sequential(*list(net)[:3], nn.LayerNorm(24), net[3])  # type: ignore[arg-type, index]
        dfa = DFA(model, ["0", "1", "2"], rule=rule, projection=Gaussian(seed=3))
        given: list[torch.dtype] = []
        usual = dfa.at_work.signals

        def noted(error: Any, calls: Any, given: list[torch.dtype] = given, usual: Any = usual) -> list[Tensor]:
            given.extend(e_nD.dtype for e_nD in error.chunks())
            return usual(error, calls)

        dfa.at_work.signals = noted  # type: ignore[method-assign]
        whole = None if rows is None else LinearCrossEntropy(model, model[4], rows=rows)
        with torch.autocast("cpu", torch.bfloat16):
            loss = cross_entropy(model(x), y) if whole is None else whole(y, x)
        dfa.backward(loss)
        assert set(given) == {torch.bfloat16}
        found.append({name: p.grad for name, p in model.named_parameters() if p.ndim == 2})
    for name, one in found[0].items():
        assert (found[1][name] - one).norm() <= 24**0.5 * U / 2 * one.norm(), name
