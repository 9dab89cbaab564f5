"""Operations of an operator of torch, from the shapes of what goes in and comes out.

An operator is of one of four kinds: it has a formula here; it has one that was registered with
`torch.utils.flop_counter.register_flop_formula`; it does a few things for each number that it touches, so that its time
is that of its bytes; or it is unknown, and then its operations are estimated from its shapes and its name reported.
"""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils.flop_counter import flop_registry

Kind = Literal["matmul", "attention", "estimated"]


class Operations(NamedTuple):
    """Number of operations, 2 per multiplication and addition, and their kind."""

    kind: Kind
    number: float


def operations(
    func: OpOverload, args: tuple[object, ...], kwargs: dict[str, object], output: object, elements: int
) -> Operations:
    """Operations of one call; for an unknown operator 2 for each of the `elements` in and out, a lower bound."""
    # formulas here come before torch's own, some of which leave out groups
    args, kwargs = _in_order(func, args, kwargs)
    name = name_of(func)
    base = name.rstrip("_")  # in place
    if base in _ATTENTION:
        return Operations("attention", float(_ATTENTION[base](*args)))
    if base in _FORMULAS:
        return Operations("matmul", float(_FORMULAS[base](output, *args)))
    packet = getattr(func, "_overloadpacket", func)
    if packet in flop_registry:
        kind: Kind = "attention" if "attention" in name else "matmul"
        return Operations(kind, float(flop_registry[packet](*args, **kwargs, out_val=output)))
    if _is_linear(func, name):
        return Operations("matmul", 0.0)
    return Operations("estimated", 2.0 * elements)


def name_of(func: OpOverload) -> str:
    """Name of an operator as torch writes it: aten.mm, or namespace.operator."""
    return str(getattr(func, "_overloadpacket", func))


def _in_order(
    func: OpOverload, args: tuple[object, ...], kwargs: dict[str, object]
) -> tuple[tuple[object, ...], dict[str, object]]:
    """Arguments with those that were given by name, but may be given by place, moved to their places."""
    # the formulas take their operands by place, and torch hands them on in the way in which the caller wrote them
    placed, left = list(args), dict(kwargs)
    for argument in func._schema.arguments[len(args) :]:
        if argument.kwarg_only or argument.name not in left:
            break
        placed.append(left.pop(argument.name))
    return tuple(placed), left


def _is_linear(func: OpOverload, name: str) -> bool:
    """Whether its work grows as the numbers it touches do."""
    if {torch.Tag.pointwise, torch.Tag.reduction} & set(func.tags):
        return True
    space, _, operator = name.partition(".")
    operator = operator.rstrip("_")
    forward = operator.removesuffix("_data").removesuffix("_backward")
    return space in ("aten", "prims") and (
        not _LINEAR.isdisjoint((operator, forward)) or operator.startswith("_foreach_")
    )


def _of_row(place: int) -> Callable[..., float]:
    """A product of rows (…, K), the argument at `place`, with whatever gives rows (…, N): 2 … K N."""
    return lambda output, *args: 2.0 * args[place].numel() * output.shape[-1]


def _of_vector(place: int) -> Callable[..., float]:
    """A product of a matrix, the argument at `place`, with one vector."""
    return lambda _output, *args: 2.0 * args[place].numel()


def _grouped(_output: Tensor, a: Tensor, b: Tensor, *_args: object) -> float:
    """Each row meets the matrix of its group alone, so that groups do not appear: (T, K) by (G, K, N), (K, T) by
    (T, N), (G, M, K) by (K, T). Where both hold a matrix for each group, all of them are multiplied."""
    rows = a.numel() if b.ndim == 3 else math.prod(a.shape[-2:])
    return 2.0 * rows * b.shape[-1]


def _grouped_backward(_output: object, rows: Tensor, weight: Tensor, *_args: object) -> float:
    return 2 * _grouped(None, rows, weight)  # type: ignore[arg-type]


def _convolution(
    output: Tensor,
    x: Tensor,
    weight: Tensor,
    _bias: object,
    _stride: object,
    _padding: object,
    _dilation: object,
    transposed: bool,
) -> float:
    """Every point of the output, of the input if transposed, meets every weight; a weight knows its group's channels
    only."""
    points = math.prod((x if transposed else output).shape[2:])
    return float(2 * x.shape[0] * points * weight.numel())


def _convolution_forward(output: Tensor, *args: Any) -> float:
    return _convolution(output, *args[:7])


def _convolution_backward(_output: object, gradient: Tensor, x: Tensor, weight: Tensor, *args: Any) -> float:
    """Gradients of input and weight cost a forward pass each. torch's own formula leaves groups out."""
    *settings, _output_padding, _groups, wanted = args
    return float(_convolution(gradient, x, weight, *settings) * sum(wanted[:2]))


def _convolution_in_time(output: Tensor, _x: Tensor, weight: Tensor, *_args: object) -> float:
    return 2.0 * math.prod(output.shape[:2]) * weight.numel()


def _fourier(output: Tensor, x: Tensor, dims: list[int], *_args: object) -> float:
    """5 n log2 n for each transform of n complex numbers (Cooley and Tukey), half of that if one side is real."""
    real = not (x.is_complex() and output.is_complex())
    times = output if x.is_complex() and real else x
    points = math.prod(times.shape[dim] for dim in dims)
    return float((2.5 if real else 5.0) * times.numel() * math.log2(max(1, points)))


def _trilinear(_output: Tensor, *args: Any) -> float:
    """Two multiplications and an addition for each term of the sum over three factors."""
    factors, expanded = args[:3], args[3:6]
    shapes = []
    for factor, dims in zip(factors, expanded, strict=True):
        shape = list(factor.shape)
        for dim in dims:
            shape.insert(dim, 1)
        shapes.append(shape)
    return float(3 * math.prod(max(sizes) for sizes in zip(*shapes, strict=True)))


def _distances(_output: Tensor, x: Tensor, y: Tensor, *_args: object) -> float:
    """A difference, its power and an addition for each pair of rows and each of their entries."""
    return 3.0 * x.numel() * y.shape[-2]


def _distances_by_product(_output: Tensor, x: Tensor, y: Tensor) -> float:
    """The product of rows that hold two numbers more, their squares' sum and 1."""
    return 2.0 * math.prod(x.shape[:-1]) * y.shape[-2] * (x.shape[-1] + 2)


def _distances_within(_output: object, x: Tensor, *_args: object) -> float:
    """A difference, its power and an addition for each pair of different rows, counted once, and each entry."""
    rows, width = x.shape
    return 1.5 * rows * (rows - 1) * width


def _distances_within_backward(_output: object, _gradient: Tensor, x: Tensor, *_args: object) -> float:
    return _distances_within(None, x)


def _distances_backward(_output: object, _gradient: Tensor, x: Tensor, y: Tensor, *_args: object) -> float:
    return _distances(x, x, y)


def _squares(share: float, place: int = 0) -> Callable[..., float]:
    """`share` n^3 for each n x n matrix of the argument at `place`."""
    return lambda _output, *args: share * args[place].numel() * args[place].shape[-1]


def _solved(share: float, matrix: int, sides: int, factoring: float = 0.0) -> Callable[..., float]:
    """`factoring` n^3 for the factors of an n x n matrix, and `share` n^2 for each right-hand side."""

    def count(_output: object, *args: Any) -> float:
        n, right = args[matrix].shape[-1], args[sides]
        columns = right.numel() / n
        return float(factoring * args[matrix].numel() * n + share * n * n * columns)

    return count


def _orthogonal(_output: object, a: Tensor, *_args: object) -> float:
    """QR by Householder reflections: 2 (m n^2 - n^3 / 3) for R, and as much again for Q."""
    rows, columns = max(a.shape[-2:]), min(a.shape[-2:])
    return 4.0 * (rows * columns**2 - columns**3 / 3) * math.prod(a.shape[:-2])


def _attended(query: Tensor, key: Tensor, value: Tensor, *_args: object) -> float:
    """Scores, as wide as queries, and their products with values, which may have another width."""
    return _pairs(query, key) * (query.shape[-1] + value.shape[-1])


def _attended_backward(_gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, *_args: object) -> float:
    """Scores again, gradients of queries and keys; gradients of values and of scores' softmax."""
    return _pairs(query, key) * (3 * query.shape[-1] + 2 * value.shape[-1])


def _pairs(query: Tensor, key: Tensor) -> float:
    """Twice the pairs of a query and a key; masks are not counted, nor is what a causal one leaves out."""
    return 2.0 * math.prod(query.shape[:-1]) * key.shape[-2]


_FORMULAS: dict[str, Callable[..., float]] = {
    **{
        f"aten.{name}": _of_row(0)
        for name in (
            *("mm", "bmm", "_int_mm", "_scaled_mm", "_scaled_mm_v2", "_mixed_dtypes_linear", "_dyn_quant_matmul_4bit"),
            *("_weight_int8pack_mm", "_weight_int4pack_mm", "_weight_int4pack_mm_for_cpu"),
            "_weight_int4pack_mm_with_scales_and_zeros",
        )
    },
    **{f"aten.{name}": _of_row(1) for name in ("addmm", "baddbmm", "addbmm", "_addmm_activation")},
    **{f"aten.{name}": _of_vector(0) for name in ("mv", "dot", "vdot")},
    "aten.addmv": _of_vector(1),
    "aten._grouped_mm": _grouped,
    "aten._scaled_grouped_mm": _grouped,
    "aten._scaled_grouped_mm_v2": _grouped,
    "transformers.grouped_mm_fallback": _grouped,
    "transformers.grouped_mm_fallback_backward": _grouped_backward,
    "aten.convolution": _convolution_forward,
    "aten.convolution_overrideable": _convolution_forward,
    "aten.convolution_backward": _convolution_backward,
    "aten.convolution_backward_overrideable": _convolution_backward,
    "aten.conv_tbc": _convolution_in_time,
    **{f"aten.{name}": _fourier for name in ("_fft_c2c", "_fft_r2c", "_fft_c2r")},
    "aten._trilinear": _trilinear,
    "aten._cdist_forward": _distances,
    "aten._cdist_backward": _distances_backward,
    "aten._euclidean_dist": _distances_by_product,
    "aten._pdist_forward": _distances_within,
    "aten._pdist_backward": _distances_within_backward,
    "aten.linalg_cholesky_ex": _squares(1 / 3),
    "aten.cholesky": _squares(1 / 3),
    "aten.linalg_lu_factor_ex": _squares(2 / 3),
    "aten._linalg_det": _squares(2 / 3),
    "aten._linalg_slogdet": _squares(2 / 3),
    "aten.linalg_inv_ex": _squares(2.0),
    "aten.linalg_solve_triangular": _solved(1.0, 0, 1),
    "aten.triangular_solve": _solved(1.0, 1, 0),
    "aten.cholesky_solve": _solved(2.0, 1, 0),
    "aten.linalg_lu_solve": _solved(2.0, 0, 2),
    "aten._linalg_solve_ex": _solved(2.0, 0, 1, factoring=2 / 3),
    "aten.linalg_qr": _orthogonal,
}
_ATTENTION: dict[str, Callable[..., float]] = {
    f"aten._scaled_dot_product_{name}{suffix}": formula
    for name in ("flash_attention_for_cpu", "flash_attention", "efficient_attention", "cudnn_attention")
    for suffix, formula in (("", _attended), ("_backward", _attended_backward))
}
_LINEAR_BY_NAME = """
arange as_strided_scatter bartlett_window bernoulli blackman_window block_diag cat channel_shuffle _chunk_cat clone
col2im complex constant_pad_nd copy dequantize diag_embed diagonal diagonal_scatter empty empty_like empty_permuted
empty_strided exponential eye fill flip full full_like geometric hamming_window hann_window im2col kaiser_window
linspace log_normal logspace multinomial new_empty new_empty_strided new_full new_ones new_zeros normal
normal_functional ones ones_like _pack_padded_sequence pixel_shuffle pixel_unshuffle poisson rand rand_like randint
randint_like randn randn_like random randperm range reflection_pad1d reflection_pad2d reflection_pad3d repeat
repeat_interleave replication_pad1d replication_pad2d replication_pad3d resize roll rot90 scalar_tensor select
select_scatter set slice slice_scatter stack _stack _to_copy tril tril_indices triu triu_indices unfold uniform
unsafe_split unsafe_split_with_sizes _unsafe_view zero zeros zeros_like
bincount bucketize embedding _embedding_bag _embedding_bag_dense _embedding_bag_forward_only
_embedding_bag_per_sample_weights embedding_dense embedding_renorm gather histc index index_add index_copy index_fill
index_put _index_put_impl index_reduce index_select isin masked_fill masked_scatter masked_select nonzero
nonzero_static put scatter scatter_add scatter_reduce searchsorted segment_reduce take _unsafe_index _unsafe_index_put
_unsafe_masked_index _unsafe_masked_index_put_accumulate
addr allclose aminmax _aminmax cummax _cummax_helper cummin _cummin_helper cumprod cumsum dist elu equal floor_divide
glu hardshrink hardsigmoid hardswish hardtanh kthvalue leaky_relu linalg_cross linalg_vector_norm log_sigmoid
log_sigmoid_forward _log_softmax _logcumsumexp logcumsumexp _masked_scale _masked_softmax median mode nanmedian
native_dropout native_norm polar _prelu_kernel renorm rrelu_with_noise rrelu_with_noise_functional rsub _safe_softmax
_softmax softplus softshrink sort threshold topk trace _unique _unique2 unique_consecutive unique_dim
_weight_norm_interface
_adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_max_pool2d adaptive_max_pool3d affine_grid_generator avg_pool2d
avg_pool3d batch_norm _batch_norm_no_update _batch_norm_with_update _batch_norm_with_update_functional
binary_cross_entropy binary_cross_entropy_with_logits _ctc_loss fractional_max_pool2d fractional_max_pool3d
_fused_rms_norm grid_sampler_2d grid_sampler_3d huber_loss max_pool2d_with_indices max_pool3d_with_indices
max_unpool2d max_unpool3d mse_loss multi_margin_loss multilabel_margin_loss multilabel_margin_loss_forward
native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_functional _native_batch_norm_legit_no_training
native_group_norm native_layer_norm nll_loss nll_loss2d nll_loss2d_forward nll_loss_forward smooth_l1_loss
soft_margin_loss _thnn_fused_gru_cell _thnn_fused_lstm_cell _thnn_fused_lstm_cell_backward_impl upsample_bicubic2d
_upsample_bicubic2d_aa upsample_bilinear2d _upsample_bilinear2d_aa upsample_linear1d upsample_nearest1d
upsample_nearest2d upsample_nearest3d _upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d
upsample_trilinear3d
"""
"""Operators whose work is proportional to the numbers they touch and that torch does not tag so, in five groups: they
make, copy and move; read and write by index; do a few things for each number; normalise, pool, resize; give losses."""
_LINEAR = frozenset(_LINEAR_BY_NAME.split())
