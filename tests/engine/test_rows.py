"""Rows of the error and of the blocks belong to the same samples and tokens, whatever the layout; or it is refused."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence
from torch.utils.checkpoint import checkpoint

from odfa.engine import DFA, RandomFeedback
from odfa.errors import ConfigError, MatchError
from odfa.feedback import Slots
from odfa.project import Gaussian

WIDTH, CLASSES = 8, 3
Layer = Callable[[], nn.Module]


def tanh_layer() -> nn.Module:
    return nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh())


class Stack(nn.Module):
    """Blocks that see (T, B, C) or (B, T, C), for an input (B, T, C); `gather` makes the output of them."""

    def __init__(self, layer: Layer, gather: str, *, batch_first: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(layer() for _ in range(2))
        self.head = nn.Linear(WIDTH, CLASSES)
        self.gather, self.batch_first = gather, batch_first
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.batch_first else x.transpose(0, 1)
        for block in self.blocks:
            out = block(x)
            x = out[0] if isinstance(out, tuple) else out
        tokens = 1 if self.batch_first else 0
        if self.gather == "mean":
            return self.head(x.mean(tokens))
        if self.gather == "first":
            return self.head(x.select(tokens, 0))
        if self.gather == "last":
            return self.head(x.select(tokens, -1))
        return self.head(x if self.batch_first or self.gather == "as it is" else x.transpose(0, 1))


def learned(model: nn.Module, x: Tensor, **settings: Any) -> dict[str, Tensor]:
    """Gradients of a loss in which every output counts differently."""
    dfa = DFA(model, "blocks.*", rule=RandomFeedback(**settings))
    model.zero_grad()
    y = model(x)
    (y * torch.arange(y.numel()).reshape(y.shape).sin()).sum().backward()
    dfa.remove()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("recompute", [False, True, "stream"])
@pytest.mark.parametrize(("batch", "tokens"), [(5, 5), (5, 4), (1, 4), (4, 1), (1, 1)])
def test_the_signal_reaches_the_only_token_that_matters(batch: int, tokens: int, recompute: Any) -> None:
    model = Stack(tanh_layer, "tokens", batch_first=False)
    x, e = torch.zeros(batch, tokens, WIDTH).double(), torch.zeros(batch, tokens, CLASSES).double()
    x[0, -1], e[0, -1] = torch.linspace(-1, 1, WIDTH), torch.tensor([1.0, -2.0, 3.0])
    DFA(model, "blocks.*", recompute=recompute)
    model(x).backward(e)
    first: Any = model.blocks[0]
    with torch.no_grad():
        h = torch.tanh(x[0, -1] @ first[0].weight.T + first[0].bias)
        signal = e[0, -1] @ Gaussian(seed=0).shaped(CLASSES, 2 * WIDTH).matrix()[:, :WIDTH].double() / WIDTH**0.5
        expected = torch.outer(signal * (1 - h**2), x[0, -1])
    assert expected.any()
    torch.testing.assert_close(first[0].weight.grad, expected)


def encoder_layer() -> nn.Module:
    return nn.TransformerEncoderLayer(WIDTH, 2, 16, dropout=0.0)


@pytest.mark.parametrize("gather", ["tokens", "as it is", "mean", "first", "last"])
@pytest.mark.parametrize(
    "layer", [tanh_layer, encoder_layer, lambda: nn.GRU(WIDTH, WIDTH)], ids=["mlp", "mixer", "gru"]
)
def test_as_many_tokens_as_samples_learn_as_if_there_were_more(layer: Layer, gather: str) -> None:
    """A sixth sample without a loss changes nothing, but makes sizes differ."""
    model = Stack(layer, gather, batch_first=False)
    x_BTC = torch.randn(5, 5, WIDTH, generator=torch.Generator().manual_seed(1)).double()

    def loss(y: Tensor) -> Tensor:
        y = y.transpose(0, 1) if gather == "as it is" else y
        return (y[:5] * torch.arange(y[:5].numel()).reshape(y[:5].shape).sin()).sum()

    found = []
    for x in (x_BTC, torch.cat([x_BTC, x_BTC[:1]])):
        dfa = DFA(model, "blocks.*")
        model.zero_grad()
        loss(model(x)).backward()
        found.append({name: p.grad.clone() for name, p in model.named_parameters()})
        dfa.remove()
    for name, grad in found[0].items():
        torch.testing.assert_close(grad, found[1][name], msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("zero_head", [False, True])
@pytest.mark.parametrize("gather", ["tokens", "mean", "first"])
def test_ordinary_models_whose_batch_is_as_long_as_their_sequence(gather: str, zero_head: bool) -> None:
    model = Stack(
        lambda: nn.TransformerEncoderLayer(WIDTH, 2, 16, dropout=0.0, batch_first=True), gather, batch_first=True
    )
    if zero_head:
        nn.init.zeros_(model.head.weight)
    x = torch.randn(4, 4, WIDTH).double()
    ours, expected = learned(model, x), learned(model, x, batch_axes=(0, 0))
    for name, grad in expected.items():
        torch.testing.assert_close(ours[name], grad)


class Convolutions(nn.Module):
    """As many channels as samples, and statistics over the batch."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        sizes = [(3, 4), (4, 4), (4, 4)]
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(i, o, 3, padding=1), nn.BatchNorm2d(o), nn.ReLU()) for i, o in sizes
        )
        self.head = nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((2, 3)))


def test_as_many_channels_as_samples_with_batch_norm() -> None:
    model, x = Convolutions(), torch.randn(4, 3, 6, 6)
    ours, expected = learned(model, x), learned(model, x, batch_axes=(0, 0))
    assert all(torch.allclose(ours[name], expected[name], atol=1e-6) for name in expected)


class Frames(nn.Module):
    """Images by time step, (T, B, C, H, W), as spiking networks take them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(Folded() for _ in range(2))
        self.head = nn.Linear(2 * 9, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(0).flatten(1))


class Folded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x.flatten(0, 1)).unflatten(0, x.shape[:2]).tanh()


def test_time_steps_in_front_of_images() -> None:
    torch.manual_seed(0)
    model, x_TBCHW = Frames(), torch.randn(4, 4, 2, 3, 3)
    DFA(model, "blocks.*")
    model(x_TBCHW)[0, 1].backward()  # only sample 0 has an error
    e = torch.tensor([0.0, 1.0, 0.0])
    signal = e @ Gaussian(seed=0).shaped(CLASSES, 2 * 4 * 18).matrix()[:, :72] / 72**0.5
    with DFA.of(model).passthrough():  # type: ignore[union-attr]
        h_TCHW = model.blocks[0](x_TBCHW[:, :1])[:, 0]
        expected = torch.autograd.grad(h_TCHW, model.blocks[0].conv.weight, signal.reshape(4, 2, 3, 3))[0]
    torch.testing.assert_close(model.blocks[0].conv.weight.grad, expected)


def test_a_layout_found_once_is_kept_and_goes_into_checkpoints() -> None:
    x = torch.randn(4, 4, WIDTH).double()
    model = Stack(encoder_layer, "mean", batch_first=False)
    dfa = DFA(model, "blocks.*")
    model(x).sum().backward()
    state = dfa.at_work.state_dict()
    assert [flags for _, _, flags in state["slots"].values()] == [4, 4]
    slots = Slots(shared=False)
    slots.load_state_dict(state["slots"])
    assert slots.state_dict() == state["slots"]
    placed = slots.take("blocks.0", (4, 4, WIDTH), (4,))[1]  # nothing has to be found again
    assert placed.axes == (0, 1)
    with pytest.raises(MatchError, match="keep one layout"):
        slots.take("blocks.0", (4, 5, WIDTH), (4,))
    slots.load_state_dict({"old": [0, WIDTH, 1]})  # as written before layouts were told apart
    assert slots.state_dict() == {"old": [0, WIDTH, 1]}


def test_one_token_of_one_sample_settles_nothing() -> None:
    slots = Slots(shared=False)
    slots.take("block", (1, 1, WIDTH), (1, 1))
    restored = Slots(shared=False)
    restored.load_state_dict(slots.state_dict())
    assert restored.take("block", (3, 2, WIDTH), (2, 3))[1].axes == (0, 1)


class Checkpointed(Stack):
    """Runs its blocks without a graph, once they are to be checkpointed."""

    checkpoints = True

    def __init__(self) -> None:
        super().__init__(tanh_layer, "tokens", batch_first=True)
        self.shift = nn.Parameter(torch.zeros(WIDTH).double())

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.shift
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=True) if self.checkpoints else block(x)
        return self.head(x)


def test_what_data_flow_cannot_show_is_refused_with_the_setting_that_says_it() -> None:
    model, x = Checkpointed(), torch.randn(4, 4, WIDTH).double()
    with pytest.raises(MatchError, match=r"cannot be told; write RandomFeedback\(batch_axes=\(0, 0\)\)"):
        learned(model, x)
    DFA.of(model).remove()  # type: ignore[union-attr]
    ours = learned(model, x, batch_axes=(0, 0))
    model.checkpoints = False
    expected = learned(model, x)
    assert all(torch.allclose(ours[name], expected[name]) for name in expected)


@pytest.mark.parametrize("axes", [(0,), (0, 2), 1, "first"])
def test_batch_axes_are_a_pair_of_zeros_and_ones(axes: Any) -> None:
    told = r"batch_axes: expected (None or a pair such as \(0, 1\)|2 values|a list of values).*, got"
    with pytest.raises(ConfigError, match=told):
        DFA(Convolutions(), "blocks.*", rule=RandomFeedback(batch_axes=axes))


class Graph(nn.Module):
    """Two graphs of three and four nodes in one batch of rows, pooled before the head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(tanh_layer() for _ in range(3))
        self.head = nn.Linear(WIDTH, CLASSES)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.head(torch.stack([x[:3].sum(0), x[3:].sum(0)]))


def advice(message: str) -> str:
    """The place that a message names."""
    found = re.search(r"error_at='([^']+)'", message)
    assert found is not None, message
    return found.group(1)


def test_pooled_nodes_are_fed_where_the_message_says() -> None:
    model, x = Graph(), torch.randn(7, WIDTH).double()
    with pytest.raises(MatchError, match="nodes") as refused:
        learned(model, x)
    assert "\n" not in str(refused.value)
    DFA.of(model).remove()  # type: ignore[union-attr]
    true = torch.autograd.grad(model(x)[:, 1].sum(), list(model.parameters()))
    place = advice(str(refused.value))
    DFA(model, "blocks.*", error_at=place)
    model(x)[:, 1].sum().backward()
    for exact in ("blocks.2.0.weight", "head.weight"):
        expected = dict(zip(dict(model.named_parameters()), true, strict=True))[exact]
        torch.testing.assert_close(model.get_parameter(exact).grad, expected)
    with torch.no_grad():
        e_NC = model.head.weight[1].expand(7, -1)
        signal = e_NC @ Gaussian(seed=0).shaped(WIDTH, 2 * WIDTH).matrix()[:, :WIDTH].double() / WIDTH**0.5
        h = torch.tanh(x @ model.blocks[0][0].weight.T + model.blocks[0][0].bias)  # type: ignore[index]
    torch.testing.assert_close(model.blocks[0][0].weight.grad, (signal * (1 - h**2)).T @ x)  # type: ignore[index]


class Packed(nn.Module):
    """Recurrent blocks on packed sequences of lengths 4, 3 and 1; the last step of each is classified."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(nn.GRU(WIDTH, WIDTH) for _ in range(2))
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        packed: PackedSequence = pack_padded_sequence(x, torch.tensor([4, 3, 1]))
        for block in self.blocks:
            packed, _ = block(packed)
        padded, lengths = pad_packed_sequence(packed)
        return self.head(padded[lengths - 1, torch.arange(3)])


def test_packed_sequences_are_fed_where_the_message_says() -> None:
    model, x = Packed(), torch.randn(4, 3, WIDTH)
    with pytest.raises(MatchError, match="packed") as refused:
        learned(model, x)
    DFA.of(model).remove()  # type: ignore[union-attr]
    expected = torch.autograd.grad(model(x)[:, 1].sum(), model.blocks[1].weight_ih_l0)[0]  # type: ignore[arg-type]
    DFA(model, "blocks.*", error_at=advice(str(refused.value)))
    model(x)[:, 1].sum().backward()
    torch.testing.assert_close(model.blocks[1].weight_ih_l0.grad, expected)
    assert model.blocks[0].weight_ih_l0.grad.any()  # type: ignore[union-attr, operator]


class FusedLoss(nn.Module):
    """A loss that reads the head's weight and never calls the head, as fused cross-entropies do."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(tanh_layer() for _ in range(2))
        self.norm, self.head = norm, nn.Linear(WIDTH, CLASSES)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return F.cross_entropy(F.linear(self.norm(x), self.head.weight, self.head.bias), torch.arange(len(x)) % CLASSES)


@pytest.mark.parametrize(("norm", "place"), [(nn.LayerNorm(WIDTH), "norm"), (nn.Identity(), "blocks.1")])
def test_a_head_that_is_used_without_being_called(norm: nn.Module, place: str) -> None:
    model, x = FusedLoss(norm), torch.randn(6, WIDTH).double()
    true = dict(
        zip(dict(model.named_parameters()), torch.autograd.grad(model(x), list(model.parameters())), strict=True)
    )
    dfa = DFA(model, "blocks.*")
    with pytest.raises(MatchError, match="did not run in this forward") as refused:
        model(x)
    assert advice(str(refused.value)) == place
    dfa.remove()
    DFA(model, "blocks.*", error_at=place)
    with torch.no_grad():
        h0 = torch.tanh(x @ model.blocks[0][0].weight.T + model.blocks[0][0].bias)  # type: ignore[index]
        h1 = torch.tanh(h0 @ model.blocks[1][0].weight.T + model.blocks[1][0].bias)  # type: ignore[index]
        logits = F.linear(norm(h1), model.head.weight, model.head.bias)
        e = (logits.softmax(1) - F.one_hot(torch.arange(6) % CLASSES, CLASSES)) / 6 @ model.head.weight
        fed = 2 if place == "norm" else 1
        signal = e @ Gaussian(seed=0).shaped(WIDTH, fed * WIDTH).matrix()[:, :WIDTH].double() / WIDTH**0.5
        expected = (signal * (1 - h0**2)).T @ x
    model(x).backward()
    torch.testing.assert_close(model.blocks[0][0].weight.grad, expected)  # type: ignore[index]
    for name in ("head.weight", "head.bias", *(("norm.weight", "norm.bias") if place == "norm" else ())):
        torch.testing.assert_close(model.get_parameter(name).grad, true[name])
