"""Products with the mean weight: one for all layers with the same delta, compiled or not, and never a stale one."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch._subclasses import FakeTensor

from odfa import DFA, AlignedHead
from odfa.engine import products as room
from odfa.engine.layers import Layout
from odfa.engine.product_operation import OpaqueProducts, product
from odfa.engine.products import Products
from tests.engine.test_compiled_inside import X, assert_same, attached, gradients, graphs, on

LAYOUTS: list[Layout] = ["outputs x inputs", "inputs x outputs"]
BACKENDS = ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)]
pytestmark = pytest.mark.filterwarnings("ignore")  # torch's compiler warns of itself


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shape of the matrix of every product that is computed, and not only traced."""
    found: list[tuple[int, ...]] = []
    plain = room.times

    def times(delta_NO: Tensor, matrix: Tensor, layout: Layout) -> Tensor:
        if not isinstance(delta_NO, FakeTensor):
            found.append(tuple(matrix.shape))
        return plain(delta_NO, matrix, layout)

    monkeypatch.setattr(room, "times", times)
    return found


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()  # other tests have blocks that torch cannot compile in one piece
    yield
    torch._dynamo.reset()


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def by_hand(delta_NO: Tensor, matrix: Tensor, layout: Layout) -> Tensor:
    return torch.einsum("no,oi->ni" if layout == "outputs x inputs" else "no,io->ni", delta_NO, matrix)


@given(
    st.lists(st.sampled_from(["arrives", "same", "scratch", "written", "matrix", "forget", "layout"]), max_size=12),
    st.sampled_from(LAYOUTS),
)
def test_whatever_happens_between_two_calls_the_product_is_that_of_the_numbers_now(
    events: list[str], layout: Layout
) -> None:
    """Compiled code writes to its own memory and to what it was given without a change of version; others with one."""
    products, signal, scratch, matrix = OpaqueProducts(), drawn(3, 4), drawn(3, 4, seed=1), drawn(4, 4, seed=2)
    delta_NO = signal
    for number, event in enumerate(events):
        if event == "arrives":
            signal = delta_NO = drawn(3, 4, seed=10 + number)
            products.arrives(signal)
        elif event == "same":
            delta_NO = signal.view(3, 4)
        elif event == "scratch":
            delta_NO = scratch
            scratch.data.copy_(drawn(3, 4, seed=10 + number))
        elif event == "written":
            signal.mul_(2)
        elif event == "matrix":
            matrix = drawn(4, 4, seed=10 + number)
        elif event == "forget":
            products.forget()
        else:
            layout = LAYOUTS[1 - LAYOUTS.index(layout)]
        found = product(delta_NO, matrix, layout, products)
        torch.testing.assert_close(found, by_hand(delta_NO, matrix, layout), rtol=1e-12, atol=1e-12)
        found.data.zero_()


def test_only_the_delta_that_came_from_outside_is_shared(computed: list[tuple[int, ...]]) -> None:
    products, signal, matrix = OpaqueProducts(), drawn(2, 3, 4), drawn(4, 5)
    delta_NO = signal.flatten(0, -2)
    for _ in range(3):
        product(delta_NO, matrix, "outputs x inputs", products)
    assert len(computed) == 3
    products.arrives(signal)
    for _ in range(3):
        product(delta_NO, matrix, "outputs x inputs", products)
    assert len(computed) == 4
    product(delta_NO.clone(), matrix, "outputs x inputs", products)
    assert len(computed) == 5


def test_a_graph_that_is_recorded_for_a_device_holds_every_product(
    computed: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "_captured", lambda _delta: True)
    products, signal, matrix = OpaqueProducts(), drawn(3, 4), drawn(4, 5)
    products.arrives(signal)
    for _ in range(3):
        product(signal, matrix, "outputs x inputs", products)
    assert len(computed) == 3


def test_without_compiling_a_delta_that_is_written_to_has_another_product(computed: list[tuple[int, ...]]) -> None:
    products, delta_NO, matrix = Products(), drawn(3, 4), drawn(4, 5)
    first = products.once(delta_NO, matrix, "outputs x inputs")
    assert products.once(delta_NO.view(3, 4), matrix, "outputs x inputs") is first
    delta_NO.mul_(2)
    torch.testing.assert_close(products.once(delta_NO, matrix, "outputs x inputs"), 2 * first)
    assert len(computed) == 2


@pytest.mark.parametrize("recompute", [False, True, "stream"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_compiled_blocks_share_as_many_products_as_others(
    computed: list[tuple[int, ...]], backend: str, recompute: Any
) -> None:
    """Three blocks: one product for each of the two shapes, in every step."""
    plain, loss, _ = attached("both", False, recompute=recompute)
    model, *_ = attached("both", backend, recompute=recompute)
    for _ in range(2):
        expected = gradients(plain, loss)
        computed.clear()
        assert_same(gradients(model, loss), expected)
        assert sorted(computed) == [(16, 16), (64, 16)]
    graphs()


@pytest.mark.parametrize("backend", BACKENDS)
def test_without_branches_only_the_layers_at_the_blocks_end_share(
    computed: list[tuple[int, ...]], backend: str
) -> None:
    """What comes to the attention has passed the MLP, another one in each block."""
    model, loss, _ = attached("linears", backend)
    gradients(model, loss)
    assert sorted(computed) == [(16, 16)] * 3 + [(64, 16)]


class Scaled(nn.Module):
    """Two layers of one shape with a scale behind each: compiled code may put both deltas into the same memory."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.start, self.one, self.other = (nn.Linear(width, width) for _ in range(3))
        self.a, self.b = (nn.Parameter(torch.linspace(0.5, 2, width)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        h = self.start(x)
        return x + self.a * self.one(h.tanh()) + self.b.square() * self.other(h.sin())


@pytest.mark.parametrize("backend", BACKENDS)
def test_deltas_with_a_scale_behind_the_layer_are_told_apart(computed: list[tuple[int, ...]], backend: str) -> None:
    models = []
    for choice in (False, backend):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 8), *(Scaled() for _ in range(3)), nn.Linear(8, 3))
        DFA(model, ["1", "2", "3"], rule=AlignedHead(rank=2), linears=["*.one", "*.other"], compile=choice)
        models.append(model)
    expected = gradients(models[0], on(X))
    computed.clear()
    assert_same(gradients(models[1], on(X)), expected)
    assert len(computed) == 6


def test_deltas_behind_dropout_are_told_apart(computed: list[tuple[int, ...]]) -> None:
    """Dropout draws in compiled code as without it for this backend."""
    found = []
    for choice in (False, "aot_eager"):
        model, loss, _ = attached("both", choice)
        for block in model.transformer.h:
            block.attn.resid_dropout.p = block.mlp.dropout.p = 0.5
        model.train()
        computed.clear()
        torch.manual_seed(3)
        found.append(gradients(model, loss))
        assert len(computed) == 6
    assert_same(*found)
