"""Every bug that a reader found, as a test."""

import copy
import gc
import weakref
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from odfa.encode import Ternary
from odfa.engine import DFA, AlignedHead, ElectronicOnly, RandomFeedback, Shallow, fuse_optimizer
from odfa.engine.rules import AbstractRule
from odfa.errors import CheckpointError, MatchError, NonFinite
from odfa.feedback import LowRank
from odfa.project import Gaussian
from tests.engine.problems import gradients, make
from tests.engine.test_handled import X, Y

RULES: list[AbstractRule] = [RandomFeedback(), AlignedHead(rank=1, every=2)]


def mlp(depth: int = 3) -> nn.Sequential:
    torch.manual_seed(0)
    layers = [layer for _ in range(depth) for layer in (nn.Linear(6, 6), nn.Tanh())]
    return nn.Sequential(*layers, nn.Linear(6, 3)).double()


def loss_of(model: Any) -> Tensor:
    return F.cross_entropy(model(X.to(next(model.parameters()).dtype)), Y)


class Net(nn.Module):
    """A plain chain of blocks and a head, with something done between them."""

    def __init__(self, blocks: list[nn.Module], head: nn.Module, between: Any = lambda x: x) -> None:
        super().__init__()
        self.blocks, self.head, self.between = nn.ModuleList(blocks), head, between

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = self.between(block(x))
        return self.head(x)


@pytest.mark.filterwarnings("ignore")
def test_code_compiled_before_attaching_does_not_go_on_without_the_hooks() -> None:
    model = mlp()
    compiled = torch.compile(model, backend="eager")
    loss_of(compiled).backward()
    DFA(model)
    expected = {n: g.clone() for n, g in gradients(model, loss_of).items()}
    model.zero_grad()
    loss_of(compiled).backward()
    for n, p in model.named_parameters():
        torch.testing.assert_close(p.grad, expected[n])


def test_weights_loaded_before_attaching_are_noticed() -> None:
    model = mlp()
    dfa = DFA(model, rule=AlignedHead(rank=0))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loss_of(model).backward()
    optimizer.step()
    weights, state = copy.deepcopy(model.state_dict()), dfa.state_dict()
    wrong = mlp()
    wrong.load_state_dict(weights)
    DFA(wrong, rule=AlignedHead(rank=0)).load_state_dict(state)
    with pytest.raises(CheckpointError, match="load the model's weights after attaching"):
        loss_of(wrong).backward()
    right = mlp()
    DFA(right, rule=AlignedHead(rank=0)).load_state_dict(state)
    right.load_state_dict(weights)
    ours, expected = gradients(right, loss_of), gradients(model, loss_of)
    assert all(torch.equal(ours[n], expected[n]) for n in expected)


def test_measuring_refuses_a_fused_optimiser_and_a_rule_without_feedback() -> None:
    model = mlp()
    dfa = DFA(model)
    fused = fuse_optimizer(model, lambda p: torch.optim.SGD(p, lr=0.1))
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(MatchError, match="fused optimiser"), dfa.measure_alignment():
        loss_of(model).backward()
    assert all(torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values(), strict=True))
    fused.remove()
    dfa.remove()
    dfa = DFA(model, rule=Shallow())
    with pytest.raises(MatchError, match="feeds no block"), dfa.measure_alignment():
        loss_of(model).backward()


def test_measuring_leaves_draws_and_counters_alone() -> None:
    grads = []
    for measured in (False, True):
        model = mlp()
        dfa = DFA(model, encoder=Ternary(seed=1))
        loss_of(model).backward()
        if measured:
            with dfa.measure_alignment():
                loss_of(model).backward()
        grads.append(gradients(model, loss_of))
    assert all(torch.equal(grads[0][n], grads[1][n]) for n in grads[0])


def test_user_hooks_run_once_more_with_a_recomputed_block() -> None:
    grads = []
    for recompute in (False, True):
        model = mlp()
        model[2].register_forward_pre_hook(lambda _m, args: (args[0] * 2,))
        dfa = DFA(model, ["0", "2", "4"], recompute=recompute)
        grads.append(gradients(model, loss_of))
        dfa.remove()
    for n in grads[0]:
        torch.testing.assert_close(grads[0][n], grads[1][n])


@dataclass
class Opaque:
    hidden: Tensor


class Smuggler(nn.Module):
    """Returns its output a second time inside something that is no tuple, list or mapping."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Any:
        h = torch.tanh(self.linear(x))
        return h, Opaque(h)


class Smuggled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block, self.head = Smuggler(), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        h, box = self.block(x)
        return self.head(h + box.hidden)


def test_a_block_whose_output_leaves_by_another_door_is_refused() -> None:
    model = Smuggled().double()
    DFA(model, ["block"])
    with pytest.raises(MatchError, match="another way than being returned"):
        loss_of(model)


def test_a_block_that_returns_nothing_is_refused() -> None:
    class Silent(nn.Module):
        def forward(self, x: Tensor) -> None:
            return None

    class Odd(Net):
        def forward(self, x: Tensor) -> Tensor:
            self.blocks[0](x)
            return self.head(x)

    model = Odd([Silent()], nn.Linear(6, 3)).double()
    DFA(model, "blocks.*", error_at="head")
    with pytest.raises(MatchError, match="returned NoneType"):
        model(X)


def test_a_head_that_does_not_read_the_last_block_is_refused_in_residual_wiring() -> None:
    class Early(Net):
        def forward(self, x: Tensor) -> Tensor:
            early = self.blocks[1](self.blocks[0](x))
            self.blocks[2](early)
            return self.head(early)

    model = Early([nn.Linear(6, 6) for _ in range(3)], nn.Linear(6, 3)).double()
    DFA(model, "blocks.*", rule=AlignedHead(rank=0), error_at="head")
    with pytest.raises(MatchError, match="does not read what the last block returns"):
        model(X)


class EncoderDecoder(nn.Module):
    """Two stacks of tokens; only the decoder's are the error's."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.ModuleList([nn.Linear(6, 6)]), nn.ModuleList([nn.Linear(6, 6)])
        self.head = nn.Linear(6, 3)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        memory = self.encoder[0](source).mean(1, keepdim=True)
        return self.head(self.decoder[0](target + memory))


def test_how_a_block_is_fed_does_not_change_with_the_length_of_a_batch() -> None:
    long, short = torch.randn(2, 5, 6), torch.randn(2, 4, 6)
    model = EncoderDecoder()
    dfa = DFA(model, ["encoder.*", "decoder.*"])
    model(long, short).sum().backward()  # other lengths: the encoder is fed per sample …
    seen = []
    taken = dfa.at_work.signals
    dfa.at_work.signals = lambda *a: seen.extend(taken(*a)) or seen  # type: ignore[method-assign, func-returns-value]
    model(short, short).sum().backward()  # … and stays so where lengths happen to agree
    assert torch.equal(seen[0][:, 0], seen[0][:, 1])
    dfa.remove()
    DFA(model, ["encoder.*", "decoder.*"])
    model(short, short).sum().backward()
    with pytest.raises(MatchError, match=r"per_sample=\['encoder.0'\]"):
        model(long, short).sum().backward()
    DFA.of(model).remove()
    DFA(model, ["encoder.*", "decoder.*"], rule=RandomFeedback(per_sample=("encoder.*",)))
    model(short, short).sum().backward()
    model(long, short).sum().backward()


def test_a_loss_is_no_place_to_read_an_error() -> None:
    model, problem = make("gpt2")
    DFA(model, problem.blocks, error_at="output")
    with pytest.raises(MatchError, match="a loss and not an output"):
        problem.loss(model)


def test_the_correction_follows_a_replaced_head_weight() -> None:
    model = mlp()
    dfa = DFA(model, rule=AlignedHead(rank=1, every=1))
    loss_of(model).backward()
    state = {n: v + 0.1 * torch.randn_like(v) for n, v in model.state_dict().items()}
    model.load_state_dict(state, assign=True)
    loss_of(model).backward()
    assert dfa.at_work.low_rank.u_Dr.norm() > 0.01  # type: ignore[attr-defined]


def test_refits_leave_torchs_random_state_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object) -> None:
        raise AssertionError("torch was reseeded")

    model = mlp()
    DFA(model, rule=ElectronicOnly(rank=1, every=1))
    before = torch.get_rng_state()
    monkeypatch.setattr(torch, "manual_seed", forbidden)
    loss_of(model).backward()
    assert torch.equal(torch.get_rng_state(), before)


def test_second_derivatives_are_refused() -> None:
    model = mlp()
    DFA(model)
    x = X.clone().requires_grad_()
    with pytest.raises(MatchError, match="second derivative"):
        torch.autograd.grad(model(x).sum(), x, create_graph=True)


@pytest.mark.parametrize("rule", RULES, ids=lambda r: r.kind)
def test_a_second_backward_gives_the_same_gradients_again(rule: AbstractRule) -> None:
    model = mlp()
    DFA(model, rule=rule)
    once = {n: g.clone() for n, g in gradients(model, loss_of).items()}
    model.zero_grad()
    loss = loss_of(model)
    loss.backward(retain_graph=True)
    model.zero_grad()
    loss.backward()
    if rule.kind == "random":
        assert all(torch.equal(p.grad, once[n]) for n, p in model.named_parameters())
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("rule", [*RULES, ElectronicOnly(rank=1, every=2)], ids=lambda r: r.kind)
def test_half_precision_weights_over_refits(rule: AbstractRule, dtype: torch.dtype) -> None:
    model = mlp().to(dtype)
    DFA(model, rule=rule)
    for _ in range(5):
        assert all(g.isfinite().all() and g.dtype == dtype for g in gradients(model, loss_of).values())


@pytest.mark.parametrize("between", [torch.relu_, lambda x: x.add_(1.0)], ids=["relu_", "add_"])
def test_in_place_operations_between_blocks(between: Any) -> None:
    torch.manual_seed(0)
    model = Net([nn.Linear(6, 6) for _ in range(3)], nn.Linear(6, 3), between).double()
    dfa = DFA(model, "blocks.*", error_at="head")
    local = gradients(model, loss_of)
    with dfa.measure_alignment() as angles:
        loss_of(model).backward()
    expected = torch.cat([local["blocks.1.bias"], local["blocks.1.weight"].flatten()]).norm().item()
    assert angles.norms["blocks.1"][0] == pytest.approx(expected)
    images = Net([nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)], nn.Flatten(), nn.ReLU(inplace=True))
    images.to(memory_format=torch.channels_last)
    DFA(images, "blocks.*", error_at="output")
    images(torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)).square().sum().backward()


def test_states_that_do_not_fit_are_refused_and_change_nothing() -> None:
    states = {}
    for rule in (RandomFeedback(), AlignedHead(rank=1), ElectronicOnly(rank=1), Shallow()):
        model = mlp()
        dfa = DFA(model, rule=rule)
        loss_of(model).backward()
        states[rule.kind] = dfa.state_dict()
    model = mlp()
    dfa = DFA(model)
    loss_of(model).backward()
    before = dfa.state_dict()
    deeper = mlp(5)
    other = DFA(deeper)
    loss_of(deeper).backward()
    reseeded = copy.deepcopy(before)
    reseeded["identity"] = reseeded["identity"].replace("seed=0", "seed=1")
    wrong = [states["aligned"], states["electronic"], states["shallow"], other.state_dict(), reseeded, {}]
    for state in wrong:
        with pytest.raises(CheckpointError):
            dfa.load_state_dict(state)
        assert dfa.state_dict() == before


def test_a_model_that_calls_itself_without_gradient_inside_its_forward() -> None:
    class Conditioned(Net):
        depth = 0

        def forward(self, x: Tensor) -> Tensor:
            if self.depth == 0:
                self.depth = 1
                with torch.no_grad():
                    x = x + self(x).mean()
                self.depth = 0
            return super().forward(x)

    model = Conditioned([nn.Linear(6, 6), nn.Linear(6, 6)], nn.Linear(6, 3)).double()
    DFA(model, "blocks.*", error_at="head")
    assert all(g.any() for g in gradients(model, loss_of).values())


def test_an_interrupted_forward_leaves_no_open_recomputation() -> None:
    model = mlp()
    DFA(model, recompute=True)
    expected = gradients(model, loss_of)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    hook = model[3].register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        model(X)
    hook.remove()
    ours = gradients(model, loss_of)
    assert all(torch.equal(ours[n], expected[n]) for n in expected)
    plain = nn.Linear(6, 6).double()
    plain(X).tanh().sum().backward()  # an unrelated model is not caught in it either


def test_the_order_of_a_list_of_blocks_is_kept() -> None:
    class Crossed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.second, self.first, self.head = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.second(self.first(x)))

    model = Crossed().double()
    with pytest.raises(MatchError, match="running order"):
        _attach(model, [model.second, model.first])
    DFA.of(model).remove()
    _attach(model, [model.first, model.second])


def _attach(model: nn.Module, blocks: list[nn.Module]) -> None:
    DFA(model, blocks, rule=AlignedHead(rank=0))
    loss_of(model).backward()


@pytest.mark.parametrize("rule", RULES, ids=lambda r: r.kind)
def test_forwards_without_backward_do_not_wait_for_the_garbage_collector(rule: AbstractRule) -> None:
    model = mlp()
    DFA(model, rule=rule)
    alive = []
    hook = model[1].register_forward_hook(lambda _m, _a, out: alive.append(weakref.ref(out)))
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            loss_of(model)
        assert [ref() for ref in alive] == [None] * 3
    finally:
        gc.enable()
        hook.remove()


def test_the_table_follows_what_is_trained() -> None:
    model = mlp()
    model[2].requires_grad_(False)
    dfa = DFA(model)
    loss_of(model).backward()
    assert "frozen: 2.bias, 2.weight" in repr(dfa)
    model[2].requires_grad_(True)
    loss_of(model).backward()
    assert "frozen" not in repr(dfa)
    assert "no gradient" not in repr(dfa)


def test_reentrant_checkpointing_hides_the_graph_and_the_table_does_not_guess() -> None:
    model, problem = make("gpt2")
    model.config.use_cache = False
    model.activation_checkpointing_enable({"use_reentrant": True})
    dfa = DFA(model, problem.blocks)
    problem.loss(model).backward()
    assert "no gradient" not in repr(dfa)
    assert all("  0  local" not in line for line in repr(dfa).splitlines())


def test_errors_of_zero_everywhere_give_zero_gradients() -> None:
    model, problem = make("gpt2")
    dfa = DFA(model, problem.blocks, projection=Gaussian(seed=0))
    ids = torch.tensor([[1, 2, 3]])
    model(input_ids=ids, labels=torch.full_like(ids, -100)).logits.mul(0).sum().backward()
    assert dfa.last is not None
    assert not any(p.grad is not None and p.grad.any() for p in model.parameters())


def test_a_correction_that_overflows_is_named() -> None:
    matrix = torch.full((5, 4), 1e38)
    fits, overflows = LowRank(2), LowRank(2)
    fits.fit(matrix / 1e20, 1)
    assert torch.allclose(fits(torch.ones(1, 5)), torch.full((1, 4), 5e18))
    with pytest.raises(NonFinite, match="has drifted so far that its correction overflows; lower the learning rate"):
        overflows.fit(matrix, 1)
    assert overflows(torch.ones(1, 5)) is None
