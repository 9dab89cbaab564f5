"""What a walk counts agrees with formulas, with the depth, and with what really runs."""

import gc
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from odfa import DFA, Gaussian, RandomFeedback
from odfa.arms import arm
from odfa.errors import MatchError
from odfa.scaling import Gpt, walk_module, walk_run, walks_of_gpt
from odfa.scaling.model import _sibling
from odfa.scaling.tally import Counting, Tally, matmul
from odfa.session import MemorySettings

TINY = Gpt(depth=2, width=64, tokens=64, context=32, vocabulary=128)


class Stack(nn.Module):
    def __init__(self, width: int, depth: int, classes: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(width, width), nn.Tanh()) for _ in range(depth))
        self.head = nn.Linear(width, classes)

    def forward(self, x_ND):
        for block in self.blocks:
            x_ND = block(x_ND)
        return self.head(x_ND)


@settings(max_examples=15, deadline=None)
@given(n=st.integers(1, 40), width=st.integers(1, 40), depth=st.integers(2, 5), classes=st.integers(1, 20))
def test_operations_of_a_perceptron_follow_the_formula(n, width, depth, classes):
    """Forward 2 n w per weight; backward twice that, less the gradient of the input that nobody asks for."""
    hidden, head = width * width, width * classes
    walks = {
        learning: walk_module(Stack(width, depth, classes), (torch.empty(n, width),), learning, blocks="blocks.*")
        for learning in ("bp", "shallow", "feedback")
    }
    for walk in walks.values():
        assert walk.forward.flops == 2 * n * (depth * hidden + head)
    assert walks["bp"].backward.flops == 2 * n * ((2 * depth - 1) * hidden + 2 * head)
    # no block computes the gradient of its input, nor does the head
    assert walks["feedback"].backward.flops == 2 * n * (depth * hidden + head)
    assert walks["shallow"].backward.flops == 2 * n * head


def test_a_walk_counts_what_torch_counts_in_a_real_step():
    """The same step on real tensors, counted by torch: the fused attention aside, which torch does not count."""
    walk = walk_module(Stack(24, 3, 7), (torch.empty(5, 24),), "bp", blocks="blocks.*")
    model = Stack(24, 3, 7)
    with FlopCounterMode(display=False) as counter:
        model(torch.randn(5, 24)).square().mean().backward()
    assert walk.forward.flops + walk.backward.flops == counter.get_total_flops()


def test_feedback_walks_count_what_an_attached_model_does():
    walk = walk_module(Stack(24, 3, 7), (torch.empty(5, 24),), "feedback", blocks="blocks.*")
    model = Stack(24, 3, 7)
    DFA(model, "blocks.*", projection=Gaussian(seed=0), rule=RandomFeedback(shared=True))
    model(torch.randn(5, 24)).square().mean().backward()  # the first step looks for ways around the blocks
    with FlopCounterMode(display=False) as counter:
        model(torch.randn(5, 24)).square().mean().backward()
    projected = matmul(walk.rows, walk.row_width, walk.signal_width, element_bytes=4).flops
    assert (walk.rows, walk.row_width, walk.signal_width) == (5, 7, 24)
    assert walk.forward.flops + walk.backward.flops + projected == counter.get_total_flops()


@pytest.mark.parametrize("method", ["bp", "shallow", "dfa"])
def test_everything_is_affine_in_the_depth(method):
    """Walked directly, and stretched from two shallow siblings: equal to the last kernel."""
    near, far, deep = (
        walk_run(arm(Gpt(depth=depth, width=64, tokens=64, context=32, vocabulary=128).run(), method), TINY.shape)
        for depth in (1, 2, 6)
    )
    stretched = near.stretched(far, 6)
    for quantity in ("parameters", "updated", "tensors", "depth", "rows"):
        assert getattr(stretched, quantity) == getattr(deep, quantity)
    assert stretched.forward.flops == deep.forward.flops
    assert stretched.backward.flops == pytest.approx(deep.backward.flops, rel=1e-12)
    assert stretched.backward.num_bytes == pytest.approx(deep.backward.num_bytes, rel=1e-9)
    assert stretched.peak_forward == pytest.approx(deep.peak_forward, rel=0.02)
    assert stretched.peak == pytest.approx(deep.peak, rel=0.02)


def test_the_peak_is_that_of_the_first_step_where_later_ones_keep_no_graph():
    gpt = Gpt(depth=6, width=64, tokens=128, context=64, vocabulary=64)
    walks = {method: walk_run(arm(gpt.run(), method), gpt.shape) for method in ("bp", "shallow", "dfa")}
    assert walks["shallow"].peak_forward < 0.3 * walks["bp"].peak_forward
    # every block's graph is searched for ways around it, so all of them are there at once
    assert walks["shallow"].peak == pytest.approx(walks["bp"].peak_forward, rel=0.1)
    assert walks["dfa"].peak == pytest.approx(walks["bp"].peak, rel=0.1)


def test_blocks_that_learn_by_themselves_compute_less_and_linear_layers_least():
    walks = [walks_of_gpt(TINY, "float32", granularity)["feedback", "keep"] for granularity in ("block", "linear")]
    bp = walks_of_gpt(TINY, "float32")["bp", "keep"]
    assert walks[1].backward.flops < walks[0].backward.flops < bp.backward.flops


def test_streaming_keeps_least_and_works_most():
    kept = walks_of_gpt(TINY, "float32")["feedback", "keep"]
    streamed = walk_run(arm(TINY.run(memory=MemorySettings(activations="stream", fused=True)), "dfa"), TINY.shape)
    assert streamed.peak_backward < kept.peak_backward
    assert streamed.forward.flops + streamed.backward.flops > kept.forward.flops + kept.backward.flops


def test_a_hop_costs_the_input_gradients_of_all_blocks_but_the_first():
    """2 operations for each of the 12 C^2 weights of a block and each token; nothing of the head or of weights."""
    one, two = (
        _sibling(Gpt(depth=4, width=64, tokens=64, context=32, vocabulary=128, hops=hops), "float32", "block")
        for hops in (1, 2)
    )
    added = {key: two[key].backward.matmul_flops - one[key].backward.matmul_flops for key in one}
    assert added["feedback", "keep"] == 3 * 2 * 12 * 64**2 * 64
    # streaming runs the model again for it, up to the last block
    again = one["feedback", "stream"].forward.matmul_flops - 2 * 64 * 64 * 128
    assert added["feedback", "stream"] == pytest.approx(added["feedback", "keep"] + again, rel=1e-9)
    assert added["bp", "keep"] == added["bp", "recompute"] == 0
    for key in one:
        assert two[key].forward == one[key].forward


@pytest.mark.parametrize("every", [2, 5])
def test_a_seldom_hop_costs_its_share(every):
    """The products of a hop over n, and the memory of a step that computes it."""
    sizes = Gpt(depth=4, width=64, tokens=64, context=32, vocabulary=128)
    one, two, seldom = (
        _sibling(replace(sizes, hops=hops, hop_every=n), "float32", "block") for hops, n in ((1, 1), (2, 1), (1, every))
    )
    for key in (("feedback", "keep"), ("feedback", "stream")):
        of_a_hop = two[key].backward.matmul_flops - one[key].backward.matmul_flops
        saved = one[key].backward.matmul_flops - seldom[key].backward.matmul_flops
        assert saved == pytest.approx((1 - 1 / every) * of_a_hop, rel=1e-9)
        assert seldom[key].peak_backward == one[key].peak_backward
        assert seldom[key].forward == one[key].forward
        assert seldom[key].crossings == 1 / every
    assert seldom["bp", "keep"].backward == one["bp", "keep"].backward


def test_nothing_is_allocated():
    """A model of 10^12 parameters: its weights would take four terabytes."""
    gpt = Gpt(depth=128, width=25600, tokens=1024, context=1024, vocabulary=50304)
    walks = walks_of_gpt(gpt, "float32")
    assert walks["bp", "keep"].parameters == pytest.approx(gpt.parameters, rel=1e-12)
    assert gpt.parameters > 1e12


def test_bytes_alive_are_those_of_tensors_that_live():
    with Counting() as counting:
        a = torch.empty(100, device="meta")
        b = a + a
        view = b[:10]
        assert counting.alive == 800
        del a
        gc.collect()
        assert counting.alive == 400
        del b
        gc.collect()
        assert counting.alive == 400, "a view keeps its storage"
        del view
        gc.collect()
    assert counting.alive == 0
    tally, history = counting.taken()
    assert tally == Tally(num_bytes=400 + 800, calls=2), (
        "a tensor is written; one is read and one written; views are free"
    )
    assert history.tolist() == [400, 800, 800]
    assert counting.taken()[0] == Tally()


def test_weights_and_inputs_are_not_among_the_bytes_alive():
    walk = walk_module(Stack(8, 2, 4), (torch.empty(3, 8),), "bp", blocks="blocks.*")
    tanh, logits, loss = 2 * 4 * 3 * 8, 4 * 3 * 4, 4
    assert walk.peak_forward == tanh + 2 * logits + loss, "what backward needs, the squares among it, and the loss"


@pytest.mark.parametrize("learning", ["bp", "shallow", "feedback"])
def test_a_walked_model_keeps_its_weights_and_nothing_is_left_on_it(learning):
    model = Stack(8, 2, 4)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    walk_module(model, (torch.randn(3, 8),), learning, blocks="blocks.*")
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(p.grad is None and not p.is_meta for p in model.parameters())
    assert DFA.of(model) is None


class Curious(Stack):
    def forward(self, x_ND):
        return super().forward(x_ND) * float(x_ND.sum())


class Counted(Stack):
    def forward(self, x_ND):
        return super().forward(x_ND[x_ND[:, 0] > 0])


@pytest.mark.parametrize("kind", [Curious, Counted])
def test_a_model_that_looks_at_values_is_refused_in_one_line(kind):
    with pytest.raises(MatchError, match="value") as refused:
        walk_module(kind(8, 2, 4), (torch.empty(3, 8),), "bp", blocks="blocks.*")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("depth", "width", "hops"), [(1, 64, 0), (2, 192, 0), (5, 128, 0), (2, 1024, 0), (1, 20480, 0), (4, 192, 1)]
)
def test_a_gpt_of_any_size_follows_from_six_small_ones(depth, width, hops):
    """Walked directly, and worked out from siblings of other widths and depths: kernel by kernel the same."""
    gpt = Gpt(depth=depth, width=width, tokens=64, context=32, vocabulary=128, hops=hops)
    derived, direct = walks_of_gpt(gpt, "float32"), _sibling(gpt, "float32", "block")
    for key, walk in direct.items():
        for part in ("forward", "backward"):
            ours, theirs = getattr(derived[key], part), getattr(walk, part)
            for quantity in ("matmul_flops", "attention_flops", "num_bytes", "calls"):
                assert getattr(ours, quantity) == pytest.approx(getattr(theirs, quantity), rel=1e-9), (key, quantity)
        assert derived[key].parameters == pytest.approx(walk.parameters, rel=1e-12)
        # where the fullest moment changes from one block to two, only all gradients are counted besides
        bound = max(walk.peak_forward, walk.peak_backward)
        assert max(derived[key].peak_forward, derived[key].peak_backward) == pytest.approx(bound, rel=0.05), key


def test_tallies_add_and_scale():
    a, b = Tally(2.0, 1.0, 4.0, 1.0), Tally(1.0, 0.0, 8.0, 1.0)
    assert 2.0 * a + -1.0 * b == Tally(3.0, 2.0, 0.0, 1.0)
    assert a.flops == 3.0
