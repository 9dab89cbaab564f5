"""Architectures in every layout we could think of: where residuals, norms, gates and skips stand, and who calls whom.

For each it is written down by hand which parameters lie behind the last block: only those may see the true gradient.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.engine.problems import PROBLEMS

W = 6
"""Width of every stream."""


@dataclass(frozen=True)
class Layout:
    """A model without dropout, the place of its blocks, and what stands behind the last of them."""

    build: Callable[[], nn.Module]
    blocks: Any
    behind: tuple[str, ...] = ("head.",)
    """Prefixes of parameters behind the last block, or reached without meeting one: they learn by the true gradient."""
    outside: bool = False
    """Residuals, norms or gates stand outside the blocks."""
    exact: bool = True
    """Fed with true gradients it is backpropagation: ways around blocks are plain residuals."""
    inputs: Callable[[], tuple[Tensor, ...]] = lambda: (torch.linspace(-1, 1, 5 * 4 * W).sin().reshape(5, 4, W),)
    error_at: Any = "logits"

    def loss(self, model: nn.Module) -> Tensor:
        """Something smooth that depends on every output."""
        dtype = next(model.parameters()).dtype
        inputs = [x.to(dtype) if x.is_floating_point() else x for x in self.inputs()]
        return _smooth(model(*inputs))


def _smooth(output: Any) -> Tensor:
    if isinstance(output, Tensor):
        weights = torch.linspace(0.5, 2, output.numel(), dtype=output.dtype).reshape(output.shape)
        return (output * weights).sin().square().mean()
    items = output.values() if isinstance(output, dict) else output
    return sum((_smooth(item) for item in items), torch.zeros(()))


def branch() -> nn.Module:
    """The smallest thing that learns and is not linear."""
    return nn.Sequential(nn.Linear(W, W), nn.Tanh())


class Net(nn.Module):
    """An embedding, `depth` modules of each kind, a head; `forward` differs."""

    def __init__(self, depth: int = 3, **kinds: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.embed = nn.Linear(W, W)
        for name, make in kinds.items():
            self.add_module(name, nn.ModuleList(make() for _ in range(depth)))
        self.norm = nn.LayerNorm(W)
        self.head = nn.Linear(W, 3)

    def end(self, x: Tensor) -> Tensor:
        """Final norm and head."""
        return self.head(self.norm(x))


BEHIND = ("norm.", "head.")


class Pairs(nn.Module):
    """Lists of two modules, each with a residual that its caller adds; without an embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.ModuleList([nn.Linear(W, W), branch()]) for _ in range(4))
        self.head = nn.Linear(W, 3)

    def forward(self, x: Tensor) -> Tensor:
        for a, f in self.layers:
            x = a(x).tanh() + x
            x = f(x) + x
        return self.head(x)


class Around(Net):
    """The stream after each block is `join(model, number, stream, block output)`."""

    def __init__(
        self, join: Callable[["Around", int, Tensor, Tensor], Tensor], **kinds: Callable[[], nn.Module]
    ) -> None:
        super().__init__(**{"blocks": branch, **kinds})
        self.join = join

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for i, block in enumerate(self.blocks):
            x = self.join(self, i, x, block(x))
        return self.end(x)


class PreNorm(Net):
    """x + f(norm(x)), norm and residual outside."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for norm, block in zip(self.norms, self.blocks, strict=True):
            x = x + block(norm(x))
        return self.end(x)


class AttentionOutside(Net):
    """Attention between the blocks, with a residual of its own; the blocks are the MLPs."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for n1, attention, n2, mlp in zip(self.norms, self.attentions, self.norms2, self.mlps, strict=True):
            h = n1(x)
            x = x + attention(h, h, h, need_weights=False)[0]
            x = x + mlp(n2(x))
        return self.end(x)


class Parallel(Net):
    """x + attention(h) + mlp(h), added in either order."""

    def __init__(self, together: bool) -> None:
        super().__init__(norms=lambda: nn.LayerNorm(W), a=branch, m=branch)
        self.together = together

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for norm, a, m in zip(self.norms, self.a, self.m, strict=True):
            h = norm(x)
            x = x + (a(h) + m(h)) if self.together else x + a(h) + m(h)
        return self.end(x)


class Dense(nn.Module):
    """Every block reads all that came before."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(W, W)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(W * (i + 1), W), nn.Tanh()) for i in range(3))
        self.between = nn.ModuleList(nn.Linear(W * (i + 2), W * (i + 2)) for i in range(3))
        self.head = nn.Linear(W * 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block, between in zip(self.blocks, self.between, strict=True):
            x = between(torch.cat([x, block(x)], dim=-1))
        return self.head(x)


class ConvResidual(nn.Module):
    """Two convolutions with a projected short cut around both."""

    def __init__(self, each: bool) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, padding=1)
        self.convs = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1) for _ in range(4))
        self.shorts = nn.ModuleList(nn.Conv2d(4, 4, 1) for _ in range(2))
        self.pairs = nn.ModuleList(nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.Tanh()) for _ in range(2))
        self.head = nn.Linear(4, 3)
        self.each = each

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for i, short in enumerate(self.shorts):
            inner = self.convs[2 * i + 1](self.convs[2 * i](x).tanh()) if self.each else self.pairs[i](x)
            x = (inner + short(x)).tanh()
        return self.head(x.mean((2, 3)))


class UNet(nn.Module):
    """Down, middle, up, with skips that are concatenated or added outside the blocks."""

    def __init__(self, added: bool) -> None:
        super().__init__()
        self.added, wide = added, W if added else 2 * W
        self.down = nn.ModuleList(branch() for _ in range(2))
        self.smooth = nn.ModuleList(nn.Linear(W, W) for _ in range(2))
        self.up = nn.ModuleList(nn.Sequential(nn.Linear(wide, W), nn.Tanh()) for _ in range(2))
        self.head = nn.Linear(W, 3)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for down, smooth in zip(self.down, self.smooth, strict=True):
            x = smooth(down(x))
            skips.append(x)
        for up in self.up:
            skip = skips.pop()
            x = up(x + skip) if self.added else up(torch.cat([x, skip], dim=-1))
        return self.head(x)


class Injected(Net):
    """The embedding is added again behind every block."""

    def forward(self, x: Tensor) -> Tensor:
        x0 = x = self.embed(x)
        for block in self.blocks:
            x = block(x) + x0
        return self.end(x)


class LongSkip(Net):
    """The first stream is added to the last."""

    def __init__(self, gated: bool) -> None:
        super().__init__(blocks=branch)
        self.gate = nn.Linear(W, W)
        self.gated = gated

    def forward(self, x: Tensor) -> Tensor:
        x0 = x = self.embed(x)
        for block in self.blocks:
            x = block(x) + x
        return self.end(x * self.gate(x0).sigmoid() if self.gated else x + self.gate(x0))


class Conditioned(Net):
    """A condition that every block and the head read."""

    def __init__(self) -> None:
        super().__init__(blocks=lambda: nn.Bilinear(W, W, W))
        self.condition = nn.Linear(W, W)

    def forward(self, x: Tensor) -> Tensor:
        c = self.condition(x.flip(0)).tanh()
        x = self.embed(x)
        for block in self.blocks:
            x = block(x, c)
        return self.end(x * c)


class TwoStreams(Net):
    """Reversible: each half is changed by what a block makes of the other."""

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.embed(x), self.embed(x.flip(0))
        for f, g in zip(self.f, self.g, strict=True):
            a = a + f(b)
            b = b + g(a)
        return self.end(a + b)


class AllRead(Net):
    """The head reads every block's output."""

    def forward(self, x: Tensor) -> Tensor:
        x, total = self.embed(x), 0.0
        for mix, block in zip(self.mixes, self.blocks, strict=True):
            x = block(mix(x))
            total = total + x
        return self.end(total)


class Shared(Net):
    """One block, called again and again, with a residual outside."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for mix in self.mixes:
            x = x + self.block[0](mix(x))
        return self.end(x)


class Recurrent(nn.Module):
    """A cell called once per time step, its state kept by the caller."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(W, W)
        self.cells = nn.ModuleList(nn.GRUCell(W, W) for _ in range(2))
        self.head = nn.Linear(W, 3)

    def forward(self, x: Tensor) -> Tensor:
        x, states = self.embed(x), [torch.zeros(len(x), W, dtype=x.dtype) for _ in self.cells]
        for t in range(x.shape[1]):
            y = x[:, t]
            for i, cell in enumerate(self.cells):
                states[i] = cell(y, states[i])
                y = states[i]
        return self.head(y)


class StackedLstm(nn.Module):
    """LSTM layers with residuals between them."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(W, W)
        self.layers = nn.ModuleList(nn.LSTM(W, W, batch_first=True) for _ in range(3))
        self.head = nn.Linear(W, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for layer in self.layers:
            x = layer(x)[0] + x
        return self.head(x)


class Graph(Net):
    """Messages along a ring of nodes, residual outside, mean over nodes at the end."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for norm, block in zip(self.norms, self.blocks, strict=True):
            x = x + block(norm(x + x.roll(1, dims=1)))
        return self.end(x.mean(1))


class Experts(Net):
    """Experts are the blocks; router, dispatch and residual stand outside."""

    def __init__(self) -> None:
        super().__init__(depth=4, experts=branch)
        self.routers = nn.ModuleList(nn.Linear(W, 2) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for i, router in enumerate(self.routers):
            weights = router(x).softmax(-1)
            x = x + sum(weights[..., [e]] * self.experts[2 * i + e](x) for e in range(2))
        return self.end(x)


class Towers(nn.Module):
    """Two towers with norms behind their blocks, compared at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = (nn.ModuleList(branch() for _ in range(2)) for _ in range(2))
        self.embeds = nn.ModuleList(nn.Linear(W, W) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(W) for _ in range(2))
        self.head = nn.Bilinear(W, W, 3)

    def forward(self, x: Tensor) -> Tensor:
        ends = []
        for tower, embed, norm in zip((self.left, self.right), self.embeds, self.norms, strict=True):
            h = embed(x)
            for block in tower:
                h = h + block(h)
            ends.append(norm(h))
        return self.head(*ends)


class CrossAttention(nn.Module):
    """An encoder, a norm, and a decoder whose blocks all read the encoder's end."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.embed_out = nn.Linear(W, W), nn.Linear(W, W)
        self.encoder = nn.ModuleList(branch() for _ in range(2))
        self.middle = nn.LayerNorm(W)
        self.decoder = nn.ModuleList(nn.TransformerDecoderLayer(W, 2, 8, 0.0, batch_first=True) for _ in range(2))
        self.head = nn.Linear(W, 3)

    def forward(self, x: Tensor) -> Tensor:
        memory = self.embed(x)
        for block in self.encoder:
            memory = block(memory)
        memory, y = self.middle(memory), self.embed_out(x.flip(1))
        for block in self.decoder:
            y = block(y, memory)
        return self.head(y)


class Latents(nn.Module):
    """Perceiver: learnt latents attend to the input again and again, residual outside."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(W, W)
        self.latents = nn.Parameter(torch.linspace(-1, 1, 3 * W).reshape(3, W))
        self.reads = nn.ModuleList(nn.MultiheadAttention(W, 2, batch_first=True) for _ in range(3))
        self.mlps = nn.ModuleList(branch() for _ in range(3))
        self.head = nn.Linear(W, 3)

    def forward(self, x: Tensor) -> Tensor:
        data = self.embed(x)
        z = self.latents.expand(len(x), -1, -1)
        for read, mlp in zip(self.reads, self.mlps, strict=True):
            z = z + read(z, data, data, need_weights=False)[0]
            z = z + mlp(z)
        return self.head(z.mean(1))


class Mixer(nn.Module):
    """Token and channel mixing, norms and residuals outside."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(W, W)
        self.norms = nn.ModuleList(nn.LayerNorm(W) for _ in range(4))
        self.tokens = nn.ModuleList(nn.Sequential(nn.Linear(4, 4), nn.GELU()) for _ in range(2))
        self.channels = nn.ModuleList(branch() for _ in range(2))
        self.head = nn.Linear(W, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for i in range(2):
            x = x + self.tokens[i](self.norms[2 * i](x).transpose(1, 2)).transpose(1, 2)
            x = x + self.channels[i](self.norms[2 * i + 1](x))
        return self.head(x.mean(1))


class InPlace(Net):
    """`y = f(x); y += x`."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for mix, block in zip(self.mixes, self.blocks, strict=True):
            x = mix(x)
            y = block(x)
            y += x
            x = y
        return self.end(x)


class Heads(Net):
    """Two heads on one final norm, and one that leaves early."""

    def __init__(self) -> None:
        super().__init__(blocks=branch, mixes=lambda: nn.Linear(W, W))
        self.value, self.early = nn.Linear(W, 1), nn.Linear(W, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x, early = self.embed(x), None
        for i, (mix, block) in enumerate(zip(self.mixes, self.blocks, strict=True)):
            x = x + block(mix(x))
            early = self.early(x) if i == 0 else early
        x = self.norm(x)
        return self.head(x), self.value(x), early


def _linear() -> nn.Module:
    return nn.Linear(W, W)


def _norm() -> nn.Module:
    return nn.LayerNorm(W)


def _attention() -> nn.Module:
    return nn.MultiheadAttention(W, 2, batch_first=True)


def _scale() -> nn.Module:
    return nn.Linear(W, 1)


def _images() -> tuple[Tensor, ...]:
    return (torch.linspace(-1, 1, 2 * 2 * 5 * 5).sin().reshape(2, 2, 5, 5),)


LAYOUTS: dict[str, Layout] = {
    "pairs, second of each": Layout(Pairs, "layers.*.1", outside=True),
    "pairs, both of each": Layout(Pairs, "layers.*.*", outside=True),
    "residual": Layout(lambda: Around(lambda m, i, x, h: x + h), "blocks.*", BEHIND, outside=True),
    "residual the other way round": Layout(lambda: Around(lambda m, i, x, h: h + x), "blocks.*", BEHIND, outside=True),
    "residual minus": Layout(
        lambda: Around(lambda m, i, x, h: x - h), "blocks.*", BEHIND, outside=True, exact=False
    ),
    "pre-norm outside": Layout(lambda: PreNorm(blocks=branch, norms=_norm), "blocks.*", BEHIND, outside=True),
    "post-norm outside": Layout(
        lambda: Around(lambda m, i, x, h: m.norms[i](x + h), norms=_norm),
        "blocks.*", (*BEHIND, "norms.2."), outside=True,
    ),
    "gate on the branch": Layout(
        lambda: Around(lambda m, i, x, h: x + m.gates[i](x).sigmoid() * h, gates=_scale),
        "blocks.*", (*BEHIND, "gates.2."), outside=True, exact=False,
    ),
    "scalar on the branch": Layout(
        lambda: Around(lambda m, i, x, h: x + m.gates[i].bias * h, gates=_scale),
        "blocks.*", (*BEHIND, "gates.2."), outside=True, exact=False,
    ),
    "highway": Layout(
        lambda: Around(lambda m, i, x, h: h * (t := m.gates[i](x).sigmoid()) + x * (1 - t), gates=_linear),
        "blocks.*", (*BEHIND, "gates.2."), outside=True, exact=False,
    ),
    "squeeze and excite": Layout(
        lambda: Around(lambda m, i, x, h: x + h * m.gates[i](h.mean(1, keepdim=True)).sigmoid(), gates=_linear),
        "blocks.*", (*BEHIND, "gates.2."), outside=True, exact=False,
    ),
    "projection behind the branch": Layout(
        lambda: Around(lambda m, i, x, h: x + m.outs[i](h), outs=_linear),
        "blocks.*", (*BEHIND, "outs.2."), outside=True, exact=False,
    ),
    "projected short cut": Layout(
        lambda: Around(lambda m, i, x, h: m.shorts[i](x) + h, shorts=_linear), "blocks.*", BEHIND, outside=True,
    ),
    "attention outside": Layout(
        lambda: AttentionOutside(norms=_norm, attentions=_attention, norms2=_norm, mlps=branch),
        "mlps.*", BEHIND, outside=True,
    ),
    "attention and mlp": Layout(
        lambda: AttentionOutside(norms=_norm, attentions=_attention, norms2=_norm, mlps=branch),
        ["attentions.*", "mlps.*"], BEHIND, outside=True,
    ),
    "parallel": Layout(lambda: Parallel(False), ["a.*", "m.*"], BEHIND, outside=True),
    "parallel, added first": Layout(lambda: Parallel(True), ["a.*", "m.*"], BEHIND, outside=True),
    "dense": Layout(Dense, "blocks.*", ("head.", "between.2."), outside=True, exact=False),
    "short cut around pairs": Layout(lambda: ConvResidual(False), "pairs.*", outside=True, inputs=_images),
    "short cut around two blocks": Layout(lambda: ConvResidual(True), "convs.*", outside=True, inputs=_images),
    "u-net, concatenated": Layout(lambda: UNet(False), ["down.*", "up.*"], outside=True, exact=False),
    "u-net, added": Layout(lambda: UNet(True), ["down.*", "up.*"], outside=True, exact=False),
    "input injected": Layout(lambda: Injected(blocks=branch), "blocks.*", BEHIND, outside=True),
    "long skip, added": Layout(
        lambda: LongSkip(False), "blocks.*", (*BEHIND, "gate."), outside=True, exact=False, error_at="head"
    ),
    "long skip, gated": Layout(
        lambda: LongSkip(True), "blocks.*", (*BEHIND, "gate."), outside=True, exact=False, error_at="head"
    ),
    "conditioned": Layout(Conditioned, "blocks.*", (*BEHIND, "condition."), error_at="head"),
    "two streams": Layout(lambda: TwoStreams(f=branch, g=branch), ["f.*", "g.*"], BEHIND, outside=True, exact=False),
    "all blocks read": Layout(
        lambda: AllRead(blocks=branch, mixes=_linear), "blocks.*", BEHIND, exact=True
    ),
    "shared block": Layout(lambda: Shared(block=branch, mixes=_linear), "block.0", BEHIND, outside=True),
    "recurrent cells": Layout(Recurrent, "cells.*"),
    "stacked lstm": Layout(StackedLstm, "layers.*", outside=True),
    "graph": Layout(lambda: Graph(blocks=branch, norms=_norm), "blocks.*", BEHIND, outside=True),
    "experts": Layout(Experts, "experts.*", (*BEHIND, "routers.1."), outside=True, exact=False, error_at="head"),
    "two towers": Layout(Towers, ["left.*", "right.*"], ("head.", "norms."), outside=True),
    "cross attention": Layout(CrossAttention, ["encoder.*", "decoder.*"]),
    "latents": Layout(Latents, ["reads.*", "mlps.*"], outside=True),
    "latents, mlps only": Layout(Latents, "mlps.*", outside=True),
    "mixer": Layout(Mixer, ["tokens.*", "channels.*"], outside=True, exact=False),
    "in place": Layout(lambda: InPlace(blocks=_linear, mixes=_linear), "blocks.*", BEHIND, outside=True),
    "transformer of torch": Layout(
        lambda: nn.Sequential(
            nn.TransformerEncoder(
                nn.TransformerEncoderLayer(W, 2, 8, 0.0, batch_first=True), 2, enable_nested_tensor=False
            ),
            nn.Linear(W, 3),
        ),
        "0.layers.*", ("1.",),
    ),
    "three heads": Layout(
        Heads, "blocks.*", (*BEHIND, "value.", "early."), outside=True, error_at=["head", "value", "early"]
    ),
    **{
        name: Layout(
            problem.build, problem.blocks,
            {"mlp": ("7.",), "gpt2": ("lm_head.", "transformer.ln_f."), "llama": ("lm_head.", "model.norm."),
             "mixtral": ("lm_head.", "model.norm."), "vit": ("classifier.", "vit.layernorm.", "vit.pooler."),
             "cnn": ("head.",), "unet": ("conv_out.", "conv_norm_out."),
             "dit": ("proj_out_1.", "proj_out_2.", "transformer_blocks.0.norm1.emb."),
             "gpt2_tied": ("lm_head.", "transformer.ln_f.", "transformer.wte."),
             "bert": ("cls.", "bert.embeddings.word_embeddings."),
             "t5": ("lm_head.", "shared.", "decoder.final_layer_norm.")}[name],
            exact=not problem.cuts_sides,
        )
        for name, problem in PROBLEMS.items()
    },
}  # fmt: skip


def make(name: str, dtype: torch.dtype = torch.float64) -> tuple[nn.Module, Callable[[nn.Module], Tensor], Layout]:
    """The named model with fixed random weights, its loss, and the layout."""
    torch.manual_seed(0)
    layout = LAYOUTS[name]
    model = layout.build().to(dtype).train()
    loss = PROBLEMS[name].loss if name in PROBLEMS else layout.loss
    return model, loss, layout


def cross_entropy_of(logits: Tensor) -> Tensor:
    """A classification loss for layouts with one head of three outputs."""
    return F.cross_entropy(logits.flatten(0, -2), torch.arange(logits.flatten(0, -2).shape[0]) % logits.shape[-1])
