"""Laws that hold for every architecture, whatever the rule."""

import copy
import gc
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor, nn

from odfa.engine import DFA, AbstractRule, AlignedHead, ElectronicOnly, RandomFeedback, Shallow
from odfa.engine.blocks import match_blocks
from odfa.engine.rules import AbstractFeedback, Call
from odfa.engine.wirings import Direct
from odfa.errors import ConfigError, MatchError
from odfa.flow import ErrorSignal
from odfa.project import AbstractProjection
from tests.engine.problems import PROBLEMS, Problem, gradients, make

NAMES = list(PROBLEMS)
RESIDUAL = [name for name, problem in PROBLEMS.items() if problem.residual]


def values(model: nn.Module, problem_name: str) -> list[Tensor]:
    kept: list[Tensor] = []
    hook = model.register_forward_hook(lambda _m, _a, out: kept.extend(_leaves(out)))
    kept.append(PROBLEMS[problem_name].loss(model).detach())
    hook.remove()
    return kept


def _leaves(output: object) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output.detach().clone()]
    items = output.values() if hasattr(output, "values") else output if isinstance(output, (tuple, list)) else ()
    return [leaf for item in items for leaf in _leaves(item)]


@pytest.mark.parametrize("name", NAMES)
def test_attaching_changes_no_value_key_or_class(name: str) -> None:
    model, problem = make(name)
    kind, keys, code = type(model), list(model.state_dict()), model.forward.__code__
    state = copy.deepcopy(model.state_dict())
    plain = values(model, name)
    model.load_state_dict(state)  # batch norm moved its running statistics
    dfa = DFA(model, problem.blocks)
    assert len(dfa.blocks) == problem.found
    attached = values(model, name)
    assert type(model) is kind
    assert list(model.state_dict()) == keys
    assert model.forward.__code__ is code
    assert all(torch.equal(a, b) for a, b in zip(plain, attached, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_blocks_are_found_by_themselves(name: str) -> None:
    model, problem = make(name)
    dfa = DFA(model)
    if isinstance(problem.blocks, str):
        assert list(dfa.blocks) == list(match_blocks(model, problem.blocks))
    gradients(model, problem.loss)
    assert len(dfa.blocks) >= problem.found


@pytest.mark.parametrize("name", NAMES)
def test_head_learns_by_backpropagation_bit_for_bit(name: str) -> None:
    model, problem = make(name)
    true = gradients(model, problem.loss)
    dfa = DFA(model, problem.blocks)
    ours = gradients(model, problem.loss)
    head = {id(p) for p in dfa.tap.module.parameters()}
    shared = set() if dfa.members is None else set().union(*dfa.members.blocks.values())
    names = [n for n, p in model.named_parameters() if id(p) in head and n not in shared]
    assert names or problem.tied
    for n in names:
        assert torch.equal(ours[n], true[n]), n


@pytest.mark.parametrize("name", RESIDUAL)
def test_aligned_head_leaves_the_heads_gradient_exact(name: str) -> None:
    model, problem = make(name)
    dfa = DFA(model, problem.blocks, rule=AlignedHead(rank=0))
    ours = gradients(model, problem.loss)
    dfa.remove()
    true = gradients(model, problem.loss)
    names = [n for n, p in model.named_parameters() if any(p is q for q in dfa.tap.module.parameters())]
    assert names
    for n in names:
        assert torch.equal(ours[n], true[n]), n


@pytest.mark.parametrize("name", NAMES)
def test_passthrough_is_backpropagation(name: str) -> None:
    model, problem = make(name)
    true = gradients(model, problem.loss)
    with DFA(model, problem.blocks).passthrough():
        ours = gradients(model, problem.loss)
    assert all(_same(ours[n], true[n]) for n in true)


@pytest.mark.parametrize("name", NAMES)
def test_every_hidden_parameter_learns_or_the_table_says_why(name: str) -> None:
    model, problem = make(name, torch.float64)
    true = gradients(model, problem.loss)
    dfa = DFA(model, problem.blocks)
    ours = gradients(model, problem.loss)
    table = repr(dfa)
    for n, grad in ours.items():
        if true[n] is None or true[n].abs().max() < 1e-12:  # e.g. key biases, which softmax cannot see
            continue
        if grad is None:
            assert n in table.partition("no gradient: ")[2], n
        else:
            assert grad.abs().max() > 1e-12, n


@pytest.mark.parametrize("name", NAMES)
def test_removing_restores_backpropagation(name: str) -> None:
    model, problem = make(name)
    true = gradients(model, problem.loss)
    hooks = _count_hooks(model)
    dfa = DFA(model, problem.blocks)
    gradients(model, problem.loss)
    dfa.remove()
    assert _count_hooks(model) == hooks
    assert DFA.of(model) is None
    again = gradients(model, problem.loss)
    assert all(_same(again[n], true[n]) for n in true)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rule", [RandomFeedback(), AlignedHead(rank=1)], ids=lambda r: r.kind)
def test_nothing_is_left_over_after_backward(name: str, rule: AbstractRule) -> None:
    model, problem = make(name)
    if rule.kind == "aligned" and not problem.residual:
        pytest.skip("one residual stream is what this rule is for")
    dfa = DFA(model, problem.blocks, rule=rule)
    alive: list[weakref.ref[Tensor]] = []
    hooks = [
        b.register_forward_hook(lambda _m, _a, out: alive.append(weakref.ref(_leaves_of(out)[0])))
        for b in dfa.blocks.values()
    ]
    problem.loss(model).backward()
    for hook in hooks:
        hook.remove()
    gc.collect()
    assert alive
    assert not [ref for ref in alive if ref() is not None]
    assert dfa._hooks.step is None
    assert dfa._hooks.answers.waiting is None


def _leaves_of(output: object) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    items = output.values() if hasattr(output, "values") else output if isinstance(output, (tuple, list)) else ()
    return [leaf for item in items for leaf in _leaves_of(item)]


@pytest.mark.parametrize("name", NAMES)
def test_two_forwards_before_one_backward_add_up(name: str) -> None:
    model, problem = make(name, torch.float64)
    DFA(model, problem.blocks)
    once = gradients(model, problem.loss)
    both = gradients(model, lambda m: problem.loss(m) + problem.loss(m))
    for n, grad in once.items():
        assert (grad is None and both[n] is None) or torch.allclose(both[n], 2 * grad, rtol=1e-9, atol=1e-14), n


@pytest.mark.parametrize("name", NAMES)
def test_gradient_accumulation_adds_up(name: str) -> None:
    model, problem = make(name, torch.float64)
    DFA(model, problem.blocks)
    once = {n: None if g is None else g.clone() for n, g in gradients(model, problem.loss).items()}
    problem.loss(model).backward()
    for n, p in model.named_parameters():
        assert once[n] is None or torch.allclose(p.grad, 2 * once[n], rtol=1e-9, atol=1e-14), n


@dataclass(frozen=True)
class Oracle(AbstractRule, kind="oracle"):
    """Feeds every block the true gradient at its output: DFA must then be backpropagation."""

    truth: list[Tensor] = field(default_factory=list)
    wiring = Direct
    label = "oracle"

    def start(self, projection: AbstractProjection, model: nn.Module, head: nn.Module) -> AbstractFeedback:
        return _OracleFeedback(self.truth)


class _OracleFeedback(AbstractFeedback):
    def __init__(self, truth: list[Tensor]) -> None:
        self.truth = truth

    def signals(self, error: ErrorSignal, calls: Sequence[Call]) -> list[Tensor]:
        return self.truth


def true_signals(model: nn.Module, dfa: DFA, loss: object) -> list[Tensor]:
    outputs: list[Tensor] = []
    hooks = [
        b.register_forward_hook(lambda _m, _a, out: outputs.append(_leaves_of(out)[0])) for b in dfa.blocks.values()
    ]
    with dfa.passthrough():
        value = loss(model)  # type: ignore[operator]
    for hook in hooks:
        hook.remove()
    return list(torch.autograd.grad(value, outputs))


@pytest.mark.parametrize("name", [n for n in NAMES if not PROBLEMS[n].cuts_sides])
def test_fed_with_true_gradients_it_is_backpropagation(name: str) -> None:
    model, problem = make(name, torch.float64)
    true = gradients(model, problem.loss)
    truth: list[Tensor] = []
    dfa = DFA(model, problem.blocks, rule=Oracle(truth))
    truth.extend(true_signals(model, dfa, problem.loss))
    ours = gradients(model, problem.loss)
    for n, grad in true.items():
        assert (grad is None and ours[n] is None) or torch.allclose(ours[n], grad, rtol=1e-9, atol=1e-13), n


@pytest.mark.parametrize("name", NAMES)
def test_blocks_do_not_see_the_true_gradient(name: str) -> None:
    """Scaling the feedback scales every block's gradient and leaves the head's alone: nothing exact slips in."""
    model, problem = make(name, torch.float64)
    dfa = DFA(model, problem.blocks, rule=RandomFeedback(scale=1.0))
    once = gradients(model, problem.loss)
    members = dfa.members
    assert members is not None
    dfa.remove()
    DFA(model, problem.blocks, rule=RandomFeedback(scale=4.0))
    scaled = gradients(model, problem.loss)
    inside = set().union(*members.blocks.values())
    for n, grad in once.items():
        if grad is None or (n in inside and n in members.behind):
            continue  # tied weights receive both
        factor = 4.0 if n in inside else 1.0
        assert torch.allclose(scaled[n], factor * grad, rtol=1e-9, atol=1e-14), n


@pytest.mark.parametrize("name", NAMES)
def test_shallow_gives_blocks_nothing(name: str) -> None:
    model, problem = make(name)
    true = gradients(model, problem.loss)
    dfa = DFA(model, problem.blocks, rule=Shallow())
    ours = gradients(model, problem.loss)
    assert dfa.members is not None
    head = {id(p) for p in dfa.tap.module.parameters()}
    for n, p in model.named_parameters():
        if n not in dfa.members.behind:
            assert p.grad is None, n
        elif id(p) in head and not problem.tied:
            assert torch.equal(ours[n], true[n]), n
    assert "nothing: keeps its initial weights" in repr(dfa)


@pytest.mark.parametrize("rule", [AlignedHead(rank=1), ElectronicOnly(rank=1)], ids=lambda r: r.kind)
@pytest.mark.parametrize("name", [n for n in NAMES if not PROBLEMS[n].residual])
def test_residual_rules_refuse_what_is_no_residual_stream(name: str, rule: AbstractRule) -> None:
    model, problem = make(name)
    state = copy.deepcopy(model.state_dict())
    with pytest.raises((MatchError, ConfigError)):
        _attach_and_run(model, problem, rule)
    if DFA.of(model) is None:  # refused when attaching: nothing was touched
        assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), state.values(), strict=True))


def _attach_and_run(model: nn.Module, problem: Problem, rule: AbstractRule) -> None:
    DFA(model, problem.blocks, rule=rule)
    problem.loss(model)


def _same(a: Tensor | None, b: Tensor | None) -> bool:
    return (a is None and b is None) or (a is not None and b is not None and torch.equal(a, b))


def _count_hooks(model: nn.Module) -> int:
    return sum(
        len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._forward_hooks_with_kwargs) for m in model.modules()
    )
