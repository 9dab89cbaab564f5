"""What real training code does to a model, each beside plain training."""

import copy
import pickle
from collections import namedtuple
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from odfa.engine import DFA, AlignedHead, RandomFeedback, Shallow
from odfa.engine.rules import AbstractRule
from odfa.errors import MatchError
from odfa.project import Gaussian
from tests.engine.problems import IDS, LABELS, PIXELS, PROBLEMS, _gpt2, gradients, make
from tests.engine.test_invariants import Oracle, true_signals

Pair = namedtuple("Pair", "hidden extra")


class Block(nn.Module):
    """A block that returns its output in one of many containers."""

    def __init__(self, width: int, kind: str) -> None:
        super().__init__()
        self.linear, self.kind = nn.Linear(width, width), kind

    def forward(self, *, hidden: Tensor) -> Any:
        from transformers.modeling_outputs import BaseModelOutput

        h = torch.tanh(self.linear(hidden))
        containers = {
            "tuple": lambda: (h, None, 3),
            "list": lambda: [h],
            "dict": lambda: {"hidden": h, "name": "x"},
            "model_output": lambda: BaseModelOutput(last_hidden_state=h),
            "namedtuple": lambda: Pair(h, None),
            "nested": lambda: ((h, h.mean()), {"again": h}),
        }
        return containers[self.kind]()


class Net(nn.Module):
    """Blocks called by keyword only."""

    def __init__(self, kind: str, depth: int = 2) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(6, kind) for _ in range(depth))
        self.head = nn.Linear(6, 3)

    def forward(self, *, x: Tensor) -> dict[str, Tensor]:
        for block in self.blocks:
            x = self._hidden(block(hidden=x))
        return {"logits": self.head(x)}

    @staticmethod
    def _hidden(output: Any) -> Tensor:
        while not isinstance(output, Tensor):
            output = output["hidden"] if isinstance(output, dict) and "hidden" in output else output[0]
        return output


KINDS = ["tuple", "list", "dict", "model_output", "namedtuple", "nested"]
X = torch.linspace(-1, 1, 24, dtype=torch.float64).reshape(4, 6).sin()
Y = torch.tensor([0, 1, 2, 1])


@pytest.mark.parametrize("kind", KINDS)
def test_containers_and_keyword_only_inputs(kind: str) -> None:
    torch.manual_seed(0)
    net = Net(kind).double()
    plain = Net("list").double()
    plain.load_state_dict(net.state_dict())

    def loss(m: nn.Module) -> Tensor:
        return F.cross_entropy(m(x=X)["logits"], Y)

    DFA(net, "blocks.*")
    DFA(plain, "blocks.*")
    ours, expected = gradients(net, loss), gradients(plain, loss)
    assert all(torch.equal(ours[n], expected[n]) for n in expected)
    with torch.no_grad():
        assert type(net.blocks[0](hidden=X)) is type(Net(kind).double().blocks[0](hidden=X))


class Twice(nn.Module):
    """One block module called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.block, self.head = nn.Sequential(nn.Linear(6, 6), nn.Tanh()), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.block(self.block(x)))


def test_shared_block_called_twice_is_fed_at_both_calls() -> None:
    torch.manual_seed(0)
    model = Twice().double()
    DFA(model, ["block"], projection=Gaussian(seed=3))
    ours = gradients(model, lambda m: F.cross_entropy(m(X), Y))
    with torch.no_grad():
        w, b = model.block[0].weight, model.block[0].bias
        h1 = torch.tanh(X @ w.T + b)
        h2 = torch.tanh(h1 @ w.T + b)
        e = ((h2 @ model.head.weight.T + model.head.bias).softmax(1) - F.one_hot(Y, 3)) / 4
        s = e @ Gaussian(seed=3).shaped(3, 6).matrix().double() / 6**0.5
        expected = (s * (1 - h1**2)).T @ X + (s * (1 - h2**2)).T @ h1
    torch.testing.assert_close(ours["block.0.weight"], expected)


def test_shared_last_block_in_residual_wiring() -> None:
    """Only the true last call hands the signal on; the exact gradient between the two calls is dropped."""
    torch.manual_seed(0)
    model = Twice().double()
    DFA(model, ["block"], projection=Gaussian(seed=3), rule=AlignedHead(scale=1.0, rank=0))
    ours = gradients(model, lambda m: F.cross_entropy(m(X), Y))
    with torch.no_grad():
        w, b = model.block[0].weight, model.block[0].bias
        h1 = torch.tanh(X @ w.T + b)
        h2 = torch.tanh(h1 @ w.T + b)
        e = ((h2 @ model.head.weight.T + model.head.bias).softmax(1) - F.one_hot(Y, 3)) / 4
        s = e @ model.head.weight
        expected = (s * (1 - h1**2)).T @ X + (s * (1 - h2**2)).T @ h1
    torch.testing.assert_close(ours["block.0.weight"], expected)


def test_frozen_parameters_stay_without_gradient_and_others_are_unmoved_by_it() -> None:
    model, problem = make("gpt2", torch.float64)
    DFA(model, problem.blocks)
    full = gradients(model, problem.loss)
    for p in model.transformer.h[0].parameters():
        p.requires_grad_(False)
    model.transformer.h[1].mlp.c_fc.weight.requires_grad_(False)
    some = gradients(model, problem.loss)
    assert all(p.grad is None for p in model.transformer.h[0].parameters())
    assert some["transformer.h.1.mlp.c_fc.weight"] is None
    for name in some:
        if some[name] is not None:
            torch.testing.assert_close(some[name], full[name])
    assert "frozen: " in repr(DFA.of(model))


def test_entirely_frozen_blocks_train_the_head() -> None:
    model, problem = make("gpt2")
    DFA(model, problem.blocks)
    for p in model.transformer.parameters():
        p.requires_grad_(False)
    problem.loss(model).backward()
    assert model.lm_head.weight.grad is not None


def test_frozen_head_still_feeds_the_blocks() -> None:
    model, problem = make("gpt2", torch.float64)
    DFA(model, problem.blocks)
    full = gradients(model, problem.loss)
    model.lm_head.weight.requires_grad_(False)
    some = gradients(model, problem.loss)
    torch.testing.assert_close(some["transformer.h.0.mlp.c_fc.weight"], full["transformer.h.0.mlp.c_fc.weight"])


def test_transposed_weights_of_a_conv1d_head() -> None:
    from transformers.pytorch_utils import Conv1D

    torch.manual_seed(0)
    linear = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3, bias=False)).double()
    transposed = copy.deepcopy(linear)
    transposed[4] = Conv1D(3, 6).double()
    rule = AlignedHead(rank=0)
    DFA(linear, rule=rule)
    DFA(transposed, rule=rule)
    with torch.no_grad():
        assert torch.equal(transposed[4].weight.T, linear[4].weight)
    ours = gradients(transposed, lambda m: F.cross_entropy(m(X), Y))
    expected = gradients(linear, lambda m: F.cross_entropy(m(X), Y))
    torch.testing.assert_close(ours["0.weight"], expected["0.weight"])
    torch.testing.assert_close(ours["4.weight"], expected["4.weight"].T)


def test_cls_pooling_reaches_every_token_and_the_patch_projection() -> None:
    model, problem = make("vit")  # ViTForImageClassification pools by its CLS token
    for rule in (RandomFeedback(), AlignedHead(rank=0)):
        dfa = DFA(model, problem.blocks, rule=rule)
        grads = gradients(model, problem.loss)
        dfa.remove()
        patch = next(g for n, g in grads.items() if "patch_embeddings" in n and n.endswith("weight"))
        assert patch is not None
        assert patch.norm() > 1e-6


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_generation_with_a_cache(name: str) -> None:
    model, problem = make(name)
    model.eval()
    settings = {"max_new_tokens": 2, "do_sample": False, "use_cache": True, "pad_token_id": 0}
    mask = torch.ones_like(IDS)
    plain = model.generate(IDS, attention_mask=mask, **settings)
    DFA(model, problem.blocks)
    assert torch.equal(model.generate(IDS, attention_mask=mask, **settings), plain)


@pytest.mark.parametrize("rule", [RandomFeedback(), AlignedHead(rank=1)], ids=lambda r: r.kind)
def test_bf16_autocast(rule: AbstractRule) -> None:
    model, problem = make("gpt2")
    DFA(model, problem.blocks, rule=rule)
    full = gradients(model, problem.loss)

    def half(m: nn.Module) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return problem.loss(m)

    ours = gradients(model, half)
    for name, grad in full.items():
        assert ours[name].dtype == torch.float32
        if "bias" not in name:
            assert F.cosine_similarity(ours[name].flatten(), grad.flatten(), dim=0) > 0.99, name


def test_bf16_weights() -> None:
    model, problem = make("llama", torch.bfloat16)
    DFA(model, problem.blocks)
    assert all(g.dtype == torch.bfloat16 and g.isfinite().all() for g in gradients(model, problem.loss).values())


def test_gradient_clipping_and_optimisers_see_ordinary_gradients() -> None:
    model, problem = make("gpt2")
    DFA(model, problem.blocks)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    first = problem.loss(model).item()
    for _ in range(30):
        optimizer.zero_grad()
        problem.loss(model).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        total = torch.linalg.vector_norm(torch.stack([p.grad.norm() for p in model.parameters()]))
        assert total <= 0.1 + 1e-5
        optimizer.step()
    assert problem.loss(model).item() < 0.8 * first


RULES: list[AbstractRule] = [RandomFeedback(), AlignedHead(rank=1), Shallow()]


@pytest.mark.parametrize("rule", RULES, ids=lambda r: r.kind)
@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("name", ["gpt2", "llama"])
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_activation_checkpointing(name: str, reentrant: bool, rule: AbstractRule) -> None:
    model, problem = make(name, torch.float64)
    model.config.use_cache = False
    dfa = DFA(model, problem.blocks, rule=rule)
    expected = gradients(model, problem.loss)
    dfa.remove()
    dfa = DFA(model, problem.blocks, rule=rule)
    model.activation_checkpointing_enable({"use_reentrant": reentrant})
    ours = gradients(model, problem.loss)
    assert dfa._hooks.answers.waiting is None
    for n in expected:
        if rule.kind == "shallow" and reentrant and expected[n] is None:
            continue  # see test_shallow_under_reentrant_checkpointing
        assert (expected[n] is None) == (ours[n] is None), n
        if expected[n] is not None:
            torch.testing.assert_close(ours[n], expected[n], rtol=1e-9, atol=1e-13)


class Checkpointed(nn.Module):
    """A model that checkpoints its blocks itself, so that their hooks run inside the checkpoint."""

    def __init__(self, reentrant: bool | None, order: tuple[int, ...]) -> None:
        super().__init__()
        self.embed, self.reentrant, self.order = nn.Linear(6, 6), reentrant, order
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Dropout(0.3)) for _ in range(3))
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        torch.manual_seed(4)
        x = self.embed(x)
        for block in (self.blocks[i] for i in self.order):
            x = block(x) if self.reentrant is None else checkpoint(block, x, use_reentrant=self.reentrant)
        return self.head(x)


@pytest.mark.parametrize("rule", [RandomFeedback(), AlignedHead(rank=0), Shallow()], ids=lambda r: r.kind)
@pytest.mark.parametrize("order", [(0, 1, 2), (0, 1, 1, 2), (0, 1, 2, 2)])
@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_inside_the_model(reentrant: bool, order: tuple[int, ...], rule: AbstractRule) -> None:
    torch.manual_seed(0)
    model = Checkpointed(None, order).double()
    dfa = DFA(model, "blocks.*", rule=rule)
    expected = gradients(model, lambda m: F.cross_entropy(m(X), Y))
    model.reentrant = reentrant
    ours = gradients(model, lambda m: F.cross_entropy(m(X), Y))
    assert dfa._hooks.answers.waiting is None
    for n in expected:
        if expected[n] is not None:
            torch.testing.assert_close(ours[n], expected[n], rtol=1e-9, atol=1e-13)
        else:
            assert ours[n] is None or not ours[n].any()


@pytest.mark.parametrize("rule", [RandomFeedback(), AlignedHead(rank=0), Shallow()], ids=lambda r: r.kind)
@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_inside_the_model_from_the_first_pass(reentrant: bool, rule: AbstractRule) -> None:
    """The traced pass hands blocks their inputs without history; so does the checkpoint that runs them again."""
    results = []
    for checkpoints in (None, reentrant):
        torch.manual_seed(0)
        model = Checkpointed(checkpoints, (0, 1, 2)).double()
        DFA(model, "blocks.*", rule=rule)
        results += [gradients(model, lambda m: F.cross_entropy(m(X), Y)) for _ in range(2)]
    for ours in results[1:]:
        for n, expected in results[0].items():
            if expected is not None:
                torch.testing.assert_close(ours[n], expected, rtol=1e-9, atol=1e-13)


def test_shallow_under_reentrant_checkpointing_leaves_blocks_alone() -> None:
    model, problem = make("gpt2")
    model.config.use_cache = False
    DFA(model, problem.blocks, rule=Shallow())
    model.activation_checkpointing_enable({"use_reentrant": True})
    ours = gradients(model, problem.loss)
    assert all(g is None or not g.any() for n, g in ours.items() if n.startswith(("transformer.h.", "transformer.w")))


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_the_whole_model(reentrant: bool) -> None:
    model, problem = make("mlp", torch.float64)
    DFA(model, problem.blocks, input_gradient="local")
    expected = gradients(model, problem.loss)
    x = PIXELS.double().requires_grad_()
    ours = gradients(model, lambda m: F.cross_entropy(checkpoint(m, x, use_reentrant=reentrant), LABELS))
    for n in expected:
        torch.testing.assert_close(ours[n], expected[n])


@pytest.mark.parametrize("name", list(PROBLEMS))
def test_recompute_gives_the_same_gradients(name: str) -> None:
    model, problem = make(name, torch.float64)
    if name in ("gpt2", "gpt2_tied", "llama", "mixtral", "t5"):
        for config in {id(m.config): m.config for m in model.modules() if hasattr(m, "config")}.values():
            config.use_cache = False  # see the test below
    state = copy.deepcopy(model.state_dict())
    dfa = DFA(model, problem.blocks)
    expected = gradients(model, problem.loss)
    dfa.remove()
    model.load_state_dict(state)
    dfa = DFA(model, problem.blocks, recompute=True)
    ours = gradients(model, problem.loss)
    assert dfa._hooks.step is None
    for n in expected:
        assert (expected[n] is None) == (ours[n] is None), n
        if expected[n] is not None:
            torch.testing.assert_close(ours[n], expected[n], rtol=1e-9, atol=1e-13)


def test_recompute_refuses_caches_that_a_second_run_would_change() -> None:
    model, problem = make("llama")
    DFA(model, problem.blocks, recompute=True)
    with pytest.raises(MatchError, match="use_cache=False"):
        problem.loss(model)


def test_dropout_with_recompute_draws_the_same_masks() -> None:
    torch.manual_seed(0)
    model = _gpt2(attn_pdrop=0.2, resid_pdrop=0.2, embd_pdrop=0.2).double().train()

    def loss(m: nn.Module) -> Tensor:
        torch.manual_seed(5)
        return m(input_ids=IDS, labels=IDS).loss

    dfa = DFA(model, "transformer.h.*")
    expected = gradients(model, loss)
    after = torch.rand(3)
    dfa.remove()
    DFA(model, "transformer.h.*", recompute=True)
    ours = gradients(model, loss)
    assert torch.equal(torch.rand(3), after)  # the stream of random numbers goes on as without recompute
    for n in expected:
        torch.testing.assert_close(ours[n], expected[n], rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("backend", ["eager", "aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.parametrize("rule", [RandomFeedback(), AlignedHead(rank=0)], ids=lambda r: r.kind)
@pytest.mark.filterwarnings("ignore")
def test_compile(backend: str, rule: AbstractRule) -> None:
    torch._dynamo.reset()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    DFA(model, rule=rule)
    expected = {n: g.clone() for n, g in gradients(model, lambda m: F.cross_entropy(m(X), Y)).items()}
    compiled = torch.compile(model, backend=backend)
    for _ in range(2):
        model.zero_grad()
        F.cross_entropy(compiled(X), Y).backward()
        for n, p in model.named_parameters():
            torch.testing.assert_close(p.grad, expected[n])


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"])
@pytest.mark.parametrize("rule", [RandomFeedback(), AlignedHead(rank=1)], ids=lambda r: r.kind)
def test_copies_carry_a_handle_of_their_own(copier: Any, rule: AbstractRule) -> None:
    model, problem = make("gpt2", torch.float64)
    dfa = DFA(model, problem.blocks, rule=rule)
    problem.loss(model).backward()
    model.zero_grad()
    twin = copier(model)
    handle = DFA.of(twin)
    assert handle is not None
    assert handle is not dfa
    assert handle.model is twin
    ours, expected = gradients(twin, problem.loss), gradients(model, problem.loss)
    assert all(torch.equal(ours[n], expected[n]) for n in expected)
    handle.remove()
    assert DFA.of(twin) is None
    assert DFA.of(model) is dfa
    again = gradients(model, problem.loss)
    assert all(torch.equal(again[n], expected[n]) for n in expected)


def test_loss_scaling_scales_gradients() -> None:
    """What a GradScaler does: a power of two goes through exactly."""
    model, problem = make("gpt2")
    DFA(model, problem.blocks)
    once = gradients(model, problem.loss)
    scaled = gradients(model, lambda m: 2.0**12 * problem.loss(m))
    assert all(torch.equal(scaled[n], 2.0**12 * once[n]) for n in once)


def test_oracle_under_checkpointing_is_backpropagation() -> None:
    model, problem = make("gpt2", torch.float64)
    model.config.use_cache = False
    true = gradients(model, problem.loss)
    truth: list[Tensor] = []
    dfa = DFA(model, problem.blocks, rule=Oracle(truth))
    truth.extend(true_signals(model, dfa, problem.loss))
    model.activation_checkpointing_enable({"use_reentrant": True})
    ours = gradients(model, problem.loss)
    for n in true:
        torch.testing.assert_close(ours[n], true[n], rtol=1e-9, atol=1e-13)
