"""Hops of credit that are computed in one of n backward passes only."""

import copy

import pytest
from torch import Tensor

from odfa import DFA, AlignedHead, ElectronicOnly, ExactHead, Gaussian
from odfa.errors import ConfigError
from tests.engine.test_hops import (
    CLASSES,
    DEPTH,
    EXECUTIONS,
    WIDTH,
    Gpt,
    _backpropagated,
    _equal,
    _gradients,
    _learned,
    _loss,
    _model,
    _reference,
    batch,
)

__all__ = ["batch"]  # the fixture


def _seldom(model: Gpt, batch: tuple[Tensor, Tensor], rule: ExactHead, passes: int, **settings: object) -> list:
    """Gradients of each pass, with the weights as they are; the first one is traced."""
    dfa = DFA(model, blocks="blocks.*", rule=rule, projection=Gaussian(seed=1), error_at="head", **settings)  # type: ignore[arg-type]
    found = []
    for _ in range(passes):
        model.zero_grad()
        _loss(model, batch).backward()
        found.append(_gradients(model))
    dfa.remove()
    return found


def _ahead(model: Gpt, batch: tuple[Tensor, Tensor], hops: int, weight: int) -> dict[str, Tensor]:
    """Gradients of q + weight (d_l - q), from those of d_l and of q, in which they are linear."""
    none, all_of_it = _reference(model, batch, 0), _reference(model, batch, hops)
    return {name: none[name] + weight * (all_of_it[name] - none[name]) for name in none}


@pytest.mark.parametrize("recompute", EXECUTIONS)
@pytest.mark.parametrize(("hops", "every"), [(1, 2), (1, 3), (2, 2), (DEPTH, 3)])
def test_seldom_hops_element_by_element_and_their_mean(batch, recompute, hops, every):
    """n times what hops add in the first of n passes, nothing in the others; the mean is that of hops in each."""
    model = _model()
    found = _seldom(model, batch, ExactHead(hops=hops, hop_every=every), 2 * every, recompute=recompute)
    for place, gradients in enumerate(found):
        _equal(gradients, _ahead(model, batch, hops, every if place % every == 0 else 0))
    mean = {name: sum(one[name] for one in found[every:]) / every for name in found[0]}
    _equal(mean, _reference(model, batch, hops))


@pytest.mark.parametrize("make", [AlignedHead, ElectronicOnly, ExactHead])
@pytest.mark.parametrize("recompute", EXECUTIONS)
def test_seldom_hops_of_all_rules(batch, make, recompute):
    """Every rule of the head counts its passes."""
    ranked = {} if make is ExactHead else {"rank": 2}
    model = _model()
    runs = {
        (hops, every): _seldom(
            copy.deepcopy(model), batch, make(hops=hops, hop_every=every, **ranked), 3, recompute=recompute
        )
        for hops, every in ((0, 1), (1, 1), (1, 2))
    }
    for place, weight in enumerate((2, 0, 2)):
        none, each = runs[0, 1][place], runs[1, 1][place]
        _equal(runs[1, 2][place], {name: none[name] + weight * (each[name] - none[name]) for name in none})


@pytest.mark.parametrize("outside", [False, True])
def test_seldom_hops_where_the_residual_leads_around_blocks(batch, outside):
    """Passes without a hop are those of no hop, whether the stream lies in the blocks or around them."""
    model = _model(outside=outside)
    found = _seldom(model, batch, ExactHead(hops=DEPTH, hop_every=2), 4)
    true, none = _backpropagated(model, batch), _learned(_model(outside=outside), batch, ExactHead())
    for place, gradients in enumerate(found):
        weight = 0 if place % 2 else 2
        wanted = {name: none[name] + weight * (true[name] - none[name]) for name in none}
        _equal({name: gradients[name] for name in wanted}, wanted)


@pytest.mark.parametrize("make", [AlignedHead, ElectronicOnly, ExactHead])
@pytest.mark.parametrize("before", [1, 2, 3])
def test_a_resumed_run_goes_on_with_the_same_pass(batch, make, before):
    ranked = {} if make is ExactHead else {"rank": 2, "every": 2}
    settings = {"blocks": "blocks.*", "projection": Gaussian(seed=1), "error_at": "head"}
    rule = make(hops=1, hop_every=3, **ranked)
    model = _model()
    dfa = DFA(model, rule=rule, **settings)
    for _ in range(before):
        _loss(model, batch).backward()
    again = _model()
    resumed = DFA(again, rule=rule, **settings)
    again.load_state_dict(model.state_dict())
    resumed.load_state_dict(copy.deepcopy(dfa.state_dict()))
    for _ in range(4):
        for one in (model, again):
            one.zero_grad()
            _loss(one, batch).backward()
        assert all(p.grad.equal(q.grad) for p, q in zip(model.parameters(), again.parameters(), strict=True))


def test_the_backward_pass_that_comes_first_hops(batch):
    """Two forward passes are open at once, and their gradients accumulate."""
    model = _model()
    rule = ExactHead(hops=1, hop_every=2)
    dfa = DFA(model, blocks="blocks.*", rule=rule, projection=Gaussian(seed=1), error_at="head")
    losses = [_loss(model, batch), _loss(model, batch)]
    losses[1].backward()
    first = _gradients(model)
    losses[0].backward()
    both = _gradients(model)
    dfa.remove()
    _equal(first, _ahead(model, batch, 1, 2))
    _equal(both, {name: 2 * grad for name, grad in _reference(model, batch, 1).items()})


def test_angles_are_those_of_hops_in_every_pass(batch):
    """Whatever pass they are measured in; measuring does not count as a pass."""
    angles: list[list[float]] = []
    model = _model()
    for every in (1, 3):
        dfa = DFA(
            copy.deepcopy(model),
            blocks="blocks.*",
            rule=ExactHead(hops=1, hop_every=every),
            projection=Gaussian(seed=1),
            error_at="head",
        )
        for _ in range(4):
            with dfa.measure_alignment() as alignment:
                _loss(dfa.model, batch).backward()
            angles.append(list(alignment.values()))
            assert dfa.state_dict()["feedback"]["steps"] == (len(angles) - 1) % 4
            _loss(dfa.model, batch).backward()
        dfa.remove()
    assert all(found == angles[0] for found in angles)


def test_the_texts_say_how_often_hops_are_computed(batch):
    rule = AlignedHead(hops=1, hop_every=3, rank=2)
    dfa = DFA(_model(), blocks="blocks.*", rule=rule, projection=Gaussian(seed=1), error_at="head")
    assert "hops of credit: 1, electronic, in one of 3 backward passes, times 3; each takes" in str(dfa)
    told = rule.electronic("x", num_outputs=CLASSES, width=WIDTH)
    assert told.endswith("1 hop of credit across the blocks in one of 3 backward passes, times 3")
    assert "backward passes" not in AlignedHead(hops=1).electronic("x", num_outputs=CLASSES, width=WIDTH)


@pytest.mark.parametrize("every", [0, -2])
def test_passes_between_hops_are_counted(every):
    with pytest.raises(ConfigError, match="hop_every: expected 1 to"):
        ExactHead(hops=1, hop_every=every)


@pytest.mark.parametrize("make", [AlignedHead, ExactHead])
def test_how_often_hops_are_computed_is_refused_where_there_are_none(make):
    with pytest.raises(ConfigError, match="hop_every: expected 1, as hops=0 computes none, got 2"):
        make(hop_every=2)
    assert make(hop_every=2, hops=1).hop_every == 2
