"""A corpus of a few kilobytes and a GPT of a few thousand weights, for tests of language runs."""

from dataclasses import replace
from pathlib import Path

from odfa import recipes
from odfa.train import MemoryConfig, RunConfig, TextConfig, TransformerConfig


def write_corpus(folder: Path) -> str:
    """Nine hundred short dialogues in one file; returns the folder."""
    talk = "".join(f"<|a|>is {k % 9} more than {k % 5}?<|b|>no, {k % 7}\n" for k in range(900))
    (folder / "talk.txt").write_text(talk, encoding="utf-8")
    return str(folder)


def small_run(
    corpus: str,
    method: str = "bp",
    rule: str = "random",
    *,
    family: str = "gpt2",
    layers: int = 2,
    memory: MemoryConfig | None = None,
) -> RunConfig:
    """Six steps, a checkpoint every three."""
    run = recipes.dialogue_tiny()
    return replace(
        run,
        method=method,  # type: ignore[arg-type]
        rule=rule,  # type: ignore[arg-type]
        steps=6,
        batch_size=4,
        checkpoint_every=3,
        evaluate_every=4,
        log_every=1,
        tensorboard=False,
        model=TransformerConfig(family=family, width=16, layers=layers, heads=2),  # type: ignore[arg-type]
        data=TextConfig(path=corpus, vocabulary=270, context=12, limit=40),
        optimizer=replace(run.optimizer, clip_norm=None, learning_rate=1e-2),
        feedback=replace(run.feedback, rank=None if rule in ("random", "exact") else 2, every=2),
        memory=memory or MemoryConfig(),
    )
