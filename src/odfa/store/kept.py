"""What a run keeps of its data: enough to go on with the same data only, and to be used where they are not.

data.json        fingerprint, source, sizes, whether the texts have turns
tokenizer.json   of language runs: the tokenizer
"""

import dataclasses
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from odfa.data import DataShape, Splits, needs
from odfa.errors import DataError, RunFolderError
from odfa.files import read_file, write_file
from odfa.saved import misfit
from odfa.store.checkpoint import find
from odfa.store.folder import folder_errors, read_json, write_json
from odfa.tasks.language.dialogue import SPEAKERS
from odfa.tasks.language.text import TextSplits

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
    """The data of a run, by name."""

    fingerprint: str
    """SHA-256 of the parts as they were read."""
    source: str
    """Where they were."""
    shape: DataShape
    has_turns: bool
    """Texts: True if they are conversations, with a token in front of each turn."""
    tokenizer: str | None
    """SHA-256 of tokenizer.json, if there is one."""

    def check(self, splits: Splits, run_dir: Path) -> None:
        """Refuse other data than those of the run in `run_dir`.

        Raises:
            DataError: the parts are not those that the run was begun with.
        """
        if splits.fingerprinted().fingerprint != self.fingerprint:
            raise DataError(
                f"{run_dir} was trained on other data than {splits.source} holds now; put back what {self.source} held "
                "then, or start a new run"
            )


def keep(run_dir: Path, splits: Splits) -> None:
    """Write down the data of a run that begins; of one that goes on, see that they are still the same.

    Raises:
        DataError: they are not. RunFolderError: the folder lacks what was written at the beginning, or cannot be
            written.
    """
    with folder_errors(run_dir):
        if os.path.lexists(run_dir / DATA_FILE) or find(run_dir / "checkpoints"):
            read_kept(run_dir).check(splits, run_dir)
            return
        has_turns, digest = False, None
        if isinstance(splits, TextSplits):
            words = splits.tokenizer.to_str().encode()
            digest = hashlib.sha256(words).hexdigest()
            has_turns = bool((splits.validation.x_ND == splits.tokenizer.token_to_id(SPEAKERS[0])).any())
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
    """What a run has kept of its data.

    Raises:
        RunFolderError: nothing, or it is damaged.
    """
    file = run_dir / DATA_FILE
    if not os.path.lexists(file):
        raise RunFolderError(f"{file} is missing: the run is of an earlier version or not whole; train it anew")
    with folder_errors(run_dir):
        values = read_json(file)
    wrong = misfit(values, _FORM, DATA_FILE)
    if wrong:
        raise RunFolderError(f"{file} is damaged ({wrong}); restore it or start a new run")
    sizes: dict[str, Any] = {
        name: tuple(size) if isinstance(size, list) else size for name, size in values["shape"].items()
    }
    return KeptData(**{**values, "shape": DataShape(**sizes)})


def kept_tokenizer(run_dir: Path, kept: KeptData) -> Any:
    """The tokenizer of a language run.

    Raises:
        RunFolderError: it is missing or not the one that the run was begun with. MissingExtra: no tokenizers.
    """
    with needs("tokenizers", "language models"):
        from tokenizers import Tokenizer
    file = run_dir / _TOKENIZER
    with folder_errors(run_dir):
        words = read_file(file)
    if hashlib.sha256(words).hexdigest() != kept.tokenizer:
        raise RunFolderError(f"{file} is not the run's tokenizer any more; restore it or start a new run")
    try:
        tokenizer = Tokenizer.from_str(words.decode())
    except Exception as error:  # tokenizers raises plain Exception
        reason = " ".join(str(error).split())
        raise RunFolderError(f"{file} is no tokenizer ({reason}); restore it or start a new run") from error
    if tokenizer.get_vocab_size() != kept.shape.num_classes or tokenizer.token_to_id(SPEAKERS[0]) is None:
        raise RunFolderError(
            f"{file}: expected {kept.shape.num_classes} tokens, those of speakers among them, got "
            f"{tokenizer.get_vocab_size()}; restore it or start a new run"
        )
    return tokenizer
