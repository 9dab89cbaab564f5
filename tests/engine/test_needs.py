"""What a rule may need beside the error: targets, block inputs and outputs, the optimiser's step."""

import copy
import gc
import re
import weakref
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.optimizer import _global_optimizer_post_hooks
from torch.utils.checkpoint import checkpoint

from odfa.engine import DFA, fuse_optimizer
from odfa.engine.rules import AbstractRule, RandomFeedback
from odfa.errors import ConfigError, MatchError
from odfa.project import Gaussian
from tests.engine.outside_rules import Drtp, Fading, KolenPollack, Normalised
from tests.engine.rule_laws import BATCH, CLASSES, RATE, batches, check_formula, check_survives, net, train

RULES = (Drtp(), Normalised(), KolenPollack(), Fading())


class Naive:
    """The same network and rules, written out: matrices, no autograd, no engine."""

    def __init__(self, rule: AbstractRule) -> None:
        self.rule, model = rule, net()
        layers: list[Any] = [model[0][0], model[1][0], model[2]]
        self.w = [layer.weight.detach().clone() for layer in layers]
        self.b = [layer.bias.detach().clone() for layer in layers]
        whole = Gaussian(seed=2).shaped(CLASSES, 8 + 6).project(torch.eye(CLASSES, dtype=torch.float64))
        self.feedback = [whole[:, :8] / 8**0.5, whole[:, 8:] / 6**0.5]
        self.t = 0

    def step(self, x: Tensor, y: Tensor) -> None:
        h = [x]
        for w, b in zip(self.w[:2], self.b[:2], strict=True):
            h.append(torch.tanh(h[-1] @ w.T + b))
        e = (torch.softmax(h[2] @ self.w[2].T + self.b[2], 1) - F.one_hot(y, CLASSES).double()) / BATCH
        delta = [self.signal(block, e, y, h) * (1 - h[block + 1] ** 2) for block in range(2)] + [e]
        if isinstance(self.rule, KolenPollack):
            for block in range(2):
                self.feedback[block] = (1 - self.rule.decay) * self.feedback[block] - self.rule.rate * e.T @ h[
                    block + 1
                ]
        for layer in range(3):
            self.w[layer] = self.w[layer] - RATE * delta[layer].T @ h[layer]
            self.b[layer] = self.b[layer] - RATE * delta[layer].sum(0)
        self.t += 1

    def signal(self, block: int, e: Tensor, y: Tensor, h: list[Tensor]) -> Tensor:
        if isinstance(self.rule, Drtp):
            return self.rule.strength / BATCH * F.one_hot(y, CLASSES).double() @ self.feedback[block]
        signal = e @ self.feedback[block]
        if isinstance(self.rule, Normalised):
            return signal / (1 + (h[block] ** 2).mean(1, keepdim=True))
        return 0.5**self.t * signal if isinstance(self.rule, Fading) else signal


@pytest.mark.parametrize("recompute", [False, True, "stream"])
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_every_weight_is_what_the_formula_gives(rule: AbstractRule, recompute: Any) -> None:
    model, naive = net(), Naive(rule)
    if recompute == "stream" and rule.needs & {"block input", "block output"}:
        with pytest.raises(ConfigError, match=r"needs every block .* keeps none of them; expected recompute=True"):
            DFA(model, rule=rule, recompute=recompute)
        assert DFA.of(model) is None
        return
    check_formula(DFA(model, rule=rule, projection=Gaussian(seed=2), recompute=recompute), naive)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_learned_state_survives(rule: AbstractRule) -> None:
    check_survives(rule)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_measuring_leaves_no_trace(rule: AbstractRule) -> None:
    plain, measured = net(), net()
    train(DFA(plain, rule=rule, projection=Gaussian(seed=2)))
    dfa = DFA(measured, rule=rule, projection=Gaussian(seed=2))
    for skip in range(4):
        train(dfa, skip + 1, skip=skip)
        x, y = next(batches(1))
        with dfa.measure_alignment() as angles:
            dfa.targets(y)
            F.cross_entropy(measured(x), y).backward()
        assert set(angles) == {"0", "1"}
        torch.optim.SGD(measured.parameters(), lr=0.0).step()  # of no backward pass that learned
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), measured.parameters(), strict=True))


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("rule", [Drtp(), Normalised(), KolenPollack()], ids=lambda rule: rule.name)
def test_inside_activation_checkpoints(rule: AbstractRule, reentrant: bool) -> None:
    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.way, self.layers = nn.Linear(5, 5).double(), net()
            with torch.no_grad():
                self.way.weight.copy_(torch.eye(5))
                self.way.bias.zero_()

        def forward(self, x: Tensor) -> Tensor:
            h = self.way(x)
            for block in self.layers[:2]:
                h = checkpoint(block, h, use_reentrant=reentrant)
            return self.layers[2](h)  # type: ignore[no-any-return]

    naive, model = Naive(rule), Checkpointed()
    dfa = DFA(model, ["layers.0", "layers.1"], rule=rule, projection=Gaussian(seed=2))
    x, y = next(batches(1))
    naive.step(x, y)
    dfa.targets(y)
    F.cross_entropy(model(x), y).backward()
    torch.optim.SGD(model.layers.parameters(), lr=RATE).step()
    for layer, module in enumerate([model.layers[0][0], model.layers[1][0], model.layers[2]]):  # type: ignore[index]
        assert torch.allclose(module.weight, naive.w[layer], rtol=1e-12, atol=1e-15)


# targets


def test_targets_belong_to_one_forward_pass() -> None:
    """Two forward passes before one backward pass: each learns from its own."""
    together, apart = net(), net()
    (x1, y1), (x2, y2) = batches(2)
    dfa = DFA(together, rule=Drtp())
    dfa.targets(y1)
    first = F.cross_entropy(together(x1), y1)
    with torch.no_grad():
        together(x2)  # learns nothing and takes none
    dfa.targets(y2)
    (first + F.cross_entropy(together(x2), y2)).backward()
    dfa = DFA(apart, rule=Drtp())
    for x, y in ((x1, y1), (x2, y2)):
        dfa.targets(y)
        F.cross_entropy(apart(x), y).backward()
    for a, b in zip(together.parameters(), apart.parameters(), strict=True):
        assert a.grad is not None
        assert b.grad is not None
        assert torch.allclose(a.grad, b.grad, rtol=1e-12, atol=1e-16)


def test_targets_that_nobody_gave_are_asked_for() -> None:
    model = net()
    dfa = DFA(model, rule=Drtp())
    x, y = next(batches(1))
    with pytest.raises(MatchError, match=r"rule Drtp needs the targets .*, got none; call dfa.targets"):
        F.cross_entropy(model(x), y).backward()
    dfa.targets(y)
    F.cross_entropy(model(x), y).backward()
    with pytest.raises(MatchError, match="got none"):  # used up
        F.cross_entropy(model(x), y).backward()


def test_targets_of_other_samples_are_refused() -> None:
    model = net()
    dfa = DFA(model, rule=Drtp())
    x, y = next(batches(1))
    dfa.targets(y[:4])
    with pytest.raises(MatchError, match=r"targets: expected \(7,\) as their first axes, .* got shape \(4,\)"):
        F.cross_entropy(model(x), y).backward()
    with pytest.raises(ConfigError, match="targets: expected"):
        dfa.targets([0, 1])  # type: ignore[arg-type]


def gradients(rule: AbstractRule, y: Tensor, *given: Tensor, spoil: Any = None) -> list[Tensor | None]:
    """Of one pass that was handed `given`, one after another; `spoil` is called between forward and backward."""
    model = net()
    dfa = DFA(model, rule=rule)
    x, _ = next(batches(1))
    for targets in given:
        dfa.targets(targets)
    loss = F.cross_entropy(model(x), y.clone())
    if spoil is not None:
        spoil()
    loss.backward()
    return [p.grad for p in model.parameters()]


def same(ours: list[Tensor | None], theirs: list[Tensor | None]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))  # type: ignore[arg-type]


def test_a_buffer_may_be_filled_anew_before_backward() -> None:
    """By an operation of torch, or through NumPy's view, which no version counter sees."""
    _, y = next(batches(1))
    right = gradients(Drtp(), y, y)
    buffers = [y.clone(), y.clone()]
    assert same(right, gradients(Drtp(), y, buffers[0], spoil=buffers[0].zero_))
    assert same(right, gradients(Drtp(), y, buffers[1], spoil=lambda: buffers[1].numpy().fill(0)))
    with torch.inference_mode():
        inferred = y.clone()
    assert same(right, gradients(Drtp(), y, inferred))
    assert not same(right, gradients(Drtp(), y, torch.zeros_like(y)))


def test_targets_are_replaced_until_the_forward_pass_takes_them() -> None:
    """A batch may be skipped. Handed over in advance for two passes, the second pass has none and says so."""
    (_, y), (_, other) = batches(2)
    assert same(gradients(Drtp(), y, y), gradients(Drtp(), y, other[:3], y))
    model = net()
    dfa = DFA(model, rule=Drtp())
    for _, ahead in batches(2):
        dfa.targets(ahead)
    first, second = (F.cross_entropy(model(x), y) for x, y in batches(2))
    with pytest.raises(MatchError, match=r"got none; .* once for each forward pass"):
        (first + second).backward()
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("shape", [(), (0,), (8,), (1, 7)])
def test_targets_of_another_length_tell_both_shapes(shape: tuple[int, ...]) -> None:
    _, y = next(batches(1))
    with pytest.raises(MatchError, match=rf"targets: expected \(7,\) .* got shape {re.escape(str(shape))}; hand over"):
        gradients(Drtp(), y, torch.zeros(shape, dtype=torch.long))


def test_a_rule_that_needs_no_targets_does_not_look_at_them() -> None:
    models = [net(), net()]
    x, y = next(batches(1))
    for model, given in zip(models, (y, y[:2]), strict=True):
        dfa = DFA(model, rule=RandomFeedback())
        dfa.targets(given)
        F.cross_entropy(model(x), y).backward()
    ours, theirs = ([p.grad for p in model.parameters()] for model in models)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))  # type: ignore[arg-type]


def test_targets_of_tokens_are_rows() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.embed, self.blocks = nn.Embedding(9, 4), nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
            self.head = nn.Linear(4, 9)

        def forward(self, ids: Tensor) -> Tensor:
            h = self.embed(ids)
            for block in self.blocks:
                h = torch.tanh(block(h))
            return self.head(h)  # type: ignore[no-any-return]

    seen: list[tuple[int, ...]] = []
    model = Tokens()
    dfa = DFA(model, rule=Drtp())
    signals = dfa.at_work.signals

    def watched(error: Any, calls: Any) -> list[Tensor]:
        error.check()
        seen.append(tuple(error.targets.shape))
        return signals(error, calls)

    dfa.at_work.signals = watched  # type: ignore[method-assign]
    ids = torch.randint(0, 9, (2, 5), generator=torch.Generator().manual_seed(0))
    dfa.targets(ids)
    F.cross_entropy(model(ids).flatten(0, 1), ids.flatten()).backward()
    assert seen == [(10,)]


# block inputs and outputs


def test_what_the_rule_does_not_need_is_not_kept() -> None:
    model = net()
    dfa = DFA(model, rule=RandomFeedback())
    calls: list[Any] = []
    signals = dfa.at_work.signals
    dfa.at_work.signals = lambda error, given: calls.extend(given) or signals(error, given)  # type: ignore[func-returns-value, method-assign]
    x, y = next(batches(1))
    F.cross_entropy(model(x), y).backward()
    assert [(call.kept_input, call.kept_output) for call in calls] == [(None, None)] * 2
    with pytest.raises(ConfigError, match=r"input of block 0 was not kept; write .*\{'block input'\}"):
        _ = calls[0].input
    with pytest.raises(ConfigError, match="output of block 0 was not kept"):
        _ = calls[0].output


def test_tokens_are_an_input_too() -> None:
    model = nn.Sequential(nn.Sequential(nn.Embedding(9, 4), nn.Flatten()), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3))
    DFA(model, ["0", "1"], rule=Normalised())
    model(torch.tensor([[1, 2], [3, 4]])).square().mean().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_a_block_without_a_tensor_is_refused() -> None:
    class Start(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(2, 4))

        def forward(self) -> Tensor:
            return self.weight * 2

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.start, self.head = Start(), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.start() + 0 * x)  # type: ignore[no-any-return]

    model = Model()
    DFA(model, ["start"], rule=Normalised())
    with pytest.raises(MatchError, match="block start received no tensor, and the rule needs its input"):
        model(torch.zeros(2, 1))


def test_an_input_that_was_changed_in_place_is_refused() -> None:
    model = nn.Sequential(nn.Sequential(nn.ReLU(inplace=True), nn.Linear(5, 4)), nn.Linear(4, 3))
    DFA(model, ["0"], rule=Normalised())
    with pytest.raises(MatchError, match=r"input of block 0 was changed in place .* leave out inplace=True"):
        model(torch.randn(2, 5)).square().mean().backward()


# the optimiser's step


def steps_of(dfa: DFA) -> int:
    return int(dfa.state_dict()["feedback"]["steps"])


def backward(model: nn.Module, scale: float = 1.0) -> None:
    x, y = next(batches(1))
    (scale * F.cross_entropy(model(x), y)).backward()


def test_accumulated_gradients_are_one_step() -> None:
    model = net()
    dfa = DFA(model, rule=Fading())
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    for _ in range(3):
        backward(model)
    assert steps_of(dfa) == 0
    optimizer.step()
    optimizer.step()  # without a backward pass
    assert steps_of(dfa) == 1


def test_a_state_that_is_loaded_has_no_step_due() -> None:
    model = net()
    dfa = DFA(model, rule=Fading())
    backward(model)
    dfa.load_state_dict(dfa.state_dict())
    torch.optim.SGD(model.parameters(), lr=RATE).step()
    assert steps_of(dfa) == 0


def test_two_optimisers_step_once_and_strangers_never() -> None:
    model, other = net(), nn.Linear(2, 2)
    dfa = DFA(model, rule=Fading())
    head, body = (torch.optim.SGD(part.parameters(), lr=RATE) for part in (model[2], model[:2]))
    stranger = torch.optim.SGD(other.parameters(), lr=RATE)
    backward(model)
    other(torch.ones(1, 2)).sum().backward()
    stranger.step()
    assert steps_of(dfa) == 0
    body.step()
    head.step()
    assert steps_of(dfa) == 1
    backward(model)
    with dfa.passthrough():
        backward(model)
    head.step()
    assert steps_of(dfa) == 2


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_that_the_gradient_scaler_skips_is_none(fused: bool) -> None:
    model = net().float()
    dfa = DFA(model, rule=Fading())
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for overflows, expected in ((False, 1), (True, 1), (False, 2)):
        optimizer.zero_grad()
        x, y = next(batches(1))
        scaler.scale(F.cross_entropy(model(x.float()), y)).backward()
        if overflows:
            next(model.parameters()).grad.fill_(float("inf"))  # type: ignore[union-attr]
        before = model[2].weight.detach().clone()  # type: ignore[union-attr, operator]
        scaler.step(optimizer)
        scaler.update()
        assert torch.equal(before, model[2].weight) == overflows  # type: ignore[arg-type]
        assert steps_of(dfa) == expected


def test_fused_updates_are_refused() -> None:
    model = net()
    fused = fuse_optimizer(model, lambda p: torch.optim.SGD(p, lr=RATE))
    with pytest.raises(MatchError, match="rule Fading needs the optimiser's step, and a fused optimiser has none"):
        DFA(model, rule=Fading())
    assert DFA.of(model) is None
    fused.remove()
    DFA(model, rule=Fading())
    fuse_optimizer(model, lambda p: torch.optim.SGD(p, lr=RATE))
    with pytest.raises(MatchError, match="call its remove"):
        backward(model)


def test_the_process_keeps_nothing_of_a_handle() -> None:
    before = dict(_global_optimizer_post_hooks)
    model = net()
    dfa = DFA(model, rule=Fading())
    assert len(_global_optimizer_post_hooks) == len(before) + 1
    dfa.remove()
    assert before == _global_optimizer_post_hooks
    DFA(net(), rule=RandomFeedback())
    assert before == _global_optimizer_post_hooks
    dropped = weakref.ref(DFA(net(), rule=Fading()))
    gc.collect()
    assert dropped() is None
    backward(model)
    torch.optim.SGD(model.parameters(), lr=RATE).step()  # whoever was dropped is told nothing


def test_a_copy_listens_by_itself() -> None:
    model = net()
    dfa = DFA(model, rule=Fading())
    backward(model)
    twin = copy.deepcopy(model)
    theirs = DFA.of(twin)
    assert theirs is not None
    torch.optim.SGD(model.parameters(), lr=RATE).step()
    assert (steps_of(dfa), steps_of(theirs)) == (1, 0)
    backward(twin)
    torch.optim.SGD(twin.parameters(), lr=RATE).step()
    assert (steps_of(dfa), steps_of(theirs)) == (1, 1)
