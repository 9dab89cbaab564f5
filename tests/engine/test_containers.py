"""Lists and mappings that a model fills on its way stay the same objects."""

import torch
from torch import Tensor, nn

from odfa.engine import DFA


class Filling(nn.Module):
    """Blocks that write into a list and a dictionary of their caller."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(_Writer() for _ in range(2))
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor, seen: list[int], notes: dict[str, int]) -> Tensor:
        for block in self.blocks:
            x = x + block(x, seen, notes=notes)
        return self.head(x)


class _Writer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor, seen: list[int], notes: dict[str, int]) -> Tensor:
        seen.append(len(x))
        notes["calls"] = notes.get("calls", 0) + 1
        return self.linear(x).tanh()


def test_what_blocks_write_arrives_in_every_pass() -> None:
    model = Filling()
    DFA(model, "blocks.*")
    for _ in range(3):
        seen: list[int] = []
        notes: dict[str, int] = {}
        model(torch.randn(3, 4), seen, notes).square().mean().backward()
        assert seen == [3, 3]
        assert notes == {"calls": 2}
