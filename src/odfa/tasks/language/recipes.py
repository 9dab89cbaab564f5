"""Recipes that train causal Transformers on dialogues and on manuals."""

from dataclasses import replace

from odfa.encode import SpreadSettings, TritPlanesSettings
from odfa.engine.rules import AlignedHead
from odfa.project import OpticalSettings
from odfa.recipes import recipe
from odfa.session import AdamSettings, MemorySettings, RunConfig
from odfa.tasks.language.kernel_docs import KernelDocsData
from odfa.tasks.language.language import Language
from odfa.tasks.language.text import TextData
from odfa.tasks.language.transformer import Gpt2Network, LlamaNetwork

_DIALOGUES = "package chitchat-dataset, or Cornell Movie-Dialogs or .txt files at data.path"
_GPT = Gpt2Network(width=256, layers=4, heads=4, head_scale=1.0)


@recipe(source=_DIALOGUES, size="1.5 million tokens, GPT-2 4x256, 4.2 M parameters", expected_time="5 to 15 minutes")
def dialogue_gpt() -> RunConfig:
    """A GPT-2 of 4 million parameters on 1.5 million tokens of dialogues, to be compared with backpropagation."""
    return RunConfig(
        recipe="dialogue_gpt",
        task=Language(),
        steps=1500,
        batch_size=16,
        log_every=10,
        checkpoint_every=500,
        evaluate_every=250,
        threads=1,
        network=_GPT,
        data=TextData(vocabulary=2048, context=64),
        optimizer=AdamSettings(learning_rate=1e-3, warmup_steps=50, clip_norm=1.0),
        rule=AlignedHead(scale=1.0, hops=1),
        projection=OpticalSettings(encoder=SpreadSettings(patterns=TritPlanesSettings(trits=2))),
    )


@recipe(
    source=_DIALOGUES,
    size="510 thousand tokens, GPT-2 3x128, 0.9 M parameters",
    expected_time="half a minute to two minutes",
)
def dialogue_tiny() -> RunConfig:
    """`dialogue_gpt` with half the width, a third of the tokens and no hop across its three blocks: takes a minute."""
    run = dialogue_gpt()
    return replace(
        run,
        recipe="dialogue_tiny",
        steps=1000,
        batch_size=8,
        checkpoint_every=250,
        evaluate_every=100,
        network=replace(_GPT, width=128, layers=3),
        data=TextData(vocabulary=1024, context=64, limit=9000, validation=256),
        optimizer=replace(run.optimizer, learning_rate=2e-3),
        rule=AlignedHead(scale=1.0),
    )


@recipe(source=_DIALOGUES, size="1.5 million tokens, Llama 4x256", expected_time="5 to 15 minutes")
def dialogue_llama() -> RunConfig:
    """A Llama of 4 million parameters on the same dialogues: RMSNorm, rotary positions, gated MLP, grouped heads."""
    run = dialogue_gpt()
    return replace(
        run,
        recipe="dialogue_llama",
        network=LlamaNetwork(width=256, layers=4, heads=4, kv_heads=2, mlp_width=640, head_scale=1.0),
    )


@recipe(
    source=_DIALOGUES,
    size="510 thousand tokens, GPT-2 12x768, 98 M parameters",
    expected_time="two hours",
    arm="odfa",
)
def dialogue_gpt_100m() -> RunConfig:
    """A GPT-2 of 98 million parameters in float32, one block's activations and one gradient in memory at a time."""
    run = dialogue_gpt()
    return replace(
        run,
        recipe="dialogue_gpt_100m",
        steps=500,
        batch_size=4,
        log_every=1,
        checkpoint_every=100,
        evaluate_every=100,
        threads=None,
        network=replace(_GPT, width=768, layers=12, heads=12),
        data=TextData(vocabulary=8192, context=256, validation=64),
        optimizer=AdamSettings(learning_rate=3e-4, warmup_steps=20, clip_each=0.01),
        rule=AlignedHead(scale=1.0),
        memory=MemorySettings(activations="stream", fused=True),
    )


@recipe(
    source=_DIALOGUES,
    size="82 thousand tokens, GPT-2 26x2048, 1.32 B parameters, 9 GB",
    expected_time="an hour",
    arm="odfa",
)
def dialogue_gpt_1b() -> RunConfig:
    """A GPT-2 of 1.32 billion parameters in bfloat16, in nine gigabytes of memory."""
    run = dialogue_gpt_100m()
    return replace(
        run,
        recipe="dialogue_gpt_1b",
        steps=80,
        batch_size=4,
        checkpoint_every=40,
        evaluate_every=10,
        network=replace(_GPT, width=2048, layers=26, heads=16),
        data=TextData(vocabulary=2048, context=256, validation=16, test=48, limit=400),
        optimizer=replace(run.optimizer, learning_rate=1.5e-4, warmup_steps=8, embedding_share=8.0),
        rule=AlignedHead(scale=1.0, rank=64),
        memory=replace(run.memory, precision="bfloat16"),
    )


@recipe(
    source=_DIALOGUES,
    size="1.5 thousand tokens, GPT-2 34x2560, 2.7 B parameters, 18 GB",
    expected_time="10 minutes",
    arm="odfa",
)
def dialogue_gpt_2b7() -> RunConfig:
    """A few steps of a GPT-2 of 2.7 billion parameters in bfloat16, in nineteen gigabytes of memory."""
    run = dialogue_gpt_1b()
    return replace(
        run,
        recipe="dialogue_gpt_2b7",
        steps=6,
        batch_size=1,
        checkpoint_every=6,
        evaluate_every=6,
        network=replace(_GPT, width=2560, layers=34, heads=20),
        data=TextData(vocabulary=8192, context=256, validation=4, limit=8),
    )


_MANUALS = "Debian package linux-source-6.12, or the sources of a kernel at data.path"


@recipe(
    source=_MANUALS, size="6.1 million tokens, GPT-2 8x128, 2.1 M parameters", expected_time="half an hour to three"
)
def deep_gpt() -> RunConfig:
    """A deep, narrow GPT-2 of eight blocks on manuals, for what depth and hops of credit do to learning."""
    run = dialogue_gpt()
    return replace(
        run,
        recipe="deep_gpt",
        steps=3000,
        batch_size=16,
        checkpoint_every=500,
        evaluate_every=300,
        network=replace(_GPT, width=128, layers=8),
        data=KernelDocsData(vocabulary=2048, context=128, validation=256, test=1024),
        optimizer=AdamSettings(learning_rate=3e-3, warmup_steps=100, clip_norm=1.0),
        rule=AlignedHead(scale=1.0, hops=1, drawn=4),
    )


@recipe(source=_MANUALS, size="1.5 million tokens, GPT-2 8x64, 0.5 M parameters", expected_time="two to ten minutes")
def deep_gpt_tiny() -> RunConfig:
    """`deep_gpt` with half the width and a quarter of the tokens: too few to show what one signal for all costs."""
    run = deep_gpt()
    return replace(
        run,
        recipe="deep_gpt_tiny",
        steps=3000,
        batch_size=8,
        checkpoint_every=500,
        evaluate_every=300,
        network=replace(_GPT, width=64, layers=8),
        data=KernelDocsData(vocabulary=1024, context=64, validation=256, test=1024, limit=24_000),
        optimizer=replace(run.optimizer, learning_rate=2e-3),
    )


@recipe(
    source=_MANUALS,
    size="5.2 million tokens, GPT-2 26x2048, 1.34 B parameters, on a GPU of 80 GB",
    expected_time="five minutes each on a GPU, as planned",
    arm="odfa",
)
def manuals_gpt_1b() -> RunConfig:
    """A GPT-2 of 1.34 billion parameters on manuals, in bfloat16 and compiled, for one GPU; no token comes twice."""
    run = dialogue_gpt_1b()
    return replace(
        run,
        recipe="manuals_gpt_1b",
        steps=640,
        batch_size=8,
        log_every=1,
        checkpoint_every=640,
        evaluate_every=80,
        device="cuda",
        compile=True,
        data=KernelDocsData(vocabulary=8192, context=1024, validation=64, test=128),
        optimizer=replace(run.optimizer, warmup_steps=64),
        memory=MemorySettings(precision="bfloat16"),
    )


@recipe(source=_MANUALS, size="20 thousand tokens, GPT-2 2x32", expected_time="seconds", arm="odfa")
def manuals_tiny() -> RunConfig:
    """`manuals_gpt_1b` on a processor, in float32 and small: says that it runs, and nothing of what it learns."""
    run = manuals_gpt_1b()
    return replace(
        run,
        recipe="manuals_tiny",
        steps=40,
        checkpoint_every=20,
        evaluate_every=10,
        threads=1,
        device="cpu",
        compile=False,
        network=replace(_GPT, width=32, layers=2, heads=2),
        data=KernelDocsData(vocabulary=512, context=64, validation=32, test=64, limit=400),
        optimizer=replace(run.optimizer, learning_rate=3e-3, warmup_steps=4, embedding_share=1.0),
        rule=AlignedHead(scale=1.0, rank=4),
        memory=MemorySettings(),
    )
