"""DRTP, direct Kolen-Pollack, forward gradients: formulas in float64, laws, state, and what they refuse."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from odfa.draws import Draws
from odfa.encode import Ternary
from odfa.engine import DFA, Drtp, ForwardGradient, KolenPollack, RandomFeedback
from odfa.engine.rules import AbstractRule
from odfa.errors import CheckpointError, ConfigError, MatchError, NonFinite
from odfa.feedback import place
from odfa.flow import ErrorSignal
from odfa.opu import Twin
from odfa.project import Encoded, Gaussian, Optical, Rademacher
from tests.engine.rule_laws import BATCH, CLASSES, RATE, batches, check_formula, check_survives, net, train

KP = KolenPollack(feedback_rate=0.2, feedback_decay=0.05, scale=0.7)
FG = ForwardGradient(feedback_rate=0.3, every=2, scale=0.7)
RULES = (Drtp(scale=0.7), KP, FG)


def signals_of(dfa: DFA, x: Tensor, y: Tensor) -> list[Tensor]:
    """What the rule answers in one backward pass."""
    taken: list[Tensor] = []
    signals = dfa.at_work.signals

    def watched(error: Any, calls: Any) -> list[Tensor]:
        taken.extend(signals(error, calls))
        return taken

    dfa.at_work.signals = watched  # type: ignore[method-assign]
    dfa.targets(y)
    F.cross_entropy(dfa.model(x).flatten(0, -2), y.flatten()).backward()
    del dfa.at_work.signals
    return taken


class Naive:
    """The same network and rules, written out: single numbers, no autograd, no engine."""

    def __init__(self, rule: AbstractRule) -> None:
        self.rule, model = rule, net()
        layers: list[Any] = [model[0][0], model[1][0], model[2]]
        self.w = [layer.weight.detach().clone() for layer in layers]
        self.b = [layer.bias.detach().clone() for layer in layers]
        whole = Gaussian(seed=2).shaped(CLASSES, 8 + 6).matrix().double()
        self.passes = 0
        self.feedback = [0.7 / 8**0.5 * whole[:, :8], 0.7 / 6**0.5 * whole[:, 8:]]

    def step(self, x: Tensor, y: Tensor) -> None:
        h = [x]
        for w, b in zip(self.w[:2], self.b[:2], strict=True):
            h.append(torch.tanh(h[-1] @ w.T + b))
        e = (torch.softmax(h[2] @ self.w[2].T + self.b[2], 1) - F.one_hot(y, CLASSES).double()) / BATCH
        delta = [self.signal(block, e, y) * (1 - h[block + 1] ** 2) for block in range(2)] + [e]
        if isinstance(self.rule, KolenPollack):
            for block, matrix in enumerate(self.feedback):
                moved = torch.zeros_like(matrix)
                for d in range(matrix.shape[0]):
                    for k in range(matrix.shape[1]):
                        gradient = sum(e[n, d] * h[block + 1][n, k] for n in range(BATCH))
                        moved[d, k] = (1 - self.rule.feedback_decay) * matrix[d, k] - self.rule.feedback_rate * gradient
                self.feedback[block] = moved
        if isinstance(self.rule, ForwardGradient) and self.passes % self.rule.every == 0:
            for matrix, mean in zip(self.feedback, self.jacobians(h), strict=True):
                matrix.copy_((1 - self.rule.feedback_rate) * matrix + self.rule.feedback_rate * mean)
        self.passes += 1
        for layer in range(3):
            self.w[layer] = self.w[layer] - RATE * delta[layer].T @ h[layer]
            self.b[layer] = self.b[layer] - RATE * delta[layer].sum(0)

    def jacobians(self, h: list[Tensor]) -> list[Tensor]:
        """Mean over samples of (J_0 u_0 + J_1 u_1) u_l^T, J_l written out."""
        key = int.from_bytes(b"jvp")
        u = [Draws(key, self.passes, k).normal(*h[k + 1].shape).double() for k in range(2)]
        means = [torch.zeros(CLASSES, width, dtype=torch.float64) for width in (8, 6)]
        for n in range(BATCH):
            to_last = self.w[2] @ torch.diag(1 - h[2][n] ** 2) @ self.w[1]
            t = to_last @ u[0][n] + self.w[2] @ u[1][n]
            for mean, direction in zip(means, u, strict=True):
                mean += torch.outer(t, direction[n]) / BATCH
        return means

    def signal(self, block: int, e: Tensor, y: Tensor) -> Tensor:
        matrix = self.feedback[block]
        if not isinstance(self.rule, Drtp):
            return e @ matrix
        return torch.stack([-matrix[label] / BATCH for label in y.tolist()])


@pytest.mark.parametrize("recompute", [False, True, "stream"])
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_every_weight_is_what_the_formula_gives(rule: AbstractRule, recompute: Any) -> None:
    model, naive = net(), Naive(rule)
    if recompute == "stream" and rule is KP:
        with pytest.raises(ConfigError, match=r"needs every block output, .* keeps none of them; expected recompute=T"):
            DFA(model, rule=rule, recompute=recompute)
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
    x, y = next(batches(1))
    for skip in range(4):
        with dfa.measure_alignment() as angles:
            dfa.targets(y)
            F.cross_entropy(measured(x), y).backward()
        assert set(angles) == {"0", "1"}
        train(dfa, skip + 1, skip=skip)
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), measured.parameters(), strict=True))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_an_error_that_is_not_finite_moves_nothing(rule: AbstractRule) -> None:
    model = net()
    dfa = DFA(model, rule=rule)
    train(dfa, 1)
    before = copy.deepcopy(dfa.at_work.state_dict())
    x, y = next(batches(1))
    dfa.targets(y)
    with pytest.raises(NonFinite, match="error contains NaN"):
        (F.cross_entropy(model(x), y) * float("nan")).backward()
    after = dfa.at_work.state_dict()
    assert str(after) == str(before)
    assert all(torch.equal(after["matrices"][k], before["matrices"][k]) for k in before.get("matrices", {}))
    assert after.get("gathered") == before.get("gathered")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_under_autocast_the_feedback_is_as_precise_as_ever(rule: AbstractRule) -> None:
    model = net().float()
    dfa = DFA(model, rule=rule)
    x, y = next(batches(1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        dfa.targets(y)
        loss = F.cross_entropy(model(x.float()), y)
        loss.backward()
    torch.optim.SGD(model.parameters(), lr=RATE).step()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert all(m.dtype == torch.float32 for m in dfa.at_work.state_dict().get("matrices", {}).values())


# direct random target projection


def test_signals_of_drtp_do_not_depend_on_the_outputs() -> None:
    x, y = next(batches(1))
    one, two = net(), net()
    with torch.no_grad():
        two[2].weight.mul_(-3)  # type: ignore[operator, union-attr]
        two[2].bias.add_(1)  # type: ignore[operator, union-attr]
    ours, theirs = (signals_of(DFA(model, rule=Drtp()), x, y) for model in (one, two))
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    for model in (one, two):
        handle = DFA.of(model)
        assert handle is not None
        handle.remove()
    fed, other = (signals_of(DFA(model, rule=RandomFeedback()), x, y) for model in (one, two))
    assert not torch.equal(fed[0], other[0])


def test_drtp_is_random_feedback_of_the_error_without_the_outputs() -> None:
    """dL/dy of a mean cross-entropy is (p - y) / N: where p is left out, the signals are the same."""
    x, y = next(batches(1))
    model = net()
    ours = signals_of(DFA(model, rule=Drtp(scale=0.4, shared=True)), x, y)
    matrix = Gaussian(seed=0).shaped(CLASSES, 8).matrix().double()
    p = model(x).softmax(1).detach()
    theirs = signals_of(DFA(net(), rule=RandomFeedback(scale=0.4, shared=True)), x, y)
    for signal, fed, width in zip(ours, theirs, (8, 6), strict=True):
        of_outputs = 0.4 / width**0.5 * p / BATCH @ matrix[:, :width]
        torch.testing.assert_close(signal + of_outputs, fed, rtol=1e-6, atol=1e-12)


def test_rows_without_a_label_get_no_signal_and_do_not_count() -> None:
    x, y = next(batches(1))
    y[:3] = -100
    signals = signals_of(DFA(net(), rule=Drtp()), x, y)
    few = signals_of(DFA(net(), rule=Drtp()), x[3:], y[3:])
    for all_rows, some in zip(signals, few, strict=True):
        assert not all_rows[:3].any()
        torch.testing.assert_close(all_rows[3:], some)


@pytest.mark.parametrize(
    ("targets", "told"),
    [
        (torch.full((BATCH,), CLASSES), r"expected labels from 0 to 2, as the error is 3 wide, .* got 3 to 3"),
        (torch.full((BATCH,), -1), r"expected labels from 0 to 2, .* got -1 to -1"),
        (
            torch.zeros(BATCH),
            r"expected one label for each of the 7 rows .* float32 of shape .* use rule=random for values",
        ),
        (
            torch.zeros(BATCH, CLASSES, dtype=torch.long),
            r"expected one label for each of the 7 rows .* int64 of shape \(7, 3\)",
        ),
    ],
)
def test_targets_that_are_no_labels_are_refused(targets: Tensor, told: str) -> None:
    model = net()
    dfa = DFA(model, rule=Drtp())
    x, y = next(batches(1))
    dfa.targets(targets)
    with pytest.raises(MatchError, match=told):
        F.cross_entropy(model(x), y).backward()


# direct Kolen-Pollack


@pytest.mark.parametrize("decay", [0.02, 0.1])
def test_the_matrix_tends_to_the_forward_weight(decay: float) -> None:
    """One linear block and a head without bias that learns by the same gradient, rate and decay: A - W halves away."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.Linear(8, CLASSES, bias=False)).double()
    dfa = DFA(model, ["0"], rule=KolenPollack(feedback_rate=RATE, feedback_decay=decay))
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, weight_decay=decay / RATE)
    gaps = []
    for x, y in batches(30):
        before = model[1].weight.detach().clone()
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        gaps.append(dfa.at_work.state_dict()["matrices"]["0"] - before)
        optimizer.step()
    for step, gap in enumerate(gaps):
        torch.testing.assert_close(gap, (1 - decay) ** step * gaps[0], rtol=1e-9, atol=1e-12)


def test_accumulated_passes_are_one_step() -> None:
    together, apart = net(), net()
    (x1, y1), (x2, y2) = batches(2)
    states = []
    for model, passes in ((together, [((x1, x2), (y1, y2))]), (apart, [((x1,), (y1,)), ((x2,), (y2,))])):
        dfa = DFA(model, rule=KP)
        optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
        for xs, ys in passes:
            (F.cross_entropy(model(torch.cat(xs)), torch.cat(ys)) * len(xs) / 2).backward()
        optimizer.step()
        states.append(dfa.at_work.state_dict()["matrices"])
    for block, matrix in states[0].items():
        torch.testing.assert_close(matrix, states[1][block], rtol=1e-12, atol=1e-15)


class Tokens(nn.Module):
    """Blocks on (B, T, C); what is returned is per token, or pooled per sample."""

    def __init__(self, pooled: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks, self.pooled = nn.ModuleList([nn.Linear(5, 6), nn.Linear(6, 6)]), pooled
        self.head = nn.Linear(6, CLASSES, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(1) if self.pooled else x)  # type: ignore[no-any-return]


@pytest.mark.parametrize("pooled", [False, True])
def test_tokens_learn_what_the_head_behind_them_learns(pooled: bool) -> None:
    """The gathered product of the last block is the head's weight gradient, so that law holds there too."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(4, 3, 5, dtype=torch.float64, generator=generator)
    y = torch.randint(0, CLASSES, (4,) if pooled else (4, 3), generator=generator)
    model = Tokens(pooled).double()
    dfa = DFA(model, "blocks.*", rule=KP)
    F.cross_entropy(model(x).flatten(0, -2), y.flatten()).backward()
    torch.testing.assert_close(dfa.at_work.state_dict()["gathered"]["blocks.1"], model.head.weight.grad)


@pytest.mark.parametrize("per_sample", [False, True])
@pytest.mark.parametrize(
    ("shape", "lead"),
    [((4, 6), (4,)), ((4, 6), (4, 3)), ((4, 3, 6), (4,)), ((4, 3, 6), (4, 3)), ((4, 5, 6), (4, 3)),
     ((4, 2, 5, 3), (4,)), ((3, 4, 6), (4, 3)), ((3, 4, 6), (4,)), ((5, 4, 6), (4, 3)), ((5, 4, 6), (3, 4)),
     ((4, 2, 5, 3), (4, 3))],
)  # fmt: skip
def test_rows_are_the_adjoint_of_signals(shape: tuple[int, ...], lead: tuple[int, ...], per_sample: bool) -> None:
    of_error, of_block = int(lead[0] != 4), int(shape[0] != 4)
    placed = place(shape, lead, (of_error, of_block), per_sample=per_sample)
    generator = torch.Generator().manual_seed(0)
    p = torch.randn(torch.Size(lead).numel(), placed.width, dtype=torch.float64, generator=generator)
    h = torch.randn(shape, dtype=torch.float64, generator=generator)
    there, back = (placed.signal(p, 1.0) * h).sum(), (p * placed.rows(h)).sum()
    torch.testing.assert_close(there, back, rtol=1e-12, atol=1e-12)


def test_a_projection_that_is_no_matrix_is_refused_in_one_line() -> None:
    for projection in (Optical(Twin()), Encoded(Gaussian(), Ternary())):
        model = net()
        with pytest.raises(
            ConfigError, match=r"rule: kolen_pollack goes on from the matrix itself, .* digital"
        ) as told:
            DFA(model, rule=KP, projection=projection)
        assert "\n" not in str(told.value)
        assert DFA.of(model) is None
    DFA(net(), rule=KP, projection=Rademacher())


def test_what_it_costs_is_said() -> None:
    model = net()
    dfa = DFA(model, rule=KP, projection=Gaussian(seed=2))
    assert "not run yet" in repr(dfa)
    train(dfa, 1)
    assert "electronic matrices that learn, 84 multiply-adds a row; they start as gaussian(seed=2" in repr(dfa)
    assert (
        KP.electronic("all", num_outputs=3, width=6)
        == "all: learned feedback, 36 multiply-adds a row for a block 6 wide"
    )


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"matrices": {}}, "matrices: 0 is missing"),
        ({"matrices": {"0": torch.zeros(3, 7), "1": torch.zeros(3, 6)}}, r"matrices.0: expected a matrix of 3 x 8"),
        ({"gathered": {"9": torch.zeros(3, 6)}}, r"gathered.9: expected no matrix"),
        ({"matrices": {"0": torch.full((3, 8), torch.nan)}}, "finite|NaN|tensor"),
        ({"num_inputs": None}, "num_inputs"),
        ({"rate": 1}, "rate"),
    ],
)
def test_states_that_do_not_fit_are_refused(change: dict[str, Any], told: str) -> None:
    dfa = DFA(net(), rule=KP)
    train(dfa, 1)
    state = dfa.at_work.state_dict()
    with pytest.raises(CheckpointError, match=told):
        dfa.at_work.load_state_dict({**state, **change})


def test_a_block_that_appears_late_leaves_the_others_matrices() -> None:
    class Skips(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.blocks, self.head, self.all = nn.ModuleList([nn.Linear(5, 5), nn.Linear(5, 5)]), nn.Linear(5, 3), False

        def forward(self, x: Tensor) -> Tensor:
            for block in self.blocks if self.all else self.blocks[:1]:
                x = torch.tanh(block(x))
            return self.head(x)  # type: ignore[no-any-return]

    model = Skips().double()
    dfa = DFA(model, "blocks.*", rule=KP)
    x, y = next(batches(1))
    F.cross_entropy(model(x), y).backward()
    before = dfa.at_work.state_dict()["matrices"]
    model.all = True
    F.cross_entropy(model(x), y).backward()
    after = dfa.at_work.state_dict()["matrices"]
    assert torch.equal(before["blocks.0"], after["blocks.0"])
    assert torch.equal(after["blocks.1"], 0.7 / 5**0.5 * Gaussian().shaped(3, 10).matrix()[:, 5:].double())


# feedback that follows the Jacobian


@pytest.mark.parametrize("pooled", [False, True])
def test_the_matrix_tends_to_the_jacobian(pooled: bool) -> None:
    """Linear blocks: dy/dh of the last one is the head's weight, of the first one that times the last one's."""
    model = Tokens(pooled).double()
    dfa = DFA(model, "blocks.*", rule=ForwardGradient())
    x = torch.randn(512, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for _ in range(8):
        model(x).square().mean().backward()
    state = dfa.at_work.state_dict()
    assert (state["passes"], state["measured"]) == (8, 8)
    weights = {"blocks.0": model.head.weight @ model.blocks[1].weight, "blocks.1": model.head.weight}
    for block, weight in weights.items():
        found = state["learned"]["gathered"][block] / 8
        assert (found - weight).norm() < 0.15 * weight.norm()


def test_the_directions_pass_attention_and_dropout_as_the_first_run_did() -> None:
    """The derivative in forward mode is that of the very pass that learns: as autograd gives it for the same draws."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.3, batch_first=True)
    model = nn.Sequential(nn.Linear(5, 8), layer, nn.Linear(8, CLASSES)).double()
    x, u = (torch.randn(3, 4, width, dtype=torch.float64) for width in (5, 8))
    torch.manual_seed(3)
    h = model[0](x)
    _, expected = torch.autograd.functional.jvp(lambda h: model[2](model[1](h)), h, u)
    dfa, found = DFA(model, ["0"], rule=FG), []
    signals = dfa.at_work.signals

    def watched(error: Any, calls: Any) -> list[Tensor]:
        found.append(error.products([u]))
        return signals(error, calls)

    dfa.at_work.signals = watched  # type: ignore[method-assign]
    torch.manual_seed(3)
    model(x).square().mean().backward()
    torch.testing.assert_close(found[0], expected.flatten(0, 1), rtol=1e-9, atol=1e-12)


def test_an_operation_without_a_derivative_in_forward_mode_is_told() -> None:
    class Own(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x * 2

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:
            return grad * 2

    class Doubles(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return Own.apply(x)  # type: ignore[no-any-return, no-untyped-call]

    model = nn.Sequential(nn.Linear(5, 8), Doubles(), nn.Linear(8, CLASSES)).double()
    dfa = DFA(model, ["0"], rule=FG)
    x, y = next(batches(1))
    with pytest.raises(MatchError, match=r"no derivative in forward mode: .*; use rule=kolen_pollack"):
        F.cross_entropy(model(x), y).backward()
    assert dfa.second_run is None


def test_forward_products_are_those_of_one_output_and_asked_for() -> None:
    model = net()
    with pytest.raises(MatchError, match="needs forward products of one output, got error_at="):
        DFA(model, ["0"], rule=FG, error_at=["1", "2"])
    assert DFA.of(model) is None
    with pytest.raises(ConfigError, match="forward products at here were not asked for"):
        ErrorSignal(e_ND=torch.zeros(1, 1), tap="here", lead=(1,)).products([])
