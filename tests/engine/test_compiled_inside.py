"""Feedback inside blocks, compiled: the same gradients, one graph for all blocks, nothing compiled in a second step."""

import copy
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from functorch.compile import make_boxed_func
from torch import Tensor, nn
from torch._dynamo.utils import counters

from odfa import DFA, AlignedHead, ExactHead, RandomFeedback, Shallow
from odfa.engine import AbstractRule, fuse_optimizer
from odfa.errors import MatchError
from tests.engine.problems import make

FAMILIES = {
    "gpt2": ("transformer.h.*.ln_2", ("transformer.h.*.attn.c_proj", "transformer.h.*.mlp.c_proj")),
    "llama": (
        "model.layers.*.post_attention_layernorm",
        ("model.layers.*.self_attn.o_proj", "model.layers.*.mlp.down_proj"),
    ),
}
PLACES = ["branches", "linears", "both"]
RULES: list[AbstractRule] = [AlignedHead(rank=2), RandomFeedback(), Shallow()]
MEMORY: list[Any] = [False, True, "stream"]
Loss = Callable[[nn.Module], Tensor]
pytestmark = pytest.mark.filterwarnings("ignore")  # torch's compiler warns of itself


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def graphs() -> int:
    """How often torch has compiled; none of these compilations has a graph break."""
    assert not counters["graph_break"]
    return counters["stats"]["unique_graphs"]


def settings(where: str, name: str = "gpt2") -> dict[str, Any]:
    branches, linears = FAMILIES[name]
    return {
        **({} if where == "linears" else {"branches": branches}),
        **({} if where == "branches" else {"linears": linears}),
    }


def attached(where: str, choice: bool | str, *, name: str = "gpt2", **more: Any) -> tuple[nn.Module, Loss, DFA]:
    model, problem = make(name)
    model.config.use_cache = False
    more = {"rule": AlignedHead(rank=2), **more}
    return model, problem.loss, DFA(model, problem.blocks, compile=choice, **settings(where, name), **more)


def gradients(model: nn.Module, loss: Loss) -> dict[str, Tensor]:
    model.zero_grad()
    loss(model).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, gradient in theirs.items():
        torch.testing.assert_close(ours[name], gradient, rtol=1e-4, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


def compare(where: str, backend: str, steps: int = 3, **more: Any) -> list[int]:
    """Train both; returns how often torch has compiled after each step."""
    plain, loss, _ = attached(where, False, **more)
    model, *_ = attached(where, backend, **more)
    optimizers = [torch.optim.SGD(one.parameters(), lr=0.1) for one in (plain, model)]
    counted = []
    for _ in range(steps):
        assert_same(gradients(model, loss), gradients(plain, loss))
        counted.append(graphs())
        for optimizer in optimizers:
            optimizer.step()
    with torch.no_grad():
        torch.testing.assert_close(loss(model), loss(plain))
    return counted


@pytest.mark.parametrize("recompute", MEMORY)
@pytest.mark.parametrize(
    ("where", "rule"),
    [
        ("both", RULES[0]),
        *(pytest.param(where, RULES[0], marks=pytest.mark.slow) for where in PLACES if where != "both"),
        *(pytest.param("both", rule, marks=pytest.mark.slow) for rule in RULES[1:]),
    ],
    ids=repr,
)
def test_gradients_are_those_of_blocks_that_are_not_compiled(where: str, rule: AbstractRule, recompute: Any) -> None:
    """One graph for inputs that ask for a gradient, one for the others, one for passes without a graph."""
    counted = compare(where, "aot_eager", rule=rule, recompute=recompute)
    assert counted[0] <= (3 if recompute == "stream" else 2)
    assert set(counted) == {counted[0]}


@pytest.mark.slow
@pytest.mark.parametrize("recompute", MEMORY)
@pytest.mark.parametrize("where", PLACES)
def test_inductor_gives_the_same(where: str, recompute: Any) -> None:
    counted = compare(where, "inductor", recompute=recompute)
    assert set(counted) == {counted[0]}


@pytest.mark.slow
@pytest.mark.parametrize("where", PLACES)
def test_inductor_compiles_weights_of_16_bits(where: str) -> None:
    """Two branches that end in one signal have biases with the same gradient."""
    plain, loss, _ = attached(where, False)
    model, *_ = attached(where, "inductor")
    ours, theirs = gradients(model.bfloat16(), loss), gradients(plain.bfloat16(), loss)
    for name, gradient in theirs.items():
        if not name.endswith("c_attn.bias"):  # that of the keys is zero but for rounding
            assert F.cosine_similarity(ours[name].float().flatten(), gradient.float().flatten(), dim=0) > 0.99


@pytest.mark.parametrize("backend", [pytest.param("eager", marks=pytest.mark.slow), "aot_eager"])
@pytest.mark.parametrize("where", PLACES)
def test_llama_learns_as_without_compiling(where: str, backend: str) -> None:
    assert compare(where, backend, name="llama", steps=2) == [2, 2]


@pytest.mark.parametrize("recompute", MEMORY)
def test_hops_cross_branches_and_what_learns_does_not(recompute: Any) -> None:
    counted = compare("branches", "aot_eager", rule=ExactHead(hops=1), recompute=recompute)
    assert set(counted) == {counted[0]}


@pytest.mark.slow
@pytest.mark.parametrize("recompute", MEMORY)
def test_inductor_lets_hops_cross(recompute: Any) -> None:
    compare("branches", "inductor", rule=ExactHead(hops=2), recompute=recompute)


@pytest.mark.parametrize("recompute", MEMORY)
@pytest.mark.parametrize(
    "where", [where if where == "linears" else pytest.param(where, marks=pytest.mark.slow) for where in PLACES]
)
def test_a_fused_optimiser_does_not_move_the_mean_weights_during_backward(where: str, recompute: Any) -> None:
    models = []
    for choice in (False, "aot_eager"):
        model, loss, _ = attached(where, choice, recompute=recompute)
        fuse_optimizer(model, lambda p: torch.optim.SGD(p, lr=0.1))
        for _ in range(3):
            loss(model).backward()
        models.append(model)
    for ours, theirs in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("where", PLACES)
def test_angles_are_measured_and_training_goes_on_with_the_code_it_has(where: str) -> None:
    plain, loss, old = attached(where, False)
    model, _, new = attached(where, "aot_eager")
    optimizers = [torch.optim.SGD(one.parameters(), lr=0.1) for one in (plain, model)]
    for optimizer, one in zip(optimizers, (plain, model), strict=True):
        gradients(one, loss)
        optimizer.step()
    before = graphs()
    with new.measure_alignment() as ours:
        loss(model).backward()
    with old.measure_alignment() as theirs:
        loss(plain).backward()
    assert dict(ours) == pytest.approx(dict(theirs), abs=1e-5)
    assert_same(gradients(model, loss), gradients(plain, loss))
    assert graphs() == before


@pytest.mark.parametrize("where", PLACES)
def test_passthrough_is_backpropagation(where: str) -> None:
    model, loss, dfa = attached(where, "aot_eager")
    gradients(model, loss)
    plain, _ = make("gpt2")
    plain.config.use_cache = False
    plain.load_state_dict(model.state_dict())
    with dfa.passthrough():
        through = gradients(model, loss)
    assert_same(through, gradients(plain, loss))
    local, counted = gradients(model, loss), graphs()
    with dfa.passthrough():
        gradients(model, loss)
    assert_same(gradients(model, loss), local)
    assert graphs() == counted


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"])
def test_copies_are_compiled_by_themselves(copier: Any) -> None:
    model, loss, dfa = attached("both", "aot_eager")
    expected = gradients(model, loss)
    twin = copier(model)
    handle = DFA.of(twin)
    assert handle is not None
    assert handle is not dfa
    assert_same(gradients(twin, loss), expected)
    handle.remove()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in twin.modules())
    assert_same(gradients(model, loss), expected)


def test_nothing_is_left_behind() -> None:
    model, loss, dfa = attached("both", "aot_eager")
    plain, _ = make("gpt2")
    plain.config.use_cache = False
    plain.load_state_dict(model.state_dict())
    gradients(model, loss)
    dfa.remove()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    ours, theirs = gradients(model, loss), gradients(plain, loss)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_layers_that_do_not_learn() -> None:
    models = []
    for choice in (False, "aot_eager"):
        model, loss, _ = attached("both", choice)
        for frozen in (
            model.transformer.h[1].mlp.c_proj,
            model.transformer.h[1].ln_1,
            model.transformer.h[2].attn.c_attn,
        ):
            frozen.requires_grad_(False)
        models.append(gradients(model, loss))
    assert_same(*reversed(models))


class Block(nn.Module):
    """Two branches; `kind` of the norms."""

    def __init__(self, width: int = 8, *, images: bool = False) -> None:
        super().__init__()
        self.norm, self.other = ((nn.GroupNorm if images else _layer_norm)(2, width) for _ in range(2))
        kind: Any = (lambda i, o: nn.Conv2d(i, o, 1)) if images else nn.Linear
        self.up, self.down, self.last = kind(width, 16), kind(16, width), kind(width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.down(F.gelu(self.up(self.norm(x))))
        return x + self.last(self.other(x))


def _layer_norm(_groups: int, width: int) -> nn.Module:
    return nn.LayerNorm(width)


def stack(*, images: bool = False) -> nn.Sequential:
    torch.manual_seed(0)
    end = [nn.AdaptiveAvgPool2d(1), nn.Flatten()] if images else []
    start = nn.Conv2d(3, 8, 1) if images else nn.Linear(8, 8)
    return nn.Sequential(start, *(Block(images=images) for _ in range(3)), *end, nn.Linear(8, 3))


X = torch.linspace(-2, 2, 40).cos().reshape(5, 8)
PIXELS = torch.linspace(-2, 2, 5 * 3 * 16).cos().reshape(5, 3, 4, 4).to(memory_format=torch.channels_last)


def on(x: Tensor) -> Loss:
    return lambda model: F.cross_entropy(model(x), torch.tensor([0, 1, 2, 1, 0]))


@pytest.mark.parametrize("images", [False, True])
def test_hooks_in_some_blocks_are_not_those_of_others(images: bool) -> None:
    """Blocks of one structure with other hooks inside do not share code; images are laid out channels last."""
    loss, plain, model = on(PIXELS if images else X), stack(images=images), stack(images=images)
    linears: Any = () if images else ("1.last", "3.last", "2.up")
    for one, choice in ((plain, False), (model, "aot_eager")):
        DFA(one, ["1", "2", "3"], branches=["1.other", "2.other", "2.norm"], linears=linears, compile=choice)
    for _ in range(2):
        assert_same(gradients(model, loss), gradients(plain, loss))
    graphs()


def test_hooks_of_others_inside_one_block_stay_there() -> None:
    loss, plain, model = on(X), stack(), stack()
    for one, choice in ((plain, False), (model, "aot_eager")):
        one[2].up.register_forward_hook(lambda _m, _a, output: 2 * output)
        DFA(one, ["1", "2", "3"], branches="*.other", compile=choice)
    assert_same(gradients(model, loss), gradients(plain, loss))
    graphs()


def test_a_scale_that_becomes_zero() -> None:
    """The norms' gradients are then taken the usual way, in code of its own."""
    loss, plain, model = on(X), stack(), stack()
    for one, choice in ((plain, False), (model, "aot_eager")):
        DFA(one, ["1", "2", "3"], branches="*.other", compile=choice)
    for value in (0.0, 1.0):
        assert_same(gradients(model, loss), gradients(plain, loss))
        for one in (plain, model):
            one[2].other.weight.data[3] = value
        assert_same(gradients(model, loss), gradients(plain, loss))
    counted = graphs()
    gradients(model, loss)
    assert graphs() == counted


@pytest.fixture
def counted() -> Iterator[list[int]]:
    """The backend "counting" appends how many products of matrices each graph for backward has."""
    from torch._dynamo.backends import registry
    from torch._dynamo.backends.common import aot_autograd

    found: list[int] = []

    def backward(graph: Any, _inputs: Any) -> Any:
        kinds = (torch.ops.aten.mm.default, torch.ops.odfa.product.default)
        products = [node for node in graph.graph.nodes if node.target in kinds]
        found.append(sum(node.args[0].meta["val"].shape[0] > 1 for node in products))
        return make_boxed_func(graph.forward)

    compiler = aot_autograd(fw_compiler=lambda graph, _inputs: make_boxed_func(graph.forward), bw_compiler=backward)
    registry.register_backend(compiler, name="counting")
    yield found
    registry._COMPILER_FNS.pop("counting", None)
    registry._BACKENDS.pop("counting", None)


@pytest.mark.parametrize(("where", "expected"), [("branches", 6), ("linears", 7), ("both", 6)])
def test_input_gradients_that_nobody_needs_are_not_computed(counted: list[int], where: str, expected: int) -> None:
    """Of a block: four weight gradients, and input gradients at the layers that end a branch; without `branches` also
    where the branch of the MLP begins. The norms' gradients follow from those of the weights."""
    model, loss, _ = attached(where, "counting")
    gradients(model, loss)
    later, first = counted  # backward begins at the last block
    assert later == expected
    assert first == expected + 1  # its input asks for a gradient


@pytest.mark.parametrize("where", ["linears", "both"])
def test_what_would_backpropagate_instead_is_refused(where: str) -> None:
    model, loss, _ = attached(where, "aot_eager")
    with pytest.raises(MatchError, match="does not work with autocast"), torch.autocast("cpu", torch.bfloat16):
        loss(model)
    gradients(model, loss)
    hook = model.transformer.h[1].mlp.c_proj.register_forward_hook(lambda _m, _a, output: output)
    with pytest.raises(MatchError, match="other hooks"):
        loss(model)
    hook.remove()
    gradients(model, loss)


def test_branches_under_autocast_learn_in_the_type_of_the_products() -> None:
    plain, loss, _ = attached("branches", False)
    model, *_ = attached("branches", "aot_eager")
    with torch.autocast("cpu", torch.bfloat16):
        ours, theirs = gradients(model, loss), gradients(plain, loss)
    assert ours.keys() == theirs.keys()
    for name, gradient in theirs.items():
        assert ours[name].dtype == gradient.dtype
        if not name.endswith("c_attn.bias"):  # that of the keys is zero but for rounding
            assert F.cosine_similarity(ours[name].flatten(), gradient.flatten(), dim=0) > 0.999


def test_the_whole_model_may_be_compiled_around_its_compiled_blocks() -> None:
    plain, model, loss = stack(), stack(), on(X)
    for one, choice in ((plain, False), (model, "aot_eager")):
        DFA(one, ["1", "2", "3"], branches="*.other", linears="*.last", compile=choice)
    whole = torch.compile(model, backend="aot_eager")
    for _ in range(2):
        plain.zero_grad(), model.zero_grad()
        loss(plain).backward(), loss(whole).backward()
        for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6)
