"""Dialogues with causal Transformers."""

from dataclasses import replace

from odfa.train.config import (
    FeedbackConfig,
    MemoryConfig,
    OptimizerConfig,
    RunConfig,
    TextConfig,
    TransformerConfig,
)

_GPT = TransformerConfig(family="gpt2", width=256, layers=4, heads=4, readout_scale=1.0)


def dialogue_gpt() -> RunConfig:
    """A GPT-2 of 4 million parameters on human dialogues, 1.5 million tokens: the comparison with backpropagation."""
    return RunConfig(
        recipe="dialogue_gpt",
        task="text",
        rule="aligned",
        steps=1500,
        batch_size=16,
        log_every=10,
        checkpoint_every=500,
        evaluate_every=250,
        threads=1,
        model=_GPT,
        data=TextConfig(vocabulary=2048, context=64),
        optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=50, clip_norm=1.0),
        feedback=FeedbackConfig(quantiser="sampled", repeats=4, scale=1.0),
    )


def dialogue_tiny() -> RunConfig:
    """`dialogue_gpt` with half the width and a third of the tokens; a minute."""
    run = dialogue_gpt()
    return replace(
        run,
        recipe="dialogue_tiny",
        steps=1000,
        batch_size=8,
        checkpoint_every=250,
        evaluate_every=100,
        model=replace(_GPT, width=128, layers=3),
        data=TextConfig(vocabulary=1024, context=64, limit=9000, validation=256),
        optimizer=replace(run.optimizer, learning_rate=2e-3),
    )


def dialogue_llama() -> RunConfig:
    """A Llama of 4 million parameters on the same dialogues: RMSNorm, rotary positions, gated MLP, grouped heads."""
    run = dialogue_gpt()
    return replace(
        run,
        recipe="dialogue_llama",
        model=replace(_GPT, family="llama", kv_heads=2, mlp_width=640),
    )


def dialogue_gpt_100m() -> RunConfig:
    """A GPT-2 of 98 million parameters; float32, one block's activations and one gradient alive at a time."""
    run = dialogue_gpt()
    return replace(
        run,
        recipe="dialogue_gpt_100m",
        method="odfa",
        steps=500,
        batch_size=4,
        log_every=1,
        checkpoint_every=100,
        evaluate_every=100,
        threads=None,
        model=replace(_GPT, width=768, layers=12, heads=12),
        data=TextConfig(vocabulary=8192, context=256, validation=64),
        optimizer=OptimizerConfig(learning_rate=3e-4, warmup_steps=20, clip_each=0.01),
        memory=MemoryConfig(activations="stream", fused=True),
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
        model=replace(_GPT, width=2048, layers=26, heads=16),
        data=TextConfig(vocabulary=2048, context=256, validation=16, test=48, limit=400),
        optimizer=replace(run.optimizer, learning_rate=1.5e-4, warmup_steps=8, embedding_share=8.0),
        feedback=replace(run.feedback, rank=64),
        memory=replace(run.memory, precision="bfloat16"),
    )


def dialogue_gpt_2b7() -> RunConfig:
    """A GPT-2 of 2.7 billion parameters in bfloat16, in nineteen gigabytes of memory: a few steps."""
    run = dialogue_gpt_1b()
    return replace(
        run,
        recipe="dialogue_gpt_2b7",
        steps=6,
        batch_size=1,
        checkpoint_every=6,
        evaluate_every=6,
        model=replace(_GPT, width=2560, layers=34, heads=20),
        data=TextConfig(vocabulary=8192, context=256, validation=4, limit=8),
    )
