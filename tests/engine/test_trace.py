"""What a traced forward pass keeps of the graph."""

import torch
from torch import Tensor

from odfa.engine.gates import mark
from odfa.engine.trace import Trace


def marked() -> Tensor:
    return mark(torch.ones(2, requires_grad=True) * 3, lambda grad: [grad])


def test_nodes_tell_their_edges_when_the_tensors_that_came_from_them_are_gone():
    """Torch before 2.13 frees nodes written in Python with the last such tensor, though somebody refers to them."""
    trace, received, handed = Trace(), marked(), marked()
    trace.begin([received], strip=True)
    span = trace.end()
    trace.count(span, (2,))
    trace.mark(span, handed, received)
    del received, handed
    nodes = [*span.entries, *span.marks]
    assert len(nodes) == 2
    assert [[child.name() for child, _ in node.next_functions if child is not None] for node in nodes] == [
        ["MulBackward0"],
        ["MulBackward0"],
    ]
