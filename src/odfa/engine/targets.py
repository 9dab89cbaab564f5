"""What the outputs of a forward pass should have been, as rows beside those of the error."""

from dataclasses import replace

from torch import Tensor

from odfa.errors import MatchError
from odfa.flow import ErrorSignal


def with_targets(error: ErrorSignal, targets: Tensor | None, rule: str) -> ErrorSignal:
    """The error with one row of targets for each of its rows: (N,) labels, or (N, …) values, their axes flattened.

    Args:
        targets: of the forward pass that the error belongs to; None: nobody handed any over.
        rule: its name, for the message.

    Raises:
        MatchError: there are none, or their first axes are not those of the output.
    """
    if targets is None:
        raise MatchError(
            f"rule {rule} needs the targets of this forward pass, got none; call dfa.targets(y) before the model runs, "
            "once for each forward pass"
        )
    axes = len(error.lead)
    if tuple(targets.shape[:axes]) != error.lead:
        raise MatchError(
            f"targets: expected {error.lead} as their first axes, one target for each row of the error at {error.tap}, "
            f"got shape {tuple(targets.shape)}; hand over those of the batch that the model then runs on"
        )
    rows = targets.flatten(0, axes - 1)
    return replace(error, known_targets=rows.flatten(1) if rows.ndim > 1 else rows)
