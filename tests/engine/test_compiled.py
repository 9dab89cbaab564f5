"""Compiled blocks learn as blocks that are not compiled do, and are compiled once for all of one structure."""

import copy
import inspect
import pickle
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._dynamo.utils import counters

from odfa import DFA, AlignedHead, ExactHead, RandomFeedback, Shallow
from odfa.engine import AbstractRule, ForwardGradient, compile_blocks, fuse_optimizer
from odfa.errors import ConfigError, MatchError
from tests.engine.problems import gradients, make

RULES = [AlignedHead(rank=2), ExactHead(), ExactHead(hops=1), RandomFeedback(), Shallow()]
X, Y = torch.linspace(-2, 2, 40).cos().reshape(5, 8), torch.tensor([0, 1, 2, 1, 0])
pytestmark = pytest.mark.filterwarnings("ignore")  # torch's compiler warns of itself


class Block(nn.Module):
    """A residual branch behind a norm."""

    def __init__(self, width: int = 8, drop: float = 0.0) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, 16), nn.Linear(16, width)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor, *, gain: float = 1.0) -> Tensor:
        return x + gain * self.drop(self.down(F.gelu(self.up(self.norm(x)))))


def residual(depth: int = 3, drop: float = 0.0) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 8), *(Block(drop=drop) for _ in range(depth)), nn.LayerNorm(8), nn.Linear(8, 3))


def names(depth: int = 3) -> list[str]:
    return [str(1 + number) for number in range(depth)]


def loss_of(model: nn.Module) -> Tensor:
    torch.manual_seed(1)
    return F.cross_entropy(model(X), Y)


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def compiled_graphs() -> int:
    """How often torch has compiled; none of these compilations has a graph break."""
    assert not counters["graph_break"]
    return counters["stats"]["unique_graphs"]


def assert_same(ours: dict[str, Tensor | None], theirs: dict[str, Tensor | None]) -> None:
    assert {name for name, grad in ours.items() if grad is None} == {n for n, grad in theirs.items() if grad is None}
    for name, grad in theirs.items():
        if grad is not None:
            torch.testing.assert_close(ours[name], grad, rtol=1e-4, atol=1e-6, msg=lambda told, name=name: name + told)


def compare(rule: AbstractRule, recompute: Any, backend: str, depth: int = 3) -> None:
    plain, model = residual(depth), residual(depth)
    old = DFA(plain, names(depth), rule=rule, recompute=recompute)
    new = DFA(model, names(depth), rule=rule, recompute=recompute, compile=backend)
    for _ in range(2):
        assert_same(gradients(model, loss_of), gradients(plain, loss_of))
        if rule.feeds:
            assert new.last.signal_norms == pytest.approx(old.last.signal_norms, rel=1e-5)
    torch.testing.assert_close(model(X), plain(X))


@pytest.mark.parametrize("recompute", [False, True, "stream"])
@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_signals_and_gradients_are_those_of_blocks_that_are_not_compiled(rule: AbstractRule, recompute: Any) -> None:
    compare(rule, recompute, "aot_eager", 2)


@pytest.mark.parametrize("recompute", [False, True, "stream"])
@pytest.mark.parametrize("depth", [2, 11])
def test_blocks_of_one_structure_are_compiled_together(depth: int, recompute: Any) -> None:
    """Once for each kind of pass: inputs that ask for a gradient or do not, and passes without a graph."""
    compare(RandomFeedback(), recompute, "eager", depth)
    assert 2 <= compiled_graphs() <= 3


def test_each_structure_has_code_of_its_own() -> None:
    """Nine widths are more than torch would compile for one function."""
    widths = [*range(8, 17), 17]
    torch.manual_seed(0)
    layers = [nn.Linear(i, o) for i, o in pairwise(widths)]
    model = nn.Sequential(*layers, nn.Linear(17, 3))
    plain = copy.deepcopy(model)
    blocks = [str(number) for number in range(len(layers))]
    DFA(plain, blocks), DFA(model, blocks, compile="eager")
    for _ in range(2):
        assert_same(gradients(model, loss_of), gradients(plain, loss_of))
    assert compiled_graphs() <= 2 * len(layers)


@pytest.mark.parametrize("recompute", [True, "stream"])
def test_a_block_that_runs_again_draws_the_same_dropout(recompute: Any) -> None:
    kept, model = residual(2, drop=0.5), residual(2, drop=0.5)
    DFA(kept, names(2), compile="aot_eager")
    DFA(model, names(2), recompute=recompute, compile="aot_eager")
    for _ in range(2):
        assert_same(gradients(model, loss_of), gradients(kept, loss_of))


def gpt2(rule: AbstractRule | None, **more: Any) -> tuple[nn.Module, Any, DFA | None]:
    model, problem = make("gpt2")
    model.config.use_cache = False
    return model, problem, None if rule is None else DFA(model, problem.blocks, rule=rule, **more)


@pytest.mark.parametrize(
    ("rule", "recompute"),
    [
        (AlignedHead(rank=2), False),
        (AlignedHead(rank=2), True),
        (ExactHead(hops=1), "stream"),
        (RandomFeedback(), True),
    ],
    ids=repr,
)
def test_gpt2_learns_as_without_compiling(rule: AbstractRule, recompute: Any) -> None:
    plain, problem, _ = gpt2(rule, recompute=recompute)
    model, *_ = gpt2(rule, recompute=recompute, compile="aot_eager")
    for _ in range(2):
        assert_same(gradients(model, problem.loss), gradients(plain, problem.loss))
    with torch.no_grad():
        torch.testing.assert_close(problem.loss(model), problem.loss(plain))
    assert 2 <= compiled_graphs() <= 3


@pytest.mark.parametrize("checkpointing", [False, True])
def test_backpropagation_is_that_of_blocks_that_are_not_compiled(checkpointing: bool) -> None:
    plain, problem, _ = gpt2(None)
    model, *_ = gpt2(None)
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    blocks = compile_blocks(model, [f"transformer.h.{k}" for k in range(3)], "aot_eager")
    for _ in range(2):
        assert_same(gradients(model, problem.loss), gradients(plain, problem.loss))
    assert compiled_graphs() == 1
    blocks.remove()
    assert all(torch.equal(a, b) for a, b in zip(gradients(model, problem.loss).values(),
                                                 gradients(plain, problem.loss).values(), strict=True))  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("recompute", [False, True, "stream"])
@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_inductor_gives_the_same(rule: AbstractRule, recompute: Any) -> None:
    compare(rule, recompute, "inductor")


def test_a_fused_optimiser_moves_the_weights_as_without_compiling() -> None:
    plain, model = residual(), residual()
    for one, choice in ((plain, False), (model, "aot_eager")):
        DFA(one, names(), rule=ExactHead(), compile=choice)
        fuse_optimizer(one, lambda p: torch.optim.SGD(p, lr=0.1))
        for _ in range(3):
            loss_of(one).backward()
    for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_angles_are_measured_and_training_goes_on_with_the_code_it_has() -> None:
    plain, model = residual(), residual()
    old = DFA(plain, names(), rule=AlignedHead(rank=2))
    new = DFA(model, names(), rule=AlignedHead(rank=2), compile="aot_eager")
    for _ in range(2):
        gradients(model, loss_of), gradients(plain, loss_of)
    before = compiled_graphs()
    with new.measure_alignment() as ours:
        loss_of(model).backward()
    with old.measure_alignment() as theirs:
        loss_of(plain).backward()
    assert dict(ours) == pytest.approx(dict(theirs), abs=1e-5)
    gradients(model, loss_of)
    assert compiled_graphs() == before


def test_a_second_backward_pass_through_one_graph_finds_what_the_first_found() -> None:
    model = residual()
    DFA(model, names(), rule=AlignedHead(rank=2), compile="aot_eager")
    gradients(model, loss_of)
    model.zero_grad()
    loss = loss_of(model)
    loss.backward(retain_graph=True)
    once = {name: p.grad.clone() for name, p in model.named_parameters()}
    loss.backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, 2 * once[name])


def test_evaluation_in_other_sizes_leaves_the_code_of_training_alone() -> None:
    model = residual()
    DFA(model, names(), compile="aot_eager")
    for _ in range(2):
        gradients(model, loss_of)
    before = compiled_graphs()
    with torch.no_grad():
        for rows in (2, 3, 4, 7):
            model(X.repeat(2, 1)[:rows])
    looked = compiled_graphs()
    assert looked <= before + 2  # one size, then all others together
    gradients(model, loss_of)
    assert compiled_graphs() == looked


def test_the_model_stays_as_it_was_and_gets_its_forwards_back() -> None:
    plain, model = residual(), residual()
    before = [dict(block.__dict__) for block in model]
    dfa = DFA(model, names(), compile="aot_eager")
    assert model.state_dict().keys() == plain.state_dict().keys()
    assert [type(block) for block in model] == [type(block) for block in plain]
    assert inspect.signature(model[1].forward) == inspect.signature(plain[1].forward)
    assert "each block compiled by aot_eager" in repr(dfa)
    gradients(model, loss_of)
    dfa.remove()
    assert [block.__dict__.keys() for block in model] == [block.keys() for block in before]
    assert model[1].forward.__func__ is Block.forward
    ours, theirs = gradients(model, loss_of), gradients(plain, loss_of)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"])
def test_copies_are_compiled_by_themselves(copier: Any) -> None:
    model = residual()
    dfa = DFA(model, names(), compile="aot_eager")
    expected = {name: grad.clone() for name, grad in gradients(model, loss_of).items()}
    twin = copier(model)
    handle = DFA.of(twin)
    assert handle is not None
    assert handle is not dfa
    assert twin[1].forward.block is twin[1]
    assert_same(gradients(twin, loss_of), expected)
    handle.remove()
    assert twin[1].forward.__func__ is Block.forward
    assert model[1].forward.block is model[1]
    assert_same(gradients(model, loss_of), expected)


def test_sizes_alone_are_not_compiled() -> None:
    with torch.device("meta"):
        model = residual()
        DFA(model, names(), rule=Shallow(), compile="aot_eager")
        model(torch.empty(4, 8)).sum().backward()
    assert compiled_graphs() == 0


def test_the_whole_model_may_be_compiled_around_its_compiled_blocks() -> None:
    plain, model = residual(), residual()
    DFA(plain, names()), DFA(model, names(), compile="aot_eager")
    whole = torch.compile(model, backend="aot_eager")
    for _ in range(2):
        plain.zero_grad(), model.zero_grad()
        loss_of(plain).backward(), loss_of(whole).backward()
        for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6)


class Printing(Block):
    """Python that no compiler follows."""

    def forward(self, x: Tensor, *, gain: float = 1.0) -> Tensor:
        torch._dynamo.graph_break()
        return super().forward(x)


def test_what_cannot_be_compiled_is_said_in_one_line() -> None:
    model = residual()
    for arguments, error, told in (
        (
            {"compile": "fast"},
            ConfigError,
            r"compile: expected True, False or a backend of torch\.compile .*, got 'fast'",
        ),
        ({"compile": 3}, ConfigError, "compile: expected True, False or a backend"),
        ({"compile": True, "rule": ForwardGradient()}, ConfigError, "expected a rule without forward products"),
    ):
        with pytest.raises(error, match=told) as caught:
            DFA(model, names(), **arguments)
        assert "\n" not in str(caught.value)
        assert "forward" not in model[1].__dict__
    with pytest.raises(MatchError, match="expected a model that is not compiled, got a compiled OptimizedModule"):
        DFA(torch.compile(model, backend="eager"), ["_orig_mod.1"], compile=True)
    model[2].compile(backend="eager")
    with pytest.raises(MatchError, match="got a compiled 2; leave out"):
        DFA(model, names(), compile=True)
    model = residual()
    model[1].forward = model[1].forward
    with pytest.raises(MatchError, match="expected the forward of class Block in block 1"):
        DFA(model, names(), compile=True)
    DFA(model, names())


def test_a_block_that_breaks_and_a_cache_are_refused_when_they_run() -> None:
    model = nn.Sequential(nn.Linear(8, 8), Printing(), nn.Linear(8, 3))
    DFA(model, ["1"], compile="aot_eager")
    with pytest.raises(
        MatchError, match=r"expected a block that torch compiles in one piece, got \w+ in block 1"
    ) as told:
        loss_of(model)
    assert "\n" not in str(told.value)
    gpt, problem, _ = gpt2(RandomFeedback(), compile="aot_eager")
    gpt.config.use_cache = True
    with pytest.raises(MatchError, match=r"expected no key-value cache in training, .* set use_cache=False"):
        problem.loss(gpt)
    gpt.eval()
    counters.clear()
    assert gpt.generate(torch.tensor([[1, 2]]), max_new_tokens=4, do_sample=False).shape[1] > 2
    assert compiled_graphs() == 0  # text that grows token by token runs as it is
