"""Ways in which people lay out their models, tiny, each with a loss and the blocks and head that it should have."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tests.engine.problems import IDS, PROBLEMS

D = 6
"""Width of what runs between blocks."""
RING = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]])
"""Edges between four nodes."""


@dataclass(frozen=True)
class Layout:
    """A model, its loss, and what should be found in it."""

    build: Callable[[], nn.Module]
    loss: Callable[[nn.Module], Tensor]
    blocks: list[str]
    head: str


def rows(model: nn.Module) -> Tensor:
    """Classes of rows."""
    torch.manual_seed(1)
    return nn.functional.cross_entropy(model(torch.randn(4, D)), torch.tensor([0, 1, 2, 1]))


def tokens(model: nn.Module) -> Tensor:
    """Squares over tokens."""
    torch.manual_seed(1)
    return model(torch.randn(2, 3, D)).square().mean()


def ids(model: nn.Module) -> Tensor:
    """Next tokens."""
    return nn.functional.cross_entropy(model(IDS).flatten(0, 1), IDS.flatten())


def images(model: nn.Module) -> Tensor:
    """Squares over images."""
    torch.manual_seed(1)
    return model(torch.randn(2, 3, 8, 8)).square().mean()


def mlp(outputs: int = 3, inputs: int = D) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, D), nn.Tanh(), nn.Linear(D, D), nn.Tanh(), nn.Linear(D, outputs)
    )  # fmt: skip


def conv(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU())


def pairs(depth: int = 2) -> list[nn.Module]:
    return [nn.Sequential(nn.Linear(D, D), nn.Tanh()) for _ in range(depth)]


class Own(nn.Module):
    """Children by name, and a forward given from outside."""

    def __init__(self, forward: Callable[..., Tensor], **children: nn.Module) -> None:
        super().__init__()
        self._forward = forward
        for name, child in children.items():
            setattr(self, name, child)

    def forward(self, *args: Any) -> Tensor:
        return self._forward(self, *args)


def wrap(model: nn.Module, name: str = "net") -> nn.Module:
    return Own(lambda m, *args: getattr(m, name)(*args), **{name: model})


def chain(**children: nn.Module) -> nn.Module:
    """Children that run in the order of registration, lists in the order of their items."""

    def run(model: nn.Module, x: Tensor) -> Tensor:
        return _run(model, x)

    return Own(run, **children)


def _gated(model: nn.Module, x: Tensor) -> Tensor:
    for gate, block in zip(model.gates, model.blocks, strict=True):
        x = x + gate(x).sigmoid() * block(x)
    return model.head(x)


def _run(module: nn.Module, x: Tensor) -> Tensor:
    for child in module.children():
        x = _run(child, x) if isinstance(child, (nn.ModuleList, nn.ModuleDict)) else child(x)
    return x


class Attention(nn.Module):
    """One head, its norm inside."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.qkv, self.out = nn.LayerNorm(D), nn.Linear(D, 3 * D), nn.Linear(D, D)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(x)).chunk(3, -1)
        return self.out(nn.functional.scaled_dot_product_attention(q, k, v))


class FeedForward(nn.Module):
    """An MLP with its norm inside."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.LayerNorm(D), nn.Linear(D, 2 * D), nn.GELU(), nn.Linear(2 * D, D))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class Block(nn.Module):
    """A pre-norm Transformer block."""

    def __init__(self) -> None:
        super().__init__()
        self.attn, self.mlp = Attention(), FeedForward()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(x)
        return x + self.mlp(x)


def lucid(depth: int = 2, *, items: Any = nn.ModuleList) -> nn.Module:
    """Lists of lists, the residual outside."""

    def run(model: nn.Module, x: Tensor) -> Tensor:
        for attention, feed_forward in (layer.values() if named else layer for layer in model.layers):
            x = attention(x) + x
            x = feed_forward(x) + x
        return model.head(model.norm(x))

    named = items is nn.ModuleDict
    layers = [{"attn": Attention(), "ff": FeedForward()} for _ in range(depth)]
    held = nn.ModuleList(items(layer if named else list(layer.values())) for layer in layers)
    return Own(run, layers=held, norm=nn.LayerNorm(D), head=nn.Linear(D, 3))


def nano_gpt(depth: int = 2) -> nn.Module:
    """Everything but the head in one dictionary, which is never called."""

    def run(model: nn.Module, ids: Tensor) -> Tensor:
        parts = model.transformer
        x = parts.wte(ids) + parts.wpe(torch.arange(ids.shape[1]))
        for block in parts.h:
            x = block(x)
        return model.lm_head(parts.ln_f(x))

    parts = {
        "wte": nn.Embedding(11, D),
        "wpe": nn.Embedding(8, D),
        "drop": nn.Dropout(0.0),
        "h": nn.ModuleList(Block() for _ in range(depth)),
        "ln_f": nn.LayerNorm(D),
    }
    return Own(run, transformer=nn.ModuleDict(parts), lm_head=nn.Linear(D, 11, bias=False))


class BasicBlock(nn.Module):
    """Two convolutions and a skip path."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride > 1:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        h = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        return (h + (x if self.downsample is None else self.downsample(x))).relu()


def resnet(depth: int = 2) -> nn.Module:
    """Stages of doubled width, whose weights grow fourfold."""
    stages = {
        f"layer{i + 1}": nn.Sequential(
            *[BasicBlock(4 * 2 ** max(i - (j == 0), 0), 4 * 2**i, 2 if i and not j else 1) for j in range(depth)]
        )
        for i in range(4)
    }
    return chain(
        conv1=nn.Conv2d(3, 4, 3, padding=1), bn1=nn.BatchNorm2d(4), relu=nn.ReLU(), **stages,
        pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), fc=nn.Linear(32, 3),
    )  # fmt: skip


class DoubleConv(nn.Module):
    """Two convolutions."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.double_conv = nn.Sequential(*conv(inputs, outputs), *conv(outputs, outputs))

    def forward(self, x: Tensor) -> Tensor:
        return self.double_conv(x)


class Down(nn.Module):
    """Half the resolution."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.maxpool_conv = nn.Sequential(nn.MaxPool2d(2), DoubleConv(inputs, outputs))

    def forward(self, x: Tensor) -> Tensor:
        return self.maxpool_conv(x)


class Up(nn.Module):
    """Twice the resolution, with the skip connection beside it."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.up, self.conv = nn.ConvTranspose2d(inputs, inputs // 2, 2, 2), DoubleConv(inputs, outputs)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.conv(torch.cat([skip, self.up(x)], 1))


def unet() -> nn.Module:
    """The U-Net of many segmentation projects."""

    def run(model: nn.Module, x: Tensor) -> Tensor:
        first = model.inc(x)
        second = model.down1(first)
        x = model.up1(model.down2(second), second)
        return model.outc(model.up2(x, first))

    return Own(
        run, inc=DoubleConv(3, 4), down1=Down(4, 8), down2=Down(8, 16), up1=Up(16, 8), up2=Up(8, 4),
        outc=wrap(nn.Conv2d(4, 2, 1), "conv"),
    )  # fmt: skip


class GraphConv(nn.Module):
    """A ring of nodes, each with its neighbours."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.lin, self.bias = nn.Linear(inputs, outputs, bias=False), nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        x = self.lin(x)
        return x.index_add(0, edges[1], x[edges[0]]) / 2 + self.bias


def graph(outputs: list[int], **behind: nn.Module) -> nn.Module:
    def run(model: nn.Module, x: Tensor) -> Tensor:
        for convolution in model.convs:
            x = convolution(x, RING).relu()
        return model.head(x) if behind else x

    widths = [D, *outputs]
    convs = nn.ModuleList(GraphConv(i, o) for i, o in zip(widths, outputs, strict=False))
    return Own(run, convs=convs, norms=nn.ModuleList(nn.BatchNorm1d(o) for o in outputs[:-1]), **behind)


def cells(kind: Any = nn.GRUCell) -> nn.Module:
    """Recurrent cells by hand."""

    def run(model: nn.Module, x: Tensor) -> Tensor:
        states: list[Any] = [None] * 2
        for x_t in x.unbind(1):
            for i, cell in enumerate(model.cells):
                states[i] = cell(x_t, states[i])
                x_t = states[i][0] if isinstance(states[i], tuple) else states[i]
        return model.head(x_t)

    return Own(run, cells=nn.ModuleList(kind(D, D) for _ in range(2)), head=nn.Linear(D, 3))


def recurrent() -> nn.Module:
    return Own(
        lambda m, ids: m.out(m.rnn(m.embed(ids))[0]),
        embed=nn.Embedding(11, D), rnn=nn.LSTM(D, D, 2, batch_first=True), out=nn.Linear(D, 11),
    )  # fmt: skip


def encoder_decoder() -> nn.Module:
    transformer = nn.Transformer(D, 2, 2, 2, 2 * D, dropout=0.0, batch_first=True)
    return Own(lambda m, x: m.head(m.transformer(x, x[:, :2])), transformer=transformer, head=nn.Linear(D, 3))


def timed() -> nn.Module:
    """An MLP that embeds the time, beside the blocks that read it."""
    time = nn.Sequential(nn.Linear(1, 2), nn.SiLU(), nn.Linear(2, D))
    blocks = nn.ModuleList(Block() for _ in range(2))

    def run(model: nn.Module, x: Tensor) -> Tensor:
        x = x + model.time_mlp(torch.ones(1, 1))
        for block in model.blocks:
            x = block(x)
        return model.final(x)

    return Own(run, time_mlp=time, blocks=blocks, final=nn.Linear(D, D))


def heads(own: Any) -> nn.Module:
    """Two heads in a dictionary behind the blocks; the loss reads the second."""
    return Own(
        lambda m, x: m.heads["val"](m.body(x)),
        body=nn.Sequential(*pairs()), heads=nn.ModuleDict({"cls": own(2), "val": own(3)}),
    )  # fmt: skip


def teacher() -> nn.Module:
    """A frozen teacher beside the student."""
    return Own(lambda m, x: m.student(x), student=mlp(), teacher=mlp().requires_grad_(False))


def parametrized() -> nn.Module:
    model = mlp()
    for layer in (model[0], model[2], model[4]):
        nn.utils.parametrizations.weight_norm(layer)
    return model


def value_head() -> nn.Module:
    """A critic: attributes, two heads of which the second is read."""
    return Own(
        lambda m, x: m.critic(m.fc2(m.fc1(x).tanh()).tanh()),
        fc1=nn.Linear(D, 8), fc2=nn.Linear(8, 8), actor=nn.Linear(8, 2), critic=nn.Linear(8, 3),
    )  # fmt: skip


def nerf() -> nn.Module:
    """A list of layers one of which reads the input again."""

    def run(model: nn.Module, x: Tensor) -> Tensor:
        h = x
        for i, layer in enumerate(model.pts_linears):
            h = layer(torch.cat([x, h], -1) if i == 2 else h).relu()
        return model.out(h)

    sizes = [(D, 8), (8, 8), (8 + D, 8)]
    return Own(run, pts_linears=nn.ModuleList(nn.Linear(*size) for size in sizes), out=nn.Linear(8, 3))


def library(name: str) -> tuple[Callable[[], nn.Module], Callable[[nn.Module], Tensor]]:
    return PROBLEMS[name].build, PROBLEMS[name].loss


def hidden_states() -> nn.Module:
    from transformers import GPT2Model

    backbone = GPT2Model(PROBLEMS["gpt2"].build().config)
    return Own(lambda m, ids: m.model(ids).last_hidden_state, model=backbone)


def names(pattern: str, *counts: int) -> list[str]:
    """`names("h.#.#", 2, 3)`: every number up to the counts."""
    found = [pattern]
    for count in counts:
        found = [name.replace("#", str(i), 1) for name in found for i in range(count)]
    return found


LAYOUTS: dict[str, Layout] = {
    # one Sequential, and what wraps it
    "sequential": Layout(mlp, rows, ["1", "3"], "4"),
    "wrapped": Layout(lambda: wrap(mlp()), rows, ["net.1", "net.3"], "net.4"),
    "wrapped three times": Layout(
        lambda: wrap(wrap(wrap(mlp()), "model"), "model"), rows, ["model.model.net.1", "model.model.net.3"],
        "model.model.net.4",
    ),
    "sequential in a sequential": Layout(
        lambda: nn.Sequential(*pairs(), nn.Sequential(nn.Linear(D, 3))), rows, ["0", "1"], "2.0"
    ),
    "sequential around two layers": Layout(
        lambda: nn.Sequential(mlp(D), nn.Tanh(), nn.Linear(D, 3)), rows, ["0.1", "0.3", "1"], "2"
    ),
    "body and head": Layout(
        lambda: nn.Sequential(wrap(nn.Sequential(*pairs())), nn.Linear(D, 3)), rows, names("0.net.#", 2), "1"
    ),
    "normalised, then wrapped": Layout(
        lambda: nn.Sequential(nn.LayerNorm(D), wrap(chain(a=nn.Linear(D, D), b=nn.Linear(D, 3)))), rows, ["1.net.a"],
        "1.net.b",
    ),
    "softmax behind": Layout(
        lambda: wrap(nn.Sequential(*mlp(), nn.LogSoftmax(-1))), rows, ["net.1", "net.3"], "net.4"
    ),
    "parametrized": Layout(parametrized, rows, ["1", "3"], "4"),
    # lists
    "list with its head": Layout(
        lambda: chain(layers=nn.ModuleList([nn.Linear(D, D), nn.Linear(D, D), nn.Linear(D, 3)])), rows,
        names("layers.#", 2), "layers.2",
    ),
    "list of layers and activations": Layout(
        lambda: chain(layers=nn.ModuleList(mlp())), rows, ["layers.0", "layers.2"], "layers.4"
    ),
    "list of pairs": Layout(
        lambda: chain(layers=nn.ModuleList([*pairs(), nn.Sequential(nn.Linear(D, 3))])), rows, names("layers.#", 2),
        "layers.2.0",
    ),
    "dictionary of layers": Layout(
        lambda: chain(layers=nn.ModuleDict({"a": nn.Linear(D, D), "b": nn.Linear(D, D), "out": nn.Linear(D, 3)})), rows,
        ["layers.a", "layers.b"], "layers.out",
    ),
    "layer that reads the input again": Layout(nerf, rows, names("pts_linears.#", 3), "out"),
    "blocks without a head": Layout(
        lambda: chain(blocks=nn.ModuleList(Block() for _ in range(3))), tokens, names("blocks.#", 2), "blocks.2"
    ),
    "lists of lists of lists": Layout(
        lambda: chain(
            layers=nn.ModuleList([nn.ModuleList([Block(), nn.ModuleList([nn.ModuleList([Block(), Block()])])])]),
            head=nn.Linear(D, 3),
        ),
        tokens, ["layers.0.0", "layers.0.1.0.0", "layers.0.1.0.1"], "head",
    ),
    "one block": Layout(
        lambda: chain(blocks=nn.ModuleList([Block()]), head=nn.Linear(D, 3)), tokens, ["blocks.0"], "head"
    ),
    "lists of lists": Layout(lucid, tokens, names("layers.#.#", 2, 2), "head"),
    "list of dictionaries": Layout(
        lambda: lucid(items=nn.ModuleDict), tokens, [f"layers.{i}.{k}" for i in range(2) for k in ("attn", "ff")],
        "head",
    ),
    "dictionary with a list inside": Layout(nano_gpt, ids, names("transformer.h.#", 2), "lm_head"),
    "dictionary, one block": Layout(lambda: nano_gpt(1), ids, ["transformer.h.0"], "lm_head"),
    "two heads in a dictionary": Layout(
        lambda: heads(lambda n: nn.Linear(D, n)), rows, names("body.#", 2), "heads.val"
    ),
    "two deep heads in a dictionary": Layout(lambda: heads(mlp), rows, names("body.#", 2), "heads.val.4"),
    "gates beside blocks": Layout(
        lambda: Own(_gated, gates=nn.ModuleList(nn.Linear(D, D) for _ in range(2)), blocks=nn.ModuleList(pairs()),
                    head=nn.Linear(D, 3)),
        rows, names("blocks.#", 2), "head",
    ),
    "two lists of different sizes": Layout(
        lambda: chain(
            encoder=nn.ModuleList(pairs()), decoder=nn.ModuleList(wrap(nn.Sequential(*pairs(9))) for _ in range(2)),
            head=nn.Linear(D, 3),
        ),
        rows, [*names("encoder.#", 2), *names("decoder.#", 2)], "head",
    ),
    # attributes
    "attributes": Layout(
        lambda: chain(fc1=nn.Linear(D, D), act=nn.Tanh(), fc2=nn.Linear(D, D), fc3=nn.Linear(D, 3)), rows,
        ["fc1", "fc2"], "fc3",
    ),
    "actor and critic": Layout(value_head, rows, ["fc1", "fc2"], "critic"),
    "teacher and student": Layout(teacher, rows, ["student.1", "student.3"], "student.4"),
    "head registered first": Layout(
        lambda: Own(lambda m, x: m.head(m.body(x)), head=nn.Linear(D, 3), body=nn.Sequential(*pairs())), rows,
        names("body.#", 2), "head",
    ),
    "actor and critic, apart": Layout(
        lambda: Own(lambda m, x: m.actor(x), critic=mlp(1), actor=mlp()), rows,
        ["critic.1", "critic.3", "actor.1", "actor.3"], "actor.4",
    ),
    "numbered heads": Layout(
        lambda: Own(lambda m, x: m.head2(m.body(x)), body=nn.Sequential(*pairs()), head1=mlp(2), head2=mlp()), rows,
        names("body.#", 2), "head2.4",
    ),
    "a block before the list and one behind it": Layout(
        lambda: chain(first=Block(), layers=nn.ModuleList([Block(), Block()]), last=Block(), head=nn.Linear(D, 3)),
        tokens, ["first", "layers.0", "layers.1", "last"], "head",
    ),
    "encoder and decoder of layers": Layout(
        lambda: chain(
            encoder=nn.Sequential(nn.Linear(D, 4), nn.ReLU(), nn.Linear(4, 2)),
            decoder=nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, D), nn.Sigmoid()),
        ),
        tokens, ["encoder.1", "encoder.2", "decoder.1"], "decoder.2",
    ),
    "layers of two kinds": Layout(
        lambda: chain(
            conv1=nn.Conv2d(3, 4, 3, padding=1), conv2=nn.Conv2d(4, 4, 3, padding=1), flat=nn.Flatten(),
            fc1=nn.Linear(256, 8), fc2=nn.Linear(8, 3),
        ),
        images, ["conv1", "conv2", "fc1"], "fc2",
    ),
    "latent of half the width": Layout(
        lambda: Own(
            lambda m, x: m.dec(m.enc(x).chunk(2, -1)[0]),
            enc=nn.Sequential(nn.Linear(D, 8), nn.ReLU(), nn.Linear(8, 4)),
            dec=nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, D)),
        ),
        tokens, ["enc.1", "dec.1"], "dec.2",
    ),
    "attention last": Layout(
        lambda: Own(
            lambda m, x: m.attention(m.first(x), x, x)[0], first=nn.Linear(D, D),
            attention=nn.MultiheadAttention(D, 2, batch_first=True),
        ),
        tokens, ["first"], "attention",
    ),
    # convolutions
    "features and classifier": Layout(
        lambda: chain(
            features=nn.Sequential(*conv(3, 4), *conv(4, 4), nn.MaxPool2d(2)), flat=nn.Flatten(),
            classifier=nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3)),
        ),
        images, ["features.2", "features.6", "classifier.1"], "classifier.2",
    ),
    "numbered stages": Layout(
        lambda: chain(conv1=conv(3, 4), conv2=conv(4, 4), flat=nn.Flatten(), fc=mlp(inputs=256)), images,
        ["conv1", "conv2", "fc.1", "fc.3"], "fc.4",
    ),
    "resnet": Layout(
        resnet, images, [f"layer{i}.{j}" for i in range(1, 5) for j in range(2)], "fc"
    ),
    "resnet of one block a stage": Layout(lambda: resnet(1), images, [f"layer{i}.0" for i in range(1, 5)], "fc"),
    "stages in a list": Layout(
        lambda: chain(
            stem=nn.Conv2d(3, 4, 1),
            stages=nn.ModuleList(nn.Sequential(BasicBlock(4, 4), BasicBlock(4, 4)) for _ in range(2)),
            head=nn.Conv2d(4, 2, 1),
        ),
        images, names("stages.#.#", 2, 2), "head",
    ),
    "numbers and letters": Layout(
        lambda: chain(
            conv1=conv(3, 4), a3=BasicBlock(4, 4), b3=BasicBlock(4, 4), a4=BasicBlock(4, 4), c4=BasicBlock(4, 4),
            pool=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten(), fc=nn.Linear(4, 3),
        ),
        images, ["a3", "b3", "a4", "c4"], "fc",
    ),
    "u-net": Layout(unet, images, ["inc", "down1", "down2", "up1", "up2"], "outc.conv"),
    # graphs, time
    "graph convolutions and a head": Layout(
        lambda: graph([D, D], head=nn.Linear(D, 3)), rows, names("convs.#", 2), "head"
    ),
    "numbered graph convolutions": Layout(
        lambda: Own(
            lambda m, x: m.conv2(m.conv1(x, RING).relu(), RING), conv1=GraphConv(D, D), conv2=GraphConv(D, 3)
        ),
        rows, ["conv1"], "conv2",
    ),
    "graph convolutions": Layout(lambda: graph([D, D, 3]), rows, names("convs.#", 2), "convs.2"),
    "cells": Layout(cells, tokens, names("cells.#", 2), "head"),
    "cells with two states": Layout(lambda: cells(nn.LSTMCell), tokens, names("cells.#", 2), "head"),
    "recurrent": Layout(recurrent, ids, ["rnn"], "out"),
    # Transformers
    "encoder and decoder": Layout(
        encoder_decoder, tokens,
        [f"transformer.{side}.layers.{i}" for side in ("encoder", "decoder") for i in range(2)], "head",
    ),
    "embedded time": Layout(timed, tokens, names("blocks.#", 2), "final"),
    "blocks, norm, head": Layout(
        lambda: nn.Sequential(nn.Embedding(11, D), Block(), Block(), nn.LayerNorm(D), nn.Linear(D, 11)), ids,
        ["1", "2"], "4",
    ),
    "gpt2": Layout(*library("gpt2"), names("transformer.h.#", 3), "lm_head"),
    "gpt2, wrapped": Layout(
        lambda: Own(lambda m, ids: m.model(input_ids=ids, labels=ids).loss, model=PROBLEMS["gpt2"].build()),
        lambda m: m(IDS), names("model.transformer.h.#", 3), "model.lm_head",
    ),
    "gpt2 without a head": Layout(hidden_states, lambda m: m(IDS).square().mean(), names("model.h.#", 2), "model.h.2"),
    "llama": Layout(*library("llama"), names("model.layers.#", 2), "lm_head"),
    "bert": Layout(*library("bert"), names("bert.encoder.layer.#", 2), "cls.predictions.decoder"),
    "t5": Layout(*library("t5"), [*names("encoder.block.#", 2), *names("decoder.block.#", 2)], "lm_head"),
    "vit": Layout(*library("vit"), names("vit.layers.#", 2), "classifier"),
    "dit": Layout(*library("dit"), names("transformer_blocks.#", 2), "proj_out_2"),
    "transformer": Layout(
        lambda: Own(lambda m, x: m.net(x, x), net=nn.Transformer(D, 2, 2, 2, 2 * D, dropout=0.0, batch_first=True)),
        tokens, [*names("net.encoder.layers.#", 2), "net.decoder.layers.0"], "net.decoder.layers.1",
    ),
    "shared block": Layout(
        lambda: Own(
            lambda m, x: m.head(m.layers[1](m.layers[0](x))), layers=nn.ModuleList([Block()] * 2), head=nn.Linear(D, 3)
        ),
        tokens, ["layers.0"], "head",
    ),
    "u-net of diffusers": Layout(
        *library("unet"), [*names("down_blocks.#", 2), *names("up_blocks.#", 2), "mid_block"], "conv_out"
    ),
}  # fmt: skip
