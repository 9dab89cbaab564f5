"""The law on architectures that nobody wrote: programs drawn at random, their data flow kept by the test itself."""

from dataclasses import dataclass, field

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from odfa.engine import DFA
from tests.engine.test_law import Zeros

_WIDTH = 4
_KINDS = ("block", "block", "linear", "norm", "add", "add", "gate", "concat", "scale")


@dataclass(frozen=True)
class Instruction:
    """One line of a program: what kind of step, and which earlier values it reads."""

    kind: str
    first: int
    second: int


@st.composite
def programs(draw: st.DrawFn) -> tuple[Instruction, ...]:
    """Up to ten steps that mostly go on with the newest value and reach back for the other one."""
    lines = []
    for number in range(draw(st.integers(3, 10))):
        newest = draw(st.integers(0, 3)) > 0
        first = number if newest else draw(st.integers(0, number))
        lines.append(Instruction(draw(st.sampled_from(_KINDS)), first, draw(st.integers(0, number))))
    return (Instruction("linear", 0, 0), *(Instruction(i.kind, i.first + 1, i.second + 1) for i in lines))


class Program(nn.Module):
    """Runs a program and hands its newest value to the head."""

    def __init__(self, lines: tuple[Instruction, ...]) -> None:
        super().__init__()
        self.lines = lines
        self.blocks, self.steps = nn.ModuleDict(), nn.ModuleDict()
        for number, line in enumerate(lines):
            if line.kind == "block":
                self.blocks[str(number)] = nn.Sequential(nn.Linear(_WIDTH, _WIDTH), nn.Tanh())
            elif line.kind == "norm":
                self.steps[str(number)] = nn.LayerNorm(_WIDTH)
            elif line.kind in ("linear", "gate", "concat"):
                self.steps[str(number)] = nn.Linear(_WIDTH * (1 + (line.kind == "concat")), _WIDTH)
        self.head = nn.Linear(_WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        values = [x]
        for number, line in enumerate(self.lines):
            a, b = values[line.first], values[line.second]
            if line.kind == "block":
                values.append(self.blocks[str(number)](a))
            elif line.kind in ("linear", "norm"):
                values.append(self.steps[str(number)](a).sin())
            elif line.kind == "add":
                values.append(a + b)
            elif line.kind == "gate":
                values.append(a * self.steps[str(number)](b).sigmoid())
            elif line.kind == "concat":
                values.append(self.steps[str(number)](torch.cat([a, b], dim=-1)))
            else:
                values.append(a * 0.5)
        return self.head(values[-1])


@dataclass
class Flow:
    """What the value of each line depends on, and what depends on it; line 0 is the input."""

    upstream: list[set[int]] = field(default_factory=lambda: [set()])
    feeds: list[set[int]] = field(default_factory=list)
    used: list[bool] = field(default_factory=list)

    @classmethod
    def of(cls, lines: tuple[Instruction, ...]) -> "Flow":
        flow = cls()
        reads = [{line.first} if line.kind in ("block", "linear", "norm", "scale") else {line.first, line.second}
                 for line in lines]  # fmt: skip
        for number, (line, read) in enumerate(zip(lines, reads, strict=True)):
            flow.upstream.append(
                set().union(*(flow.upstream[r] for r in read)) | ({number} if line.kind == "block" else set())
            )
        flow.feeds = [set() for _ in flow.upstream]
        flow.used = [False] * len(lines) + [True]
        for number in reversed(range(len(lines))):
            for r in reads[number]:
                flow.used[r] = flow.used[r] or flow.used[number + 1]
                if flow.used[number + 1]:
                    flow.feeds[r] |= flow.feeds[number + 1] | ({number} if lines[number].kind == "block" else set())
        return flow


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(lines=programs())
def test_without_signals_nothing_between_blocks_learns_in_any_program(lines: tuple[Instruction, ...]) -> None:
    flow = Flow.of(lines)
    used = [str(n) for n, line in enumerate(lines) if line.kind == "block" and flow.used[n + 1]]
    if not used:
        return
    torch.manual_seed(0)
    model = Program(lines).double()
    x = torch.linspace(-1, 1, 5 * _WIDTH, dtype=torch.float64).sin().reshape(5, _WIDTH)
    DFA(model, [f"blocks.{n}" for n in used], projection=Zeros(), error_at="head")
    for _ in range(2):
        model.zero_grad()
        model(x).sin().square().mean().backward()
        for name, p in model.named_parameters():
            kind, number = (*name.split("."), "")[:2]
            inside = kind == "blocks" or (
                kind == "steps" and flow.upstream[int(number) + 1] and flow.feeds[int(number) + 1]
            )
            assert not inside or p.grad is None or p.grad.abs().max() == 0, (name, lines)
            if kind == "head":
                assert p.grad.abs().max() > 0
