"""Command lines: sound ones with a few words changed, dropped, doubled or put in."""

from typing import Any

from hypothesis import strategies as st

from odfa.cli.entry import COMMANDS
from tests.fuzz.base import Draw, Room, Target
from tests.fuzz.odd import FEW, ODD_NUMBERS, ODD_WORDS
from tests.fuzz.stock import SMALL

# "!" pins a word: without it the command would rightly take long
_LINES = tuple(
    tuple(line.replace("{small}", " ".join(f"!{word}" for word in SMALL)).split())
    for line in (
        "train digits_tiny {small} !steps=1 seed=1 arm=dfa !--run-dir {given}/r --json",
        "train digits arm=odfa opu=twin !--dry-run --json",
        "train !--resume {bp} --json",
        "align {dfa} --json",
        "align {dfa} out={given}/a.png",
        "sample {text} prompt=hi count=1 tokens=2 temperature=0.8 seed=0 --json",
        "sample {text} {text} count=1 tokens=2",
        "sample {bp} out={given}/a.png classes=1,2 guidance=1 sampler=ddim steps=1 sample=1",
        "export {text} {given}/out --json",
        "judge {dfa} by={bp} count=100 sampler=ddim steps=1 guidance=1 seed=0",
        "recipes --json",
        "env --json",
        "opu list --json",
        "opu check ideal inputs=4 modes=2 demodulator=phase --json",
        "opu calibrate ideal inputs=4 modes=2 demodulator=phase3 matrix=hadamard out={given}/c --json",
        "project bench !sizes=7x7 repeats=1 threads=1 --json",
        "plan digits tokens=64 context=32 processor=a100 opu=opu-2021 vectors=token devices=1 --json",
        "plan digits_tiny tokens=64 microbatches=2 opus=1",
        "study measure !--dry-run repeats=1 memory=false threads=1",
        "study scaling !--dry-run families=gpt processors=a100 tokens=8192 --json",
        "study share !--dry-run workers=1,2 steps=10 compute_s=1 light_s=0.5 straggle=0.1 synchronous=true",
        "study share workers=1,2 steps=10 out={given}/share --json",
        "sample {text} count=1 tokens=2 temperature=0.8 --json",
        "compare digits_tiny !--run-dir {given}/c !arms=bp !seeds=1 !tries=1 !steps=1 jobs=1 limit=20 --json",
        "compare digits_tiny !--run-dir {given}/c arms=bp+learning_rate=0.1 !seeds=1 !tries=1 !steps=1 limit=20 --json",
    )
)
_OPTIONS = (
    *("--json", "--help", "--run-dir", "--resume", "--dry-run", "--image", "--seed", "--seed=1"),
    *("--steps", "--by", "-h", "--", "-", "--nothing", "--no-thing=="),
)


class Words(Target):
    """{"line": number of a sound line, "changes": [(place, action, word)]}."""

    name, share = "words", 9

    def draw(self, draw: Draw) -> Any:
        change = st.tuples(
            st.integers(0, 14),
            st.sampled_from((*("value",) * 6, "word", "drop", "double", "insert")),
            ODD_WORDS
            | ODD_WORDS
            | ODD_NUMBERS.map(str)
            | st.sampled_from(_OPTIONS)
            | st.sampled_from([command.name for command in COMMANDS]),
        )
        return {"line": draw(st.integers(0, len(_LINES) - 1)), "changes": [draw(change) for _ in range(draw(FEW))]}

    def lay(self, value: Any, room: Room) -> None:
        for name in ("bp", "dfa", "text"):
            if f"{{{name}}}" in _LINES[value["line"]]:
                room.stock.copy_run(name, room.given / name, complete=name != "bp")

    def run(self, value: Any, room: Room) -> Any:
        places = {name: room.given / name for name in ("bp", "dfa", "text")} | {"given": room.given}
        words = _changed(list(_LINES[value["line"]]), value["changes"])
        return room.odfa(
            *(word.removeprefix("!").format_map(places) if "{" in word else word.removeprefix("!") for word in words)
        )


def _changed(words: list[str], changes: Any) -> list[str]:
    for place, action, word in changes:
        word = word.replace("{", "(").replace("}", ")")
        places = _values(words) if action == "value" else [at for at in range(len(words)) if not _pinned(words, at)]
        if not places:
            continue
        at = places[place % len(places)]
        if action == "drop":
            del words[at]
        elif action in ("double", "insert"):
            words.insert(at, words[at] if action == "double" else word)
        elif action == "value" and "=" in words[at]:
            words[at] = f"{words[at].partition('=')[0]}={word}"
        else:
            words[at] = word
    return words


def _pinned(words: list[str], at: int) -> bool:
    return words[at].startswith("!") or words[max(0, at - 1)].startswith("!--")


def _values(words: list[str]) -> list[int]:
    """Places of what is given to settings and options."""
    given = [at for at in range(1, len(words)) if "=" in words[at] or words[at - 1].startswith("--")]
    return [at for at in given if not _pinned(words, at)]
