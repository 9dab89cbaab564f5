"""GPT-2 of a size, and a training step of it: by backpropagation or by DFA, compiled or not."""

from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from measuring import Call, reason, release
from torch import Tensor, nn

from accelerator_parts.found import Found, Setting
from odfa import DFA, AlignedHead, Gaussian, Hadamard, Optical, RandomFeedback, Ternary, Twin
from odfa.engine import LinearCrossEntropy, compile_blocks

BLOCKS = "transformer.h.*"


@dataclass(frozen=True, kw_only=True)
class Size:
    """Of a model and its batch."""

    blocks: int
    width: int
    heads: int
    vocabulary: int
    batch: int
    context: int
    rank: int
    """Of the aligned rule's electronic part."""
    pure: bool = False
    """Weights in bfloat16; otherwise in float32, under autocast to bfloat16."""

    def as_json(self) -> dict[str, Any]:
        """For the file."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Method:
    """A way to train a model of this size."""

    size: Size
    feedback: dict[str, Any] | None = field(default_factory=dict)
    """Arguments of `DFA`; None: backpropagation."""
    head_rows: int | None = None
    """Tokens whose logits and error are there at a time; None: all."""


def gpt2(size: Size, device: torch.device) -> nn.Module:
    """The same weights each time on one device; without dropout, input and output embeddings apart."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(n_layer=size.blocks, n_embd=size.width, n_head=size.heads, vocab_size=size.vocabulary,
                        n_positions=size.context, tie_word_embeddings=False, resid_pdrop=0.0, embd_pdrop=0.0,
                        attn_pdrop=0.0, bos_token_id=0, eos_token_id=0, use_cache=False)  # fmt: skip
    torch.manual_seed(0)
    with torch.device(device):
        model = GPT2LMHeadModel(config)
    return model.to(torch.bfloat16) if size.pure else model


def methods(size: Size) -> dict[str, Method]:
    """All that are timed. Feedback per linear layer refuses autocast, so that it and its bp have bfloat16 weights."""
    aligned: dict[str, Any] = {"projection": Gaussian(seed=0), "rule": AlignedHead(rank=size.rank)}
    sublayer, pure = {**aligned, "branches": f"{BLOCKS}.ln_2"}, replace(size, pure=True)
    linear = {**sublayer, "linears": (f"{BLOCKS}.attn.c_proj", f"{BLOCKS}.mlp.c_proj")}
    random = {"projection": Hadamard(seed=0), "rule": RandomFeedback()}
    return {
        "bp": Method(size=size, feedback=None),
        "aligned, exact error": Method(size=size, feedback=aligned),
        "aligned, four draws": Method(size=size, feedback={**aligned, "encoder": Ternary("sampled", repeats=4)}),
        "aligned, twin opu-2021": Method(size=size, feedback=through_twin(size)),
        "random feedback, a slice a block, Hadamard": Method(size=size, feedback=random),
        "aligned, sublayer": Method(size=size, feedback=sublayer),
        "bp, bfloat16 weights": Method(size=pure, feedback=None),
        "aligned, linear, bfloat16 weights": Method(size=pure, feedback=linear),
    }


def through_twin(size: Size) -> dict[str, Any]:
    """The aligned rule, its error drawn four times and projected by the twin with all its noise."""
    optical = Optical(Twin.preset("opu-2021"), encoder=Ternary("sampled", repeats=4))
    return {"projection": optical, "rule": AlignedHead(rank=size.rank)}


def step(method: Method, setting: Setting, *, compiled: bool) -> Call:
    """A training step of a model of its own on random tokens: forward, backward and a fused AdamW."""
    size, device, compiler = method.size, setting.device, setting.compiler if compiled else False
    model, backward = gpt2(size, device), Tensor.backward
    if method.feedback is not None:
        backward = DFA(model, BLOCKS, compile=compiler, overwrite_head=True, **method.feedback).backward
    elif compiler:
        names = [f"transformer.h.{number}" for number in range(size.blocks)]
        compile_blocks(model, names, *([compiler] if isinstance(compiler, str) else []))
    ids = torch.randint(0, size.vocabulary, (size.batch, size.context), device=device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    in_rows = None if method.head_rows is None else LinearCrossEntropy(model, model.lm_head, rows=method.head_rows)

    def train() -> None:
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=not size.pure):
            loss = model(input_ids=ids, labels=ids).loss if in_rows is None else in_rows(ids, input_ids=ids)
        backward(loss)
        optimizer.step()

    return train


def steps(chosen: dict[str, Method], setting: Setting, found: Found, *, compiled: bool) -> dict[str, Call]:
    """A step for each method; those that cannot be attached are named in `found.failed`."""
    made: dict[str, Call] = {}
    for name, method in chosen.items():
        try:
            made[name] = step(method, setting, compiled=compiled)
        except Exception as error:
            found.failed[name] = reason(error)
        if name in found.failed:
            release(setting.device)
    return made
