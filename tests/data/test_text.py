"""Documents, tokens and packed sequences."""

import itertools
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from odfa.errors import DataError, OdfaError
from odfa.tasks.language import dialogue, text, tokens
from odfa.tasks.language.text import MASKED, load_text, read_tokenizer

WORDS = tuple("the cat sat on a mat and saw one small bird in the old tree by our".split())  # noqa: SIM905
MESSAGE = st.tuples(st.sampled_from("xyz"), st.text(st.characters(exclude_characters="<|>", codec="utf-8"), max_size=9))


def _lines(count: int) -> str:
    return "".join(f"{WORDS[k % 17]} {WORDS[k * k % 17]} {WORDS[(7 * k) % 17]} {k}\n" for k in range(count))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    text._corpus.cache_clear()


@pytest.fixture
def corpus(tmp_path: Path) -> str:
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus/book.txt").write_text(_lines(2000), encoding="utf-8")
    return str(tmp_path / "corpus")


@given(st.lists(MESSAGE, max_size=8))
def test_turns_keep_every_word_and_begin_where_another_speaks(messages: list[tuple[str, str]]) -> None:
    said = "".join(itertools.chain.from_iterable(dialogue.turns(messages)))
    kept = said.replace("<|a|>", " ").replace("<|b|>", " ").split()
    assert kept == " ".join(words for _, words in messages).split()
    groups = itertools.groupby(messages, key=lambda message: message[0])
    speaking = [any(words.split() for _, words in group) for _, group in groups]  # a turn of blanks is not heard
    assert said.count("<|a|>") + said.count("<|b|>") == sum(speaking)
    assert any(speaking) == said.startswith("<|a|>")


def test_the_tokens_of_all_parts_are_the_documents_each_once(corpus: str) -> None:
    splits = load_text(corpus, context=8, vocabulary=300, holdout=0.1).check()
    documents = [text for document in dialogue.read_documents(corpus) for _, text in document]
    assert "".join(documents) == _lines(2000)
    found = []
    for part in (splits.train, splits.validation, splits.test):
        stream = [int(part.x_ND[0, 0]), *part.y_N[part.y_N != MASKED].tolist()]
        found += splits.tokenizer.decode(stream, skip_special_tokens=False).split(tokens.END)[:-1]
    assert sorted(found) == sorted(documents)


def test_targets_are_the_next_tokens_and_only_the_end_is_masked(corpus: str) -> None:
    splits = load_text(corpus, context=8, vocabulary=300)
    for part in (splits.train, splits.validation, splits.test):
        x_L, y_L = part.x_ND.flatten(), part.y_N.flatten()
        known = y_L != MASKED
        last = int(known.sum())
        assert known[:last].all()
        assert len(y_L) - last < 8
        assert torch.equal(x_L[1:last], y_L[: last - 1])


def test_bytes_of_tokens_add_up_to_the_text(corpus: str) -> None:
    tokenizer = read_tokenizer(corpus, vocabulary=300)
    bytes_V = tokens.token_bytes(tokenizer)
    for words in ("the cat", "naïve – 😀\n", "<|a|>hi<|b|>ho<|end|>"):
        plain = words
        for special in tokens.SPECIALS:
            plain = plain.replace(special, "\n")
        assert bytes_V[tokenizer.encode(words).ids].sum() == len(plain.encode())


def test_special_tokens_inside_a_text_stay_text(tmp_path: Path) -> None:
    spoken = "you <|end|> and <|a|> or <|b|>!<|end|>"
    lines = "".join(f"{words} {spoken}\n" for words in _lines(400).splitlines())
    splits = load_text(_file(tmp_path, "a.txt", lines.encode()), context=8, vocabulary=300)
    parts = (splits.train, splits.validation, splits.test)
    stream = [token for part in parts for token in [int(part.x_ND[0, 0]), *part.y_N[part.y_N != MASKED].tolist()]]
    numbers = {name: splits.tokenizer.token_to_id(name) for name in tokens.SPECIALS}
    documents = dialogue.read_documents(str(tmp_path / "a.txt"))
    assert [stream.count(numbers[name]) for name in tokens.SPECIALS] == [len(documents), 0, 0]
    assert splits.tokenizer.decode(stream, skip_special_tokens=False).count(tokens.END) == 2 * 400 + len(documents)
    said = dialogue.read_documents(_chat(tmp_path / "dataset.json", "<|b|>no", "<|end|>"))
    assert said == [(("<|a|>", "<|b|>no"), ("<|b|>", "<|end|>"))]
    corpus = tokens._encode(said, splits.tokenizer)
    ends = [list(corpus.ids).count(numbers[name]) for name in tokens.SPECIALS]
    assert ends == [1, 1, 1]
    assert splits.tokenizer.decode(corpus.ids, skip_special_tokens=False) == "<|a|><|b|>no<|b|><|end|><|end|>"


def test_a_dialogue_without_them_has_the_tokens_that_the_library_gives(corpus: str) -> None:
    tokenizer = read_tokenizer(corpus, vocabulary=300)
    talk = (("<|a|>", "is 2 more than 1?"), ("<|b|>", "so \u00e9 late\n"), ("<|a|>", " no"))
    plain = "".join(itertools.chain.from_iterable(talk)) + tokens.END
    assert tokens._encode([talk], tokenizer).ids.tolist() == tokenizer.encode(plain).ids


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    mark = b"\xef\xbb\xbf"
    _file(tmp_path, "a.txt", mark + b"first\nsecond\nthird\n")
    assert dialogue.read_documents(str(tmp_path / "a.txt"))[0] == (("", "first\n"),)
    _chat(tmp_path / "dataset.json", "hi")
    _file(tmp_path, "dataset.json", mark + (tmp_path / "dataset.json").read_bytes())
    assert dialogue.read_documents(str(tmp_path / "dataset.json")) == [(("<|a|>", "hi"),)]
    folder = Path(_cornell(tmp_path / "cornell", "['L1']"))
    for name in ("movie_lines.txt", "movie_conversations.txt"):
        _file(folder, name, mark + (folder / name).read_bytes())
    assert dialogue.read_documents(str(folder)) == [(("<|a|>", "Hi."),)]


@pytest.mark.parametrize("name", ["ids.npy", "start.npy"])
def test_kept_tokens_that_do_not_fit_are_not_used(corpus: str, name: str) -> None:
    load_text(corpus, context=8, vocabulary=300)
    text._corpus.cache_clear()
    (kept,) = tokens.cache_folder().iterdir()
    np.save(kept / name, np.load(kept / name)[:-1])
    with pytest.raises(DataError, match=r"is damaged .*; remove it and it will be made anew"):
        load_text(corpus, context=8, vocabulary=300)


def test_a_corpus_is_encoded_once(corpus: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_text(corpus, context=8, vocabulary=300)
    text._corpus.cache_clear()
    monkeypatch.setattr(tokens, "train_bpe", None)
    again = load_text(corpus, context=8, vocabulary=300)
    assert torch.equal(first.train.x_ND, again.train.x_ND)
    assert not [path for path in tokens.cache_folder().iterdir() if path.name.startswith(".")]


def test_merges_are_learned_from_training_documents_only(tmp_path: Path) -> None:
    documents = [(("", _lines(300)),), (("", "zqzq " * 400),)]
    seen = tokens.encode_corpus(documents, np.array([0]), vocabulary=280)
    assert not any("zq" in seen.tokenizer.id_to_token(k) for k in range(280))


def test_cornell_files_become_conversations(tmp_path: Path) -> None:
    folder = tmp_path / "cornell"
    folder.mkdir()
    rows = [
        ("L1", "u0", "m0", "BIANCA", "Hi."),
        ("L2", "u2", "m0", "CAMERON", "So \xe9 late?"),
        ("L3", "u0", "m0", "B", ""),
    ]
    lines = "".join(" +++$+++ ".join(row) + "\n" for row in rows)
    (folder / "movie_lines.txt").write_bytes(lines.encode("iso-8859-1"))
    (folder / "movie_conversations.txt").write_text("u0 +++$+++ u2 +++$+++ m0 +++$+++ ['L1', 'L2', 'L3']\n")
    assert dialogue.read_documents(str(folder)) == [(("<|a|>", "Hi."), ("<|b|>", "So é late?"))]
    (folder / "movie_conversations.txt").write_text("u0 +++$+++ u2 +++$+++ m0 +++$+++ ['L1', 'L9']\n")
    with pytest.raises(
        DataError, match=r"movie_conversations\.txt, line 1: expected names of lines in movie_lines\.txt \(KeyError"
    ):
        dialogue.read_documents(str(folder))


def _file(folder: Path, name: str, content: bytes) -> str:
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(content)
    return str(folder / name)


def _fifty(folder: Path) -> str:
    for k in range(50):
        _file(folder, f"{k}.txt", "caf\u00e9".encode("latin-1" if k == 7 else "utf-8"))
    return str(folder)


def _pipe(place: Path) -> str:
    os.mkfifo(place)
    return str(place.parent)


def _chat(file: Path, *said: str) -> str:
    messages = [[{"sender": who % 2, "text": text} for who, text in enumerate(said)]]
    return _file(file.parent, file.name, json.dumps({"k": {"messages": messages}}).encode())


def _cornell(folder: Path, names: str) -> str:
    _file(folder, "movie_lines.txt", b"L1 +++$+++ u0 +++$+++ m0 +++$+++ B +++$+++ Hi.\n")
    _file(folder, "movie_conversations.txt", f"u0 +++$+++ u2 +++$+++ m0 +++$+++ {names}\n".encode())
    return str(folder)


BAD = {
    "nothing there": (lambda at: str(at / "missing.txt"), "cannot read .*missing.txt"),
    "an empty folder": (lambda at: str(at), r"holds no \.txt files"),
    "an empty file": (lambda at: _file(at / "e", "a.txt", b" \n \n"), "holds no text"),
    "one line": (lambda at: _file(at / "l", "a.txt", b"one line\n"), "three documents or lines at least"),
    "few words": (lambda at: _file(at / "w", "a.txt", b"a b\n" * 50), "different tokens, expected 300"),
    "bytes": (lambda at: _file(at / "b", "a.txt", b"\xff\xfe\n"), "expected UTF-8 text, got the byte 0xff"),
    "one of many": (lambda at: _fifty(at / "f"), r"/f/7\.txt: expected UTF-8 text, got the byte 0xe9 at place 3"),
    "a pipe": (lambda at: _pipe(at / "a.txt"), r"a\.txt: expected a file of text, this is none"),
    "half a character": (
        lambda at: _chat(at / "dataset.json", "\ud83d"),
        r"conversation 'k': '\\ud83d' is half of a char",
    ),
    "deep JSON": (lambda at: _file(at / "d", "x.json", b"[" * 100_000), "not a chitchat dataset.json .RecursionError"),
    "deep names": (lambda at: _cornell(at / "c", "[" * 9000), r"movie_conversations\.txt, line 1: expected names"),
    "other JSON": (lambda at: _file(at / "j", "dataset.json", json.dumps([1]).encode()), "not a chitchat dataset.json"),
}


@pytest.mark.parametrize(("make", "message"), BAD.values(), ids=BAD)
def test_bad_corpora_are_refused_in_one_line(tmp_path: Path, make, message: str) -> None:
    with pytest.raises(OdfaError, match=message) as caught:
        load_text(make(tmp_path), context=8, vocabulary=300)
    assert "\n" not in str(caught.value)


def test_a_context_longer_than_a_part_is_refused(corpus: str) -> None:
    with pytest.raises(DataError, match="not more than the context of 100000"):
        load_text(corpus, context=100_000, vocabulary=300)


def test_a_vocabulary_without_room_for_the_bytes_is_refused(corpus: str) -> None:
    with pytest.raises(DataError, match=r"data.vocabulary: expected at least 259 .* got 100"):
        load_text(corpus, context=8, vocabulary=100)
