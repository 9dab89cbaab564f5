"""Hops of credit: between one signal for all blocks and backpropagation."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp
from torch.nn.functional import cross_entropy, scaled_dot_product_attention

from odfa import DFA, AlignedHead, ElectronicOnly, ExactHead, Gaussian, Ternary
from odfa.errors import ConfigError, MatchError

WIDTH, CLASSES, DEPTH, BATCH, TOKENS = 12, 9, 4, 3, 5


class Block(nn.Module):
    """Pre-norm attention and a perceptron, as in a GPT; tokens see earlier tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x_BTC: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm_1(x_BTC)).chunk(3, -1)
        x_BTC = x_BTC + self.out(scaled_dot_product_attention(q, k, v, is_causal=True))
        return x_BTC + self.down(torch.tanh(self.up(self.norm_2(x_BTC))))


class Branch(Block):
    """The same without the stream: what the block adds to it."""

    def forward(self, x_BTC: Tensor) -> Tensor:
        return super().forward(x_BTC) - x_BTC


class Gpt(nn.Module):
    """Embedding, blocks, norm, head; `outside`: the residual is added around each block."""

    def __init__(self, *, outside: bool = False, depth: int = DEPTH, shared: bool = False) -> None:
        super().__init__()
        self.embedding = nn.Embedding(CLASSES, WIDTH)
        kind = Branch if outside else Block
        one = kind()
        self.blocks = nn.ModuleList([one if shared else kind() for _ in range(depth)])
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, CLASSES, bias=False)
        self.outside = outside

    def forward(self, x_BT: Tensor) -> Tensor:
        h_BTC = self.embedding(x_BT)
        for block in self.blocks:
            h_BTC = h_BTC + block(h_BTC) if self.outside else block(h_BTC)
        logits_BTV: Tensor = self.head(self.norm(h_BTC))
        return logits_BTV


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    x_BT = torch.randint(CLASSES, (BATCH, TOKENS), generator=generator)
    return x_BT, torch.randint(CLASSES, (BATCH, TOKENS), generator=generator)


def _model(**changes: bool | int) -> Gpt:
    torch.manual_seed(2)
    return Gpt(**changes).double()  # type: ignore[arg-type]


def _loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    x_BT, y_BT = batch
    return cross_entropy(model(x_BT).flatten(0, 1), y_BT.flatten())


def _gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def _learned(
    model: Gpt, batch: tuple[Tensor, Tensor], rule: ExactHead, *, passes: int = 2, **settings: object
) -> dict[str, Tensor]:
    """Gradients of the second pass: the first one is traced, and later ones are not."""
    dfa = DFA(model, blocks="blocks.*", rule=rule, projection=Gaussian(seed=1), error_at="head", **settings)  # type: ignore[arg-type]
    for _ in range(passes):
        model.zero_grad()
        _loss(model, batch).backward()
    found = _gradients(model)
    dfa.remove()
    return found


def _backpropagated(model: Gpt, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    model.zero_grad()
    _loss(model, batch).backward()
    return _gradients(model)


def _equal(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float = 1e-10) -> None:
    assert found.keys() == expected.keys()
    for name, grad in expected.items():
        torch.testing.assert_close(found[name], grad, rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}")


EXECUTIONS = [False, True, "stream"]


@pytest.mark.parametrize("outside", [False, True])
@pytest.mark.parametrize("recompute", EXECUTIONS)
@pytest.mark.parametrize("passes", [1, 2])
def test_as_many_hops_as_blocks_are_backpropagation(batch, recompute, outside, passes):
    model = _model(outside=outside)
    if outside and recompute == "stream":  # refused with and without hops
        with pytest.raises(MatchError, match="make the residual a part of the blocks"):
            _learned(model, batch, ExactHead(hops=DEPTH), recompute=recompute, passes=passes)
        return
    found = _learned(model, batch, ExactHead(hops=DEPTH), recompute=recompute, passes=passes)
    _equal(found, _backpropagated(model, batch))


@pytest.mark.parametrize("recompute", EXECUTIONS)
@pytest.mark.parametrize("hops", [0, 1, 2])
def test_hops_element_by_element(batch, recompute, hops):
    model = _model()
    found = _learned(model, batch, ExactHead(hops=hops), recompute=recompute)
    _equal(found, _reference(model, batch, hops))


def _inputs(model: Gpt, x_BT: Tensor) -> list[Tensor]:
    """What each block receives, and what the norm does."""
    inputs = [model.embedding(x_BT).detach()]
    for block in model.blocks:
        inputs.append(block(inputs[-1]).detach())
    return inputs


def _signals(model: Gpt, batch: tuple[Tensor, Tensor], hops: int) -> list[Tensor]:
    """d_l = q + sum over k > l of F_k'^T d_k of one order less, written out with Jacobian products of each F_k."""
    x_BT, y_BT = batch
    inputs = _inputs(model, x_BT)
    top = inputs[-1].clone().requires_grad_()
    loss = cross_entropy(model.head(model.norm(top)).flatten(0, 1), y_BT.flatten())
    (q,) = torch.autograd.grad(loss, top)
    signals = [q] * DEPTH
    for _ in range(hops):
        adds = [
            vjp(lambda x, b=b: b(x) - x, x)[1](d)[0] for b, x, d in zip(model.blocks, inputs[:-1], signals, strict=True)
        ]
        signals = [q + sum(adds[k] for k in range(place + 1, DEPTH)) for place in range(DEPTH)]
    return signals


def _reference(model: Gpt, batch: tuple[Tensor, Tensor], hops: int) -> dict[str, Tensor]:
    """Gradients of all weights from these signals; the first block hands what its input gets to the embedding."""
    x_BT, _ = batch
    inputs, signals = _inputs(model, x_BT), _signals(model, batch, hops)
    found = _backpropagated(model, batch)  # of the head and the norm in front of it
    for place, (block, x, d) in enumerate(zip(model.blocks, inputs[:-1], signals, strict=True)):
        own = dict(block.named_parameters())
        _, pull = vjp(lambda p, x, b=block: functional_call(b, p, (x,)), own, x)
        gradients, at_input = pull(d)
        found |= {f"blocks.{place}.{name}": grad.detach() for name, grad in gradients.items()}
        if place == 0:
            rows = torch.zeros_like(model.embedding.weight).detach()
            found["embedding.weight"] = rows.index_add(0, x_BT.flatten(), at_input.detach().flatten(0, 1))
    return found


@pytest.mark.parametrize("recompute", EXECUTIONS)
def test_sublayers_learn_by_themselves_and_hops_cross_whole_blocks(batch, recompute):
    """The MLP's branch gives no gradient to the attention of its block, while hops go through both."""
    model = _model()
    found = _learned(model, batch, ExactHead(hops=1), recompute=recompute, branches="blocks.*.norm_2")
    whole = _reference(model, batch, hops=1)
    for name in whole:
        attends = any(f".{part}." in name for part in ("norm_1", "qkv", "out")) or name.startswith("embedding")
        assert torch.allclose(found[name], whole[name], rtol=1e-9, atol=1e-12) is not attends, name
    signals = _signals(model, batch, hops=1)
    for place, d_BTC in enumerate(signals):
        torch.testing.assert_close(found[f"blocks.{place}.out.bias"], d_BTC.sum((0, 1)))


@pytest.mark.parametrize("make", [AlignedHead, ElectronicOnly], ids=["aligned", "electronic"])
@pytest.mark.parametrize("recompute", EXECUTIONS)
def test_other_rules_of_the_head_hop_too(batch, make, recompute):
    """The signal is another one, and the hops are linear in it: all blocks at once as element by element."""
    model = _model()
    kept = {r: _learned(copy.deepcopy(model), batch, make(hops=1, rank=2), recompute=r) for r in (False, recompute)}
    _equal(kept[recompute], kept[False])
    none = _learned(copy.deepcopy(model), batch, make(rank=2))
    moved = {name for name, grad in none.items() if not torch.allclose(grad, kept[False][name])}
    assert {name.split(".")[1] for name in moved if name.startswith("blocks.")} == {"0", "1", "2"}
    assert "embedding.weight" in moved


def test_through_ternary_codes(batch):
    model = _model()
    dfa = DFA(
        model,
        blocks="blocks.*",
        rule=AlignedHead(hops=1, rank=2),
        projection=Gaussian(seed=1),
        encoder=Ternary(),
        error_at="head",
    )
    _loss(model, batch).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert "1 hop of credit" in dfa.rule.electronic("x", num_outputs=CLASSES, width=WIDTH)


@pytest.mark.parametrize("recompute", EXECUTIONS)
def test_a_signal_of_zero_is_zero_everywhere(batch, recompute):
    x_BT, y_BT = batch
    ignored = torch.full_like(y_BT, -100)
    ignored[0, 0] = y_BT[0, 0]  # one token of the first sample counts; the other samples have no error
    model = _model()
    dfa = DFA(
        model,
        blocks="blocks.*",
        rule=ExactHead(hops=2),
        projection=Gaussian(seed=1),
        error_at="head",
        recompute=recompute,
    )
    h_BTC: list[Tensor] = []
    model.embedding.register_forward_hook(lambda _m, _i, out: out.retain_grad() or h_BTC.append(out))
    _loss(model, (x_BT, ignored)).backward()
    at_first = h_BTC[-1].grad
    if at_first is not None:
        assert at_first[0].any()
        assert not at_first[1:].any()
    dfa.remove()


@pytest.mark.parametrize("recompute", EXECUTIONS)
def test_gradients_accumulate(batch, recompute):
    model = _model()
    dfa = DFA(
        model,
        blocks="blocks.*",
        rule=ExactHead(hops=1),
        projection=Gaussian(seed=1),
        error_at="head",
        recompute=recompute,
    )
    _loss(model, batch).backward()
    once = _gradients(model)
    _loss(model, batch).backward()
    _equal(_gradients(model), {name: 2 * grad for name, grad in once.items()})
    dfa.remove()


def test_the_measured_angle_is_that_of_the_hops(batch):
    angles: dict[int, list[float]] = {}
    for hops in (0, 1, DEPTH):
        model = _model()
        dfa = DFA(model, blocks="blocks.*", rule=ExactHead(hops=hops), projection=Gaussian(seed=1), error_at="head")
        for _ in range(2):
            with dfa.measure_alignment() as alignment:
                _loss(model, batch).backward()
        angles[hops] = list(alignment.values())
        dfa.remove()
    assert angles[DEPTH] == pytest.approx([1.0] * DEPTH)
    assert angles[0][0] < angles[1][0] < 1 - 1e-9


def test_blocks_that_are_called_again_hop(batch):
    """One block in all places, as in ALBERT: its weight gradients are those of all calls."""
    model = _model(shared=True)
    found = _learned(model, batch, ExactHead(hops=DEPTH))
    _equal(found, _backpropagated(model, batch))


def test_no_gradient_stays_between_blocks(batch):
    """What hops ask of the blocks' inputs is not stored anywhere, and `.grad` of nothing but parameters is filled."""
    model = _model()
    handed: list[Tensor] = []
    dfa = DFA(model, blocks="blocks.*", rule=ExactHead(hops=1), projection=Gaussian(seed=1), error_at="head")
    _loss(model, batch).backward()
    model.blocks[1].register_forward_pre_hook(lambda _m, args: handed.append(args[0]))
    _loss(model, batch).backward()
    assert handed[0].requires_grad
    assert all(node[0] is None or _leaf_grad(node[0]) is None for node in handed[0].grad_fn.next_functions)
    dfa.remove()


def _leaf_grad(node: object) -> Tensor | None:
    variable = getattr(node, "variable", None)
    return None if variable is None else variable.grad


def test_the_status_says_what_a_hop_takes(batch):
    model = _model()
    dfa = DFA(model, blocks="blocks.*", rule=AlignedHead(hops=2, rank=2), projection=Gaussian(seed=1), error_at="head")
    _loss(model, batch).backward()
    size = sum(p.numel() for block in list(model.blocks)[1:] for p in block.parameters())
    told = f"hops of credit: 2, electronic; each takes the gradients at the inputs of 3 blocks with {size:,} parameters"
    assert told in str(dfa).splitlines()
    dfa.remove()
    none = DFA(_model(), blocks="blocks.*", rule=AlignedHead(rank=2), projection=Gaussian(seed=1), error_at="head")
    assert "hops" not in str(none)


def test_feedback_of_layers_is_refused_with_hops(batch):
    with pytest.raises(ConfigError, match="expected hops=0 or no linears="):
        _learned(_model(), batch, ExactHead(hops=1), linears="blocks.*.down")


@pytest.mark.parametrize(("hops", "told"), [(-1, "0 to")])
def test_hops_are_counted(hops, told):
    with pytest.raises(ConfigError, match=told):
        ExactHead(hops=hops)


def test_checkpoints_inside_a_block_are_refused_where_torch_cannot_hop_over_them(batch):
    from torch.utils.checkpoint import checkpoint

    model = _model()
    for block in model.blocks:
        block.forward = lambda x, call=block.forward: checkpoint(call, x, use_reentrant=True)
    DFA(model, blocks="blocks.*", rule=ExactHead(hops=1), projection=Gaussian(seed=1), error_at="head")
    with pytest.raises(MatchError, match="use_reentrant=False"):
        _loss(model, batch).backward()
    found = _model()
    for block in found.blocks:
        block.forward = lambda x, call=block.forward: checkpoint(call, x, use_reentrant=False)
    learned = _learned(found, batch, ExactHead(hops=DEPTH))
    _equal(learned, _backpropagated(found, batch))


def test_blocks_inside_reentrant_checkpoints_are_refused(batch):
    from torch.utils.checkpoint import checkpoint

    model = _model()

    def forward(x_BT: Tensor) -> Tensor:
        h_BTC = model.embedding(x_BT)
        for block in model.blocks:
            h_BTC = checkpoint(block, h_BTC, use_reentrant=True)
        return model.head(model.norm(h_BTC))

    model.forward = forward
    DFA(model, blocks="blocks.*", rule=ExactHead(hops=1), projection=Gaussian(seed=1), error_at="head")
    with pytest.raises(MatchError, match="use_reentrant=False"):
        _loss(model, batch).backward()
