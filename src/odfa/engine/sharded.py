"""What is spread over processes: parameters by `fully_shard`, layers, sequences and logits by tensor parallelism."""

import sys
from collections.abc import Iterable, Sequence

from torch import nn
from torch.utils.hooks import RemovableHandle

from odfa.engine.handle import Handle
from odfa.engine.step import Step
from odfa.engine.tensors import is_spread
from odfa.error import leading_shape
from odfa.errors import MatchError


def prepare(handle: Handle, cutting: Sequence[tuple[nn.Module, RemovableHandle]]) -> None:
    """Before a forward pass; `cutting`: the hooks that cut the graph at blocks.

    Raises:
        MatchError: what reads whole parameters is asked for while they are spread.
    """
    if any_sharded([handle.model, *handle.blocks.values()]):
        check_whole(handle)
        cut_last(cutting)


def any_sharded(modules: Iterable[nn.Module]) -> bool:
    """Whether `fully_shard` has been applied to one of the modules themselves."""
    fsdp = sys.modules.get("torch.distributed.fsdp")  # loading it takes long, and who applied it has loaded it
    return fsdp is not None and any(isinstance(module, fsdp.FSDPModule) for module in modules)


def check_whole(handle: Handle) -> None:
    """Refuse what reads parameters while they are spread.

    Raises:
        MatchError: the rule reads the head's weight, layers are fed by a mean weight, or alignment is measured.
    """
    if handle.rule.sets_head:
        what, instead = f"rule {handle.rule.name} reads the head's whole weight", "use RandomFeedback()"
    elif handle.linears.layers:
        what, instead = "linears= reads the whole weights of other blocks", "attach without linears="
    elif handle.mode == "measure":
        what, instead = "measure_alignment() reads whole gradients", "measure on a copy that is not sharded"
    else:
        return
    raise MatchError(f"{what}, but fully_shard has spread the parameters of this model over processes; {instead}")


def check_tokens(handle: Handle, step: Step) -> None:
    """Refuse blocks that return a part of the sequence on each process while the error has all of it.

    Raises:
        MatchError: a block whose weights are DTensors returned another number of tokens than the error has.
    """
    lead = max((leading_shape(tuple(tie.shape)) for tie in step.taps.ties), key=len, default=())
    for call in step.calls:
        block = handle.blocks[call.block]
        if len(lead) != 2 or len(call.shape) != 3 or call.shape[0] != lead[0] or call.shape[1] == lead[1]:
            continue
        if not any_sharded([handle.model, block]) and any(map(is_spread, block.parameters())):
            raise MatchError(
                f"block {call.block} returned {call.shape[1]} of the error's {lead[1]} tokens on this process "
                "(sequence parallelism); let it return whole sequences, RowwiseParallel(output_layouts=Replicate())"
            )


def cut_last(hooks: Iterable[tuple[nn.Module, RemovableHandle]]) -> None:
    """Let the hooks that cut the graph at blocks run behind those of `fully_shard`, however late it was applied.

    It gathers a block's parameters again in backward when a gradient arrives at what the block returned, which has to
    be seen with its history.
    """
    for block, hook in hooks:
        block._forward_hooks[hook.id] = block._forward_hooks.pop(hook.id)
