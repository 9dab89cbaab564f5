"""Step time of block-level DFA against backpropagation: one run, steps interleaved, medians and ratios.

    python benchmarks/step_time.py [--steps 40] [--threads N] [--only gpt2_768] [--json]
    python benchmarks/step_time.py --only host
    python benchmarks/step_time.py --only compiled

A step is forward, backward and the optimiser's update, on random data of the recipe's shape. The order of the methods
changes from round to round, so that a machine that slows down slows all of them; quote the ratios, not the times.
`host`, only if asked for, is a network so small that its time is what a processor needs to tell an accelerator what to
do, with blocks compiled (by torch's inductor) and as they are. `compiled`, too, is gpt2_768 with blocks compiled in all
methods, also in the backpropagation that the others are compared with.
"""

import argparse
import copy
import json
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from measuring import Call, interleaved, ratios, typical
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from odfa import DFA, AlignedHead, Gaussian, Optical, RandomFeedback, Shallow, Ternary, Twin
from odfa.engine import compile_blocks
from odfa.engine.blocks import match_blocks
from odfa.tasks.vision.mlp import Mlp

Problem = tuple[nn.Module, str, Callable[[nn.Module], Tensor]]


def fashion_mlp() -> Problem:
    """The model of the recipe fashion_mlp on a batch of 128."""
    x_ND, y_N = torch.randn(128, 784), torch.randint(0, 10, (128,))
    model = Mlp((1024, 1024, 1024), "tanh", num_features=784, num_classes=10)
    return model, "blocks.*", lambda model: cross_entropy(model(x_ND), y_N)


def _gpt2(blocks: int, width: int, heads: int, *, vocabulary: int, batch: int, context: int, **rates: float) -> Problem:
    """A GPT-2 without dropout, unless rates of it are named, and with a head of its own, on random tokens."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(n_layer=blocks, n_embd=width, n_head=heads, vocab_size=vocabulary, n_positions=context,
                        tie_word_embeddings=False, bos_token_id=0, eos_token_id=0, use_cache=False,
                        **{"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, **rates})  # fmt: skip
    ids = torch.randint(0, vocabulary, (batch, context))
    return GPT2LMHeadModel(config), "transformer.h.*", lambda model: model(input_ids=ids, labels=ids).loss


def gpt2() -> Problem:
    """GPT-2 with 6 blocks of width 384, vocabulary 8192, with dropout, on 512 tokens."""
    dropout = {"resid_pdrop": 0.1, "embd_pdrop": 0.1, "attn_pdrop": 0.1}
    return _gpt2(6, 384, 6, vocabulary=8192, batch=4, context=128, **dropout)


def gpt2_768() -> Problem:
    """GPT-2 with 12 blocks of width 768, vocabulary 2048, on 512 tokens."""
    return _gpt2(12, 768, 12, vocabulary=2048, batch=4, context=128)


def deep_gpt() -> Problem:
    """The model of the recipe deep_gpt, GPT-2 with 8 blocks of width 128, vocabulary 2048, on 2,048 tokens."""
    return _gpt2(8, 128, 4, vocabulary=2048, batch=16, context=128)


def host() -> Problem:
    """GPT-2 with 12 blocks of width 32, vocabulary 64, on 16 tokens."""
    return _gpt2(12, 32, 2, vocabulary=64, batch=2, context=8)


USUAL = {"fashion_mlp": fashion_mlp, "gpt2": gpt2, "gpt2_768": gpt2_768, "deep_gpt": deep_gpt}
PROBLEMS = {**USUAL, "host": host, "compiled": gpt2_768}


def _hops() -> dict[str, dict[str, Any] | None]:
    """No hop, one and two, one in every second and third pass only, drawn errors; exact and ternary errors."""
    exact = {"projection": Gaussian(seed=0)}
    ternary = {**exact, "encoder": Ternary("sampled", repeats=4)}
    settings: dict[str, dict[str, Any] | None] = {"bp": None}
    for hops in (0, 1, 2):
        settings[f"dfa, aligned, hops={hops}"] = {**exact, "rule": AlignedHead(rank=16, hops=hops)}
    for every in (2, 3):
        rule = AlignedHead(rank=16, hops=1, hop_every=every)
        settings[f"dfa, aligned, hops=1, hop_every={every}"] = {**exact, "rule": rule}
    settings["dfa, aligned, hops=1, drawn=4"] = {**exact, "rule": AlignedHead(rank=16, hops=1, drawn=4)}
    for hops in (0, 1):
        settings[f"tdfa, aligned, hops={hops}"] = {**ternary, "rule": AlignedHead(rank=16, hops=hops)}
    return settings


def _granularities() -> dict[str, dict[str, Any] | None]:
    """Block, sublayer and linear layer, with the exact and with the ternary error."""
    sampled = Ternary("sampled", repeats=4)
    aligned = {"projection": Gaussian(seed=0), "rule": AlignedHead(rank=96)}
    sublayer = {**aligned, "branches": "transformer.h.*.ln_2"}
    linear = {**sublayer, "linears": ("transformer.h.*.attn.c_proj", "transformer.h.*.mlp.c_proj")}
    return {
        "bp": None,
        "dfa, aligned, block": aligned,
        "dfa, aligned, sublayer": sublayer,
        "dfa, aligned, linear": linear,
        "tdfa, aligned, block": {**aligned, "encoder": sampled},
        "tdfa, aligned, sublayer": {**sublayer, "encoder": sampled},
        "tdfa, aligned, linear": {**linear, "encoder": sampled},
    }


def _compiled() -> dict[str, dict[str, Any] | None]:
    """Each method with blocks as they are and with compiled blocks."""
    aligned = {"projection": Gaussian(seed=0), "rule": AlignedHead(rank=8)}
    settings: dict[str, dict[str, Any] | None] = {"bp": None, "bp, compiled": {"compile": True}}
    for name, chosen in {
        "dfa, aligned": aligned,
        "tdfa, aligned": {**aligned, "encoder": Ternary("sampled", repeats=4)},
        "dfa, aligned, sublayer": {**aligned, "branches": "transformer.h.*.ln_2"},
    }.items():
        settings |= {name: chosen, f"{name}, compiled": {**chosen, "compile": True}}
    return settings


def _granularities_compiled() -> dict[str, dict[str, Any] | None]:
    """Block, sublayer and linear layer with the exact error, all of compiled blocks."""
    exact = {name: chosen for name, chosen in _granularities().items() if not name.startswith("tdfa")}
    return {name: {**(chosen or {}), "compile": True} for name, chosen in exact.items()}


def contenders(name: str, model: nn.Module, blocks: str) -> dict[str, nn.Module]:
    """The same model, attached in different ways; every copy has weights of its own."""
    exact = {"projection": Gaussian(seed=0)}
    special = {"gpt2_768": _granularities, "deep_gpt": _hops, "host": _compiled, "compiled": _granularities_compiled}
    if name in special:
        return attached(model, blocks, special[name]())
    settings: dict[str, dict[str, Any] | None] = {
        "bp": None,
        "shallow": {"rule": Shallow()},
        "dfa, shared slice": {**exact, "rule": RandomFeedback(shared=True)},
        "dfa, own slices": exact,
        "tdfa, shared slice": {**exact, "rule": RandomFeedback(shared=True), "encoder": Ternary()},
    }
    if name == "fashion_mlp":
        settings["odfa (twin)"] = {"projection": Optical(Twin.preset("opu-2021"))}
    else:
        settings["dfa, own slices at head_input"] = {**exact, "error_at": "head_input"}
        settings["dfa, aligned head"] = {**exact, "rule": AlignedHead(rank=16)}
    return attached(model, blocks, settings)


def attached(model: nn.Module, blocks: str, settings: dict[str, dict[str, Any] | None]) -> dict[str, nn.Module]:
    """A copy of the model for each setting."""
    models = {method: copy.deepcopy(model) for method in settings}
    for method, chosen in settings.items():
        if chosen == {"compile": True}:
            compile_blocks(models[method], match_blocks(models[method], blocks))
        elif chosen is not None:
            DFA(models[method], blocks, **chosen)
    return models


def measure(models: dict[str, nn.Module], loss: Callable[[nn.Module], Tensor], steps: int) -> dict[str, list[float]]:
    """Seconds of every step, methods interleaved in changing order."""

    def train(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        loss(model).backward()
        optimizer.step()

    calls: dict[str, Call] = {
        method: partial(train, model, torch.optim.Adam(model.parameters(), lr=1e-4, fused=True))
        for method, model in models.items()
    }
    return interleaved(calls, steps, device=torch.device("cpu"))  # three rounds before allocate


def main() -> None:
    """Print one row per method: median step time and its ratio to backpropagation, pair by pair."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--only", choices=tuple(PROBLEMS))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = []
    for name, build in PROBLEMS.items():
        if name == options.only or (options.only is None and name in USUAL):
            torch.manual_seed(0)
            model, blocks, loss = build()
            methods = contenders(name, model, blocks)
            times = measure(methods, loss, options.steps)
            for method, seconds in times.items():
                dfa = DFA.of(methods[method])
                period = 1 if dfa is None else dfa.rule.crossed_every
                ratio = typical(ratios(seconds, times["bp"]), period)
                ms = 1e3 * typical(seconds, period)
                rows.append({"model": name, "method": method, "ms": ms, "ratio_to_bp": ratio})
    if options.json:
        print(json.dumps({"threads": options.threads, "steps": options.steps, "rows": rows}))
        return
    print(f"{options.threads} threads, {options.steps} interleaved steps, medians")
    for row in rows:
        print(f"{row['model']:<12} {row['method']:<32} {row['ms']:8.1f} ms   {row['ratio_to_bp']:.3f} x bp")


if __name__ == "__main__":
    main()
