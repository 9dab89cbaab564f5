"""What a run folder keeps about the data, so that other data are refused and the model works without them.

data.json        fingerprint, source, sizes, whether the texts are conversations
tokenizer.json   the tokenizer, for language runs
"""

import dataclasses
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from odfa.data import DataShape, Splits, needs
from odfa.errors import DataError, RunFolderError
from odfa.files import read_file, write_file
from odfa.saved import misfit
from odfa.store.checkpoint import find
from odfa.store.folder import folder_errors, read_json, write_json
from odfa.tasks.language.dialogue import SPEAKERS
from odfa.tasks.language.text import TextSplits

if TYPE_CHECKING:
    from tokenizers import Tokenizer

DATA_FILE, _TOKENIZER = "data.json", "tokenizer.json"
_SIZE = (None, [int, int, int])
_FORM = {
    "fingerprint": str,
    "source": str,
    "has_turns": bool,
    "tokenizer": (None, str),
    "shape": {
        **dict.fromkeys(("num_features", "num_classes", "num_train", "num_validation", "num_test"), int),
        "image": _SIZE,
        "field": _SIZE,
    },
}


@dataclass(frozen=True, kw_only=True)
class KeptData:
    """The content of data.json."""

    fingerprint: str
    """SHA-256 of the three parts as they were read, before the task prepares them."""
    source: str
    """Folder or package that they were read from."""
    shape: DataShape
    has_turns: bool
    """Whether the texts are conversations, with a speaker's token in front of each turn; False for other data."""
    tokenizer: str | None
    """SHA-256 of tokenizer.json; None for data without a tokenizer."""

    def check(self, splits: Splits, run_dir: Path) -> None:
        """Refuse data that are not those of the run in `run_dir`.

        Raises:
            DataError: their fingerprint differs from the one that was kept when the run began.
        """
        if splits.fingerprinted().fingerprint != self.fingerprint:
            raise DataError(
                f"{run_dir} was trained on other data than {splits.source} holds now; put back what {self.source} held "
                "then, or start a new run"
            )


def keep(run_dir: Path, splits: Splits) -> None:
    """For a run that begins, write data.json; for one that goes on, compare the data with it.

    Raises:
        DataError: the data have changed since the run began. RunFolderError: data.json is missing although there are
            checkpoints, or the folder cannot be written.
    """
    with folder_errors(run_dir):
        if os.path.lexists(run_dir / DATA_FILE) or find(run_dir / "checkpoints"):
            read_kept(run_dir).check(splits, run_dir)
            return
        # data.json is written last: where it exists, the tokenizer that it names exists, too
        has_turns, digest = False, None
        if isinstance(splits, TextSplits):
            words = splits.tokenizer.to_str().encode()
            digest = hashlib.sha256(words).hexdigest()
            speaker = splits.tokenizer.token_to_id(SPEAKERS[0])
            has_turns = speaker is not None and bool((splits.validation.x_ND == speaker).any())
            write_file(run_dir / _TOKENIZER, words)
        kept = KeptData(
            fingerprint=splits.fingerprinted().fingerprint,
            source=splits.source,
            shape=splits.shape,
            has_turns=has_turns,
            tokenizer=digest,
        )
        write_json(run_dir / DATA_FILE, dataclasses.asdict(kept))


def read_kept(run_dir: Path) -> KeptData:
    """The content of a run's data.json.

    Raises:
        RunFolderError: the file is missing or damaged.
    """
    file = run_dir / DATA_FILE
    if not os.path.lexists(file):
        raise RunFolderError(
            f"{file} is missing: the run was not copied as a whole, or never began; copy it again or train it anew"
        )
    with folder_errors(run_dir):
        values = read_json(file)
    wrong = misfit(values, _FORM, DATA_FILE)
    if wrong:
        raise RunFolderError(f"{file} is damaged ({wrong}); restore it or start a new run")
    # JSON has lists where DataShape has tuples
    sizes: dict[str, Any] = {
        name: tuple(size) if isinstance(size, list) else size for name, size in values["shape"].items()
    }
    return KeptData(**{**values, "shape": DataShape(**sizes)})


def kept_tokenizer(run_dir: Path, kept: KeptData) -> "Tokenizer":
    """The tokenizer of a language run, read from tokenizer.json.

    Raises:
        RunFolderError: it is missing or not the one with which the run began. MissingExtra: no tokenizers installed.
    """
    with needs("tokenizers", "language models"):
        from tokenizers import Tokenizer
    file = run_dir / _TOKENIZER
    with folder_errors(run_dir):
        words = read_file(file)
    if hashlib.sha256(words).hexdigest() != kept.tokenizer:
        raise RunFolderError(
            f"{file} is not the tokenizer with which the run began (its SHA-256 differs from that in {DATA_FILE}); "
            "restore it or start a new run"
        )
    try:
        tokenizer = Tokenizer.from_str(words.decode())
    except Exception as error:  # tokenizers raises plain Exception
        reason = " ".join(str(error).split())
        raise RunFolderError(f"{file} is no tokenizer ({reason}); restore it or start a new run") from error
    if tokenizer.get_vocab_size() != kept.shape.num_classes or tokenizer.token_to_id(SPEAKERS[0]) is None:
        raise RunFolderError(
            f"{file}: expected {kept.shape.num_classes} tokens, among them those of the speakers, got "
            f"{tokenizer.get_vocab_size()}; restore it or start a new run"
        )
    return tokenizer
