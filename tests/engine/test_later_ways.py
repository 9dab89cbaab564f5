"""Ways around blocks that come later, by another door, or in other company: cut, refused, or named."""

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from odfa.engine import DFA
from odfa.errors import MatchError
from tests.engine.test_law import Zeros

W = 8
X = torch.linspace(-1, 1, 5 * W).sin().reshape(5, W)


class Net(nn.Module):
    """An embedding, three blocks, a head; `join` says how stream and block meet, `end` what is returned."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.short, self.aux = nn.Linear(W, W), nn.Linear(W, 3), nn.Linear(W, 3)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(W, W), nn.Tanh()) for _ in range(3))
        self.head = nn.Linear(W, 3)
        self.join: Callable[[int, Tensor, Tensor], Tensor] = lambda i, x, h: h
        self.end: Callable[[Tensor, Tensor], object] = lambda x, x0: self.head(x)
        self.order = (0, 1, 2)

    def forward(self, x: Tensor) -> object:
        x0 = x = self.embed(x)
        for i in self.order:
            x = self.join(i, x, self.blocks[i](x))
        return self.end(x, x0)


def step(model: nn.Module) -> None:
    model.zero_grad()
    output = model(X)
    tensors = output if isinstance(output, tuple) else (output,)
    sum(t.sin().square().mean() for t in tensors).backward()


def local(model: nn.Module, *names: str) -> float:
    """Largest gradient of embedding and blocks, which must be zero without signals."""
    chosen = [p for n, p in model.named_parameters() if n.startswith(names or ("embed", "blocks"))]
    return max((p.grad.abs().max().item() for p in chosen if p.grad is not None), default=0.0)


def add(_i: int, x: Tensor, h: Tensor) -> Tensor:
    return x + h


def test_a_residual_that_is_switched_on_later_is_refused_once_and_then_cut() -> None:
    model = Net()
    DFA(model, "blocks.*", projection=Zeros(), error_at="head")
    step(model)
    model.join = add
    with pytest.raises(MatchError, match="run this step again"):
        step(model)
    for _ in range(3):
        step(model)  # the advice
        assert local(model) == 0


def test_tasks_in_turn_that_run_other_blocks() -> None:
    model = Net()
    DFA(model, "blocks.*", projection=Zeros(), error_at="head")
    refused = 0
    for turn in range(8):
        model.order, model.join = ((0, 1), Net().join) if turn % 2 == 0 else ((0, 2), add)
        try:
            step(model)
        except MatchError:
            refused += 1
        else:
            assert local(model) == 0, turn
    assert refused <= 1


def test_other_frozen_parameters_of_the_same_number_are_noticed() -> None:
    model = Net()
    model.join = add
    model.embed.requires_grad_(False)
    DFA(model, "blocks.*", projection=Zeros(), error_at="head")
    step(model)
    model.embed.requires_grad_(True)
    model.short.requires_grad_(False)
    step(model)
    assert local(model) == 0


@dataclass
class State:
    """What blocks hand on behind their caller's back."""

    values: list[Tensor] = field(default_factory=list)


class Sharing(nn.Module):
    """Reads what another block left in an object."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(W, W), nn.Linear(W, W)

    def forward(self, x: Tensor, state: State) -> Tensor:
        state.values.append(self.a(x))
        return self.b(x + state.values[0]).tanh()


class Carrying(nn.Module):
    """Blocks with a state that its caller never returns."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks, self.head = nn.ModuleList(Sharing() for _ in range(3)), nn.Linear(W, 3)

    def forward(self, x: Tensor) -> Tensor:
        state = State()
        for block in self.blocks:
            x = block(x, state)
        return self.head(x)


def test_state_that_crosses_from_block_to_block_is_refused() -> None:
    model = Carrying()
    DFA(model, "blocks.*")
    with pytest.raises(MatchError, match=r"block blocks\.0 reaches the error by another way than being returned"):
        model(X)


def test_a_way_around_that_joins_behind_the_tap_is_cut_also_as_advised() -> None:
    for taps in ("head", ["short", "head"]):
        model = Net()
        model.end = lambda x, x0, m=model: m.head(x) + m.short(x0)
        DFA(model, "blocks.*", projection=Zeros(), error_at=taps, unread="allow")
        for _ in range(2):
            step(model)
            assert local(model) == 0, taps


def test_an_unread_head_that_reads_stream_and_embedding_is_named_and_cut() -> None:
    model = Net()
    model.end = lambda x, x0: (model.head(x), model.aux(x + x0))
    dfa = DFA(model, "blocks.*", projection=Zeros(), error_at="head", unread="allow")
    for _ in range(2):
        step(model)
        assert local(model) == 0
    assert dfa.members is not None
    assert {"aux.weight", "aux.bias"} <= dfa.members.behind | dfa.members.ahead


@pytest.mark.parametrize("kind", ["mask first", "keyword", "position", "gain"])
def test_the_stream_is_found_behind_masks_keywords_and_positions(kind: str) -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.l = nn.Linear(W, W)

        def forward(self, mask: Tensor, x: Tensor) -> Tensor:
            return (self.l(x) * mask).tanh()

    class Long(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Linear(W, W), nn.Linear(W, 3)
            self.blocks = nn.ModuleList(Block() for _ in range(2))
            self.table = nn.Parameter(torch.linspace(-1, 1, 7 * W).reshape(7, W))
            self.gain = nn.Parameter(torch.zeros(W))

        def forward(self, x: Tensor) -> Tensor:
            x0 = x = self.embed(x)
            if kind == "position":
                x = x0 + self.table[: len(x0)]
            if kind == "gain":
                x = x0 * (1 + self.gain)
            for block in self.blocks:
                mask = torch.ones(len(x), 1)
                x = block(mask=mask, x=x) if kind == "keyword" else block(mask, x)
            return self.head(x + x0)

    model = Long()
    DFA(model, "blocks.*", projection=Zeros(), error_at="head")
    for _ in range(2):
        step(model)
        assert local(model) == 0


def test_a_block_whose_first_output_does_not_learn() -> None:
    class Points(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.l = nn.Linear(W, W)

        def forward(self, places: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
            return places, self.l(x + places).tanh()

    class Cloud(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks, self.head = nn.ModuleList(Points() for _ in range(2)), nn.Linear(W, 3)

        def forward(self, x: Tensor) -> Tensor:
            places = torch.ones(len(x), 1)
            for block in self.blocks:
                places, x = block(places, x)
            return self.head(x)

    model = Cloud()
    dfa = DFA(model, "blocks.*")
    dfa.backward(model(X).square().mean())
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())


def test_outputs_that_come_later_are_guarded_a_pass_later_at_last() -> None:
    model = Net()
    DFA(model, "blocks.*", error_at="head")
    step(model)
    model.end = lambda x, x0: (model.head(x), x)
    step(model)  # this pass shows the new output
    with pytest.raises(MatchError, match="the loss depends on"):
        step(model)


def test_blocks_under_no_grad_in_a_forward_do_not_learn_and_do_not_disturb() -> None:
    class Target(Net):
        def forward(self, x: Tensor) -> object:
            x0 = self.embed(x)
            with torch.no_grad():
                target = self.blocks[1](x0)
            return self.head(self.blocks[2](self.blocks[0](x0)) + target)

    model = Target()
    dfa = DFA(model, "blocks.*", error_at="head")
    for _ in range(2):
        step(model)
        assert local(model, "blocks.1") == 0
        assert local(model, "blocks.0") > 0
        assert local(model, "blocks.2") > 0
    assert dfa.members is not None
    assert "blocks.1" not in dfa.members.blocks


def test_a_replaced_list_of_blocks_further_up_is_noticed_and_the_table_still_prints() -> None:
    body = nn.Module()
    body.layers = nn.ModuleList(nn.Linear(W, W) for _ in range(2))
    body.forward = lambda x: body.layers[1](body.layers[0](x).tanh())  # type: ignore[method-assign]
    model = nn.Sequential(body, nn.Linear(W, 3))
    dfa = DFA(model, "0.layers.*", error_at="1")
    step(model)
    body.layers = nn.ModuleList([nn.Linear(W, W), body.layers[1]])
    with pytest.raises(MatchError, match=r"0\.layers was replaced"):
        model(X)
    assert "0.layers.0" in repr(dfa)


def test_modules_between_blocks_in_reentrant_checkpoints_learn_in_every_pass() -> None:
    class Between(Net):
        def __init__(self, reentrant: bool) -> None:
            super().__init__()
            self.mids = nn.ModuleList(nn.Linear(W, W) for _ in range(3))
            self.reentrant = reentrant

        def forward(self, x: Tensor) -> Tensor:
            x = self.embed(x)
            for block, mid in zip(self.blocks, self.mids, strict=True):
                x = checkpoint(mid, block(x), use_reentrant=self.reentrant)
            return self.head(x)

    found = []
    for reentrant in (False, True):
        model = Between(reentrant)
        DFA(model, "blocks.*", error_at="head")
        for _ in range(3):
            step(model)
            found.append([mid.weight.grad.clone() for mid in model.mids])
    for gradients in found[1:]:
        for ours, expected in zip(gradients, found[0], strict=True):
            torch.testing.assert_close(ours, expected)
