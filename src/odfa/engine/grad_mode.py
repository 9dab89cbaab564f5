"""The one place where the engine switches autograd off and on.

A module that has to run without a graph is called by code that is not ours, so no `with torch.no_grad()` can stand
around the call: one hook switches autograd off in front of the module, another one on again behind it.
"""

import torch


def stop_recording() -> None:
    """What runs next builds no graph."""
    torch.set_grad_enabled(False)


def resume_recording() -> None:
    """What runs next builds a graph again; called behind every module that `stop_recording` was called for."""
    torch.set_grad_enabled(True)


def recording() -> torch.enable_grad:
    """A context in which everything builds a graph, also during a backward pass."""
    return torch.enable_grad()
