"""The printed table says truthfully what learns by what."""

from torch import nn

from odfa.engine import DFA, AlignedHead, RandomFeedback
from odfa.project import Identity
from tests.engine.problems import make


def lines(model: nn.Module) -> dict[str, str]:
    table = repr(DFA.of(model))
    return {line.partition(": ")[0]: line.partition(": ")[2] for line in table.splitlines() if ": " in line}


def test_before_the_first_forward_it_speaks_of_the_module_tree() -> None:
    model, problem = make("gpt2")
    DFA(model, problem.blocks)
    assert "not run yet" in repr(DFA.of(model))
    assert "lm_head.weight" in lines(model)["outside the blocks (known after the first training forward)"]


def test_direct_wiring() -> None:
    model, problem = make("gpt2")
    DFA(model, problem.blocks)
    problem.loss(model).backward()
    rows = lines(model)
    assert rows["true gradient"] == "lm_head.weight, transformer.ln_f.bias, transformer.ln_f.weight"
    assert "gaussian(seed=0, inputs=11" in rows["feedback"]
    assert "transformer.h.1" in repr(DFA.of(model))
    assert "2x6x16" in repr(DFA.of(model))


def test_residual_wiring_counts_the_electronic_part() -> None:
    model, problem = make("gpt2")
    DFA(model, problem.blocks, rule=AlignedHead(rank=2))
    problem.loss(model).backward()
    rows = lines(model)
    assert rows["true gradient"] == "lm_head.weight"
    assert rows["signal on its way to the blocks"] == "transformer.ln_f.bias, transformer.ln_f.weight"
    assert "electronic rank 2 (30.7% of the exact product)" in rows["feedback"]  # 2 (11 + 16) / (11 * 16)


def test_tied_weights_are_named_as_receiving_both() -> None:
    model, problem = make("gpt2_tied")
    DFA(model, problem.blocks)
    problem.loss(model).backward()
    assert lines(model)["true gradient and local gradient (shared weights)"] == "transformer.wte.weight"


def test_what_lies_between_the_tap_and_the_loss_learns_by_true_gradient() -> None:
    model, problem = make("mlp")
    DFA(model, ["2", "4", "6"], projection=Identity(), rule=RandomFeedback(shared=True), error_at="6")
    problem.loss(model).backward()
    rows = lines(model)
    assert rows["true gradient"] == "5.bias, 5.weight, 7.bias, 7.weight"
    assert "no gradient: not used on the way to the error, or cut off by the rule" not in rows


def test_unused_and_frozen_parameters_are_named() -> None:
    model, problem = make("vit")
    model.add_module("spare", nn.Linear(2, 2))
    model.classifier.bias.requires_grad_(False)
    DFA(model, problem.blocks, error_at="classifier")
    problem.loss(model).backward()
    rows = lines(model)
    assert rows["frozen"] == "classifier.bias"
    assert "spare.weight" in rows["no gradient"]
