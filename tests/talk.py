"""A corpus of a few kilobytes and a GPT of a few thousand weights, for tests of language runs."""

from dataclasses import replace
from pathlib import Path

from odfa import recipes
from odfa.arms import arm
from odfa.engine.rules.head import FollowedHeadRule
from odfa.session import MemorySettings, RunConfig
from odfa.tasks.language.text import TextData
from odfa.tasks.language.transformer import Gpt2Network, LlamaNetwork


def write_corpus(folder: Path) -> str:
    """Nine hundred short dialogues in the form of the Cornell Movie-Dialogs Corpus; returns the folder."""
    lines = [(f"is {k % 9} more than {k % 5}?", f"no, {k % 7}") for k in range(900)]
    between = " +++$+++ "
    said = [
        between.join((f"L{k}{who}", who, "m0", who, text))
        for k, pair in enumerate(lines)
        for who, text in zip("ab", pair, strict=True)
    ]
    talks = [between.join(("a", "b", "m0", f"['L{k}a', 'L{k}b']")) for k in range(len(lines))]
    (folder / "movie_lines.txt").write_text("\n".join(said) + "\n", encoding="iso-8859-1")
    (folder / "movie_conversations.txt").write_text("\n".join(talks) + "\n", encoding="iso-8859-1")
    return str(folder)


def small_run(
    corpus: str,
    word: str = "bp",
    rule: str = "random",
    *,
    family: str = "gpt2",
    layers: int = 2,
    memory: MemorySettings | None = None,
) -> RunConfig:
    """Six steps, a checkpoint every three."""
    run = recipes.whole("dialogue_tiny")
    own = arm(run, word if word in ("bp", "shallow", "identity") else f"{word}:{rule}")
    ranked = {"rank": 2, "every": 2} if isinstance(own.rule, FollowedHeadRule) else {}
    return replace(
        own,
        rule=replace(own.rule, **ranked),
        steps=6,
        batch_size=4,
        checkpoint_every=3,
        evaluate_every=4,
        log_every=1,
        tensorboard=False,
        network=(LlamaNetwork if family == "llama" else Gpt2Network)(width=16, layers=layers, heads=2),
        data=TextData(path=Path(corpus), vocabulary=270, context=12, limit=40),
        optimizer=replace(run.optimizer, clip_norm=None, learning_rate=1e-2),
        memory=memory or MemorySettings(),
    )
