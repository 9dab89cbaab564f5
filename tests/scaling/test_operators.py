"""Operations of single operators, forward and backward, against counts by hand."""

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import embedding_bag, grouped_mm, scaled_dot_product_attention
from torch.utils.flop_counter import flop_registry, register_flop_formula

from odfa.scaling.tally import Counting, FusedAttention, Tally


def count(run, *shapes, dtype=torch.float32):
    """Tallies of both passes, and what was estimated."""
    inputs = [torch.empty(shape, dtype=dtype, device="meta", requires_grad=True) for shape in shapes]
    with torch.device("meta"), FusedAttention(), Counting() as counting:
        output = run(*inputs)
        output = output[0] if isinstance(output, tuple) else output
        forward, _ = counting.taken()
        if output.requires_grad:
            output.backward(torch.empty_like(output))
    return forward, counting.taken()[0], dict(counting.estimated)


def made(build, *args, **settings):
    """Run a module without its weights' values."""

    def run(*inputs):
        return build(*args, **settings)(*inputs)

    return run


PRODUCTS = {
    # 2 for each multiplication and addition; backward a product for each gradient that is asked for
    "mm": (torch.mm, ((3, 4), (4, 5)), 2 * 3 * 4 * 5, 2),
    "bmm": (torch.bmm, ((2, 3, 4), (2, 4, 5)), 2 * 2 * 3 * 4 * 5, 2),
    "baddbmm": (torch.baddbmm, ((5,), (2, 3, 4), (2, 4, 5)), 2 * 2 * 3 * 4 * 5, 2),
    "addbmm": (torch.addbmm, ((3, 5), (2, 3, 4), (2, 4, 5)), 2 * 2 * 3 * 4 * 5, 2),
    "addmm in place": (lambda x, a, b: x.clone().addmm_(a, b), ((3, 5), (3, 4), (4, 5)), 2 * 3 * 4 * 5, 2),
    "by names": (lambda x, a, b: torch.addmm(x, mat1=a, mat2=b), ((5,), (3, 4), (4, 5)), 2 * 3 * 4 * 5, 2),
    "mv": (torch.mv, ((3, 4), (4,)), 2 * 3 * 4, 1),
    "addmv": (torch.addmv, ((3,), (3, 4), (4,)), 2 * 3 * 4, 1),
    "dot": (torch.dot, ((7,), (7,)), 2 * 7, 0),
    "einsum": (lambda a, b: torch.einsum("bik,kj->bij", a, b), ((2, 3, 4), (4, 5)), 2 * 2 * 3 * 4 * 5, 2),
    "einsum of three": (
        lambda a, b, c: torch.einsum("ik,kj,jl->il", a, b, c),
        ((3, 4), (4, 5), (5, 6)),
        2 * 3 * 4 * 5 + 2 * 3 * 5 * 6,
        2,
    ),
    "conv": (made(nn.Conv2d, 3, 16, 4, stride=4), ((2, 3, 32, 32),), 2 * 2 * 8 * 8 * 16 * 3 * 16, 2),
    "conv of one group each": (made(nn.Conv1d, 8, 8, 3, groups=8, padding=1), ((2, 8, 10),), 2 * 2 * 10 * 8 * 3, 2),
    "conv of two groups": (made(nn.Conv3d, 4, 6, 3, groups=2), ((2, 4, 8, 8, 8),), 2 * 2 * 6**3 * 6 * 2 * 27, 2),
    "transposed conv": (
        made(nn.ConvTranspose2d, 8, 6, 3, stride=2, groups=2),
        ((2, 8, 5, 5),),
        2 * 2 * 25 * 8 * 3 * 9,
        2,
    ),
    "conv over time": (lambda x, w, b: torch.conv_tbc(x, w, b, 1), ((10, 2, 4), (3, 4, 6), (6,)), 2880, None),
    # steps x samples x gates: four of an LSTM, three of a GRU
    "lstm": (
        made(nn.LSTM, 16, 32, num_layers=2),
        ((5, 3, 16),),
        2 * 5 * 3 * 4 * 32 * (16 + 32) + 2 * 5 * 3 * 4 * 32 * (32 + 32),
        None,
    ),
    "gru": (made(nn.GRU, 16, 32), ((5, 3, 16),), 2 * 5 * 3 * 3 * 32 * (16 + 32), None),
    "bilinear": (made(nn.Bilinear, 5, 7, 3), ((4, 5), (4, 7)), 3 * 4 * 3 * 5 * 7, 3),
    "distances": (lambda x, y: torch.cdist(x, y, p=1.0), ((2, 30, 4), (2, 40, 4)), 3 * 2 * 30 * 40 * 4, 2),
    "short distances": (torch.cdist, ((9, 4), (8, 4)), 3 * 9 * 8 * 4, 2),
    "rows among themselves": (torch.pdist, ((30, 4),), 3 * 435 * 4, 1),
    "cholesky": (torch.linalg.cholesky, ((2, 6, 6),), 2 * 6**3 / 3, None),
    "solve": (torch.linalg.solve, ((2, 6, 6), (2, 6, 3)), 2 * (2 * 6**3 / 3 + 2 * 6 * 6 * 3), None),
    "inverse": (torch.linalg.inv, ((2, 6, 6),), 2 * 2 * 6**3, 2 * 6**3 * 2 * 2 / (2 * 2 * 6**3)),
    "fft": (lambda x: torch.fft.fft2(torch.complex(x, x)), ((4, 16, 32),), 5 * 4 * 512 * 9, 1),
    "rfft": (torch.fft.rfft, ((4, 64),), 2.5 * 4 * 64 * 6, None),
    "stft": (
        lambda x: torch.stft(x, 64, window=torch.ones(64), return_complex=True),
        ((4, 960),),
        2.5 * 4 * 61 * 64 * 6,
        None,
    ),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_operations_are_those_counted_by_hand(name):
    run, shapes, forward, times = PRODUCTS[name]
    there, back, estimated = count(run, *shapes)
    assert there.flops == pytest.approx(forward, rel=1e-12)
    if times is not None:
        assert back.flops == pytest.approx(times * forward, rel=1e-12)
    assert not estimated


def test_experts_cost_what_their_tokens_do():
    """32 tokens, two of eight experts each: 64 rows pass 16 x 24, wherever they go; gradients of both cost as much."""
    ends = torch.zeros(8, dtype=torch.int32, device="meta")

    def run(rows, weight):
        return grouped_mm(rows, weight, offs=ends)

    there, back, estimated = count(run, (64, 16), (8, 16, 24), dtype=torch.bfloat16)
    assert (there.flops, back.flops) == (2 * 64 * 16 * 24, 4 * 64 * 16 * 24)
    assert not estimated


def test_a_matrix_for_each_group_meets_its_rows_or_its_matrix():
    each = count(grouped_mm, (4, 8, 16), (4, 16, 24), dtype=torch.bfloat16)[0]
    assert each.flops == 2 * 4 * 8 * 16 * 24
    ends = torch.zeros(4, dtype=torch.int32, device="meta")
    columns = count(lambda a, b: grouped_mm(a, b, offs=ends), (4, 8, 16), (16, 64), dtype=torch.bfloat16)[0]
    assert columns.flops == 2 * 8 * 16 * 64


HEADS = ((2, 4, 8), (2, 4, 9))
ATTENTION = {
    "plain": (lambda q, k, v: scaled_dot_product_attention(q, k, v), (16, 16), (2, 4)),
    "causal": (lambda q, k, v: scaled_dot_product_attention(q, k, v, is_causal=True), (16, 16), (2, 4)),
    "wider values": (lambda q, k, v: scaled_dot_product_attention(q, k, v), (16, 24), (2, 4)),
    "narrower values": (lambda q, k, v: scaled_dot_product_attention(q, k, v), (24, 16), (2, 4)),
    "shared keys": (lambda q, k, v: scaled_dot_product_attention(q, k, v, enable_gqa=True), (16, 16), (2, 2)),
    "shared keys, wider values": (
        lambda q, k, v: scaled_dot_product_attention(q, k, v, enable_gqa=True),
        (16, 24),
        (2, 1),
    ),
    "one key for all": (lambda q, k, v: scaled_dot_product_attention(q, k, v), (16, 16), (1, 1)),
}


@pytest.mark.parametrize("name", ATTENTION)
def test_attention_counts_scores_and_values_each_by_its_width(name):
    """2 samples, 4 heads, 8 queries, 9 keys."""
    run, (scored, valued), keyed = ATTENTION[name]
    there, back, estimated = count(run, (2, 4, 8, scored), (*keyed, 9, scored), (*keyed, 9, valued))
    assert there.attention_flops == 2 * (2 * 4 * 8 * 9) * (scored + valued)
    assert back.attention_flops == 2 * (2 * 4 * 8 * 9) * (3 * scored + 2 * valued)
    assert there.matmul_flops == back.matmul_flops == 0
    assert not estimated


@pytest.mark.parametrize("leading", [(), (3,), (2, 3), (2, 3, 5)])
def test_attention_has_any_number_of_leading_axes(leading):
    shapes = []

    def run(q, k, v):
        shapes.append(attended := scaled_dot_product_attention(q, k, v))
        return attended

    there, _, _ = count(run, (*leading, 8, 16), (*leading, 9, 16), (*leading, 9, 24))
    assert shapes[0].shape == (*leading, 8, 24)
    assert there.attention_flops == 2 * math.prod(leading) * 8 * 9 * (16 + 24)


def test_a_learned_mask_gets_its_gradient():
    mask = torch.empty(4, 8, 9, device="meta", requires_grad=True)
    count(lambda q, k, v: scaled_dot_product_attention(q, k, v, mask), (2, 4, 8, 16), (2, 4, 9, 16), (2, 4, 9, 16))
    assert mask.grad.shape == mask.shape


def test_attention_kernels_called_by_their_own_names_are_attention():
    def run(q, k, v):
        return torch.ops.aten._scaled_dot_product_flash_attention(q, k, v)[0]

    shape = (2, 4, 8, 16)
    there, back, _ = count(run, shape, shape, shape, dtype=torch.bfloat16)
    assert there == Tally(attention_flops=2 * 2 * 4 * 64 * 32, num_bytes=there.num_bytes, calls=1)
    assert back.attention_flops == 2 * 2 * 4 * 64 * 80


def test_a_table_is_read_by_row():
    """5 rows of 8 numbers are read and one sum written, with a few places that torch notes: not the table of 1000."""
    places = torch.zeros(5, dtype=torch.long, device="meta")
    begins = torch.zeros(1, dtype=torch.long, device="meta")
    there, _, estimated = count(lambda table: embedding_bag(places, table, begins), (1000, 8))
    assert 4 * (5 * 8 + 8) <= there.num_bytes < 4 * (5 * 8 + 8) + 8 * 8
    assert not estimated
    there, _, _ = count(lambda table: table[places], (1000, 8))
    assert there.num_bytes == 2 * 4 * 5 * 8


@pytest.fixture(scope="module")
def fused():
    """Somebody's own operator: x W, which torch knows nothing of."""

    @torch.library.custom_op("odfa_tests::fused", mutates_args=())
    def product(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return x @ w

    @product.register_fake
    def _(x, w):
        return x.new_empty(len(x), w.shape[1])

    return product


def test_an_operator_that_nobody_knows_is_named_and_estimated_from_its_shapes(fused):
    there, _, estimated = count(lambda x, w: fused(x.detach(), w.detach()), (4, 5), (5, 6))
    assert estimated == {"odfa_tests.fused": 1}
    assert there == Tally(matmul_flops=2 * (20 + 30 + 24), num_bytes=4 * (20 + 30 + 24), calls=1)
    there, _, estimated = count(lambda x: torch.linalg.eigh(x.detach())[0], (6, 6))
    assert estimated == {"aten._linalg_eigh": 1}


def test_a_formula_given_to_torch_is_used(fused):
    packet = torch.ops.odfa_tests.fused
    register_flop_formula(packet)(lambda x, w, out_shape=None: 2 * x[0] * x[1] * w[1])
    try:
        there, _, estimated = count(lambda x, w: fused(x.detach(), w.detach()), (4, 5), (5, 6))
    finally:
        del flop_registry[packet]
    assert (there.flops, estimated) == (2 * 4 * 5 * 6, {})


def test_values_that_are_there_are_used():
    """A table or a chance that lives beside the meta tensors has values: they decide, and cost nothing."""
    taken = []

    def run(x):
        if torch.rand([], device="cpu") < 0.0:  # drops a layer with probability 0
            taken.append("dropped")
        if int(torch.tensor([2, 3], device="cpu").sum()) == 5:
            taken.append("summed")
        return x + x

    there, _, _ = count(run, (3,))
    assert taken == ["summed"]
    assert there.calls == 1
