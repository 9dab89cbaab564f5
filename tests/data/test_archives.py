"""Text from tar archives: the sources of a kernel, or any archive of .txt and .rst files."""

import io
import random
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from odfa.cli import main
from odfa.errors import DataError
from odfa.store import load_run
from odfa.tasks.language import kernel_docs
from odfa.tasks.language.dialogue import read_documents
from odfa.tasks.language.kernel_docs import KernelDocsData

MANUALS = {
    f"linux/{place}/page{k:02}.{end}": f"Page {k} of {place}.\nIt names driver {k % 7} and bus {k % 3}.\n" * 6
    for place, end in (("Documentation", "rst"), ("drivers", "txt"))
    for k in range(45)
}


def _archive(file: Path, members: Mapping[str, bytes | str], mode: str = "w") -> Path:
    with tarfile.open(file, mode) as archive:  # type: ignore[call-overload]
        for name, text in members.items():
            content = text.encode() if isinstance(text, str) else text
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return file


@pytest.mark.parametrize(("suffix", "mode"), [("tar", "w"), ("tar.gz", "w:gz"), ("tar.xz", "w:xz"), ("bin", "w:bz2")])
def test_documents_come_by_name_whatever_their_order_and_compression(tmp_path: Path, suffix: str, mode: str) -> None:
    shuffled = dict(sorted(MANUALS.items(), key=lambda item: item[0][::-1]))
    others = {"linux/main.c": "int main;", "linux/README": "nothing", "linux/a.txt.gz": b"\x1f\x8b"}
    file = _archive(tmp_path / f"sources.{suffix}", {**others, **shuffled}, mode)
    assert read_documents(file) == [(("", MANUALS[name]),) for name in sorted(MANUALS)]


def test_links_and_folders_in_an_archive_are_no_documents(tmp_path: Path) -> None:
    file = _archive(tmp_path / "sources.tar", MANUALS)
    with tarfile.open(file, "a") as archive:
        for name, kind in (
            ("out.txt", tarfile.SYMTYPE),
            ("again.rst", tarfile.LNKTYPE),
            ("folder.txt", tarfile.DIRTYPE),
        ):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, "/etc/passwd"
            archive.addfile(entry)
    assert len(read_documents(file)) == len(MANUALS)


def test_a_damaged_archive_is_refused_in_one_line(tmp_path: Path) -> None:
    texts = {f"{k}.txt": random.Random(k).randbytes(900).hex() for k in range(60)}
    file = _archive(tmp_path / "sources.tar.xz", texts, "w:xz")
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"sources\.tar\.xz: the archive is damaged \(.*\); fetch it again$"):
        read_documents(file)


@pytest.mark.parametrize("compression", ["gz", "bz2", "xz"])
def test_an_archive_cut_at_any_byte_is_read_whole_or_refused(tmp_path: Path, compression: str) -> None:
    file = _archive(tmp_path / "sources", {"page.txt": b"hello"}, f"w:{compression}")
    content, refused = file.read_bytes(), 0
    for length in range(11, len(content)):  # a shorter piece may be text: bzip2 begins with letters
        file.write_bytes(content[:length])
        try:
            assert read_documents(file) == [(("", "hello"),)]
        except DataError:
            refused += 1
    assert refused > 20


def test_three_bytes_of_a_compressed_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "talk.txt").write_bytes(b"\x1f\x8b\x08")
    with pytest.raises(DataError, match=r"talk\.txt: the archive is damaged \(.*\); fetch it again$"):
        read_documents(tmp_path / "talk.txt")


def test_a_member_that_is_no_text_is_named(tmp_path: Path) -> None:
    file = _archive(tmp_path / "sources.tar", {**MANUALS, "linux/latin.txt": b"caf\xe9"})
    with pytest.raises(DataError, match=r"sources\.tar, linux/latin\.txt: expected UTF-8 text, got the byte 0xe9"):
        read_documents(file)


def test_an_archive_without_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="sources"):
        read_documents(_archive(tmp_path / "sources.tar", {"main.c": "int main;"}))


def test_the_sources_of_a_kernel_have_to_be_installed_or_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_docs, "ARCHIVE", tmp_path / "absent.tar.xz")
    with pytest.raises(DataError, match=r"is missing; install .*apt install linux-source-6\.12.*data\.path=ARCHIVE"):
        KernelDocsData().load()


def test_a_run_on_the_archive_at_data_path(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A hop is a setting of the run: it trains, and its folder gives it back."""
    file, folder = _archive(tmp_path / "sources.tar.xz", MANUALS, "w:xz"), tmp_path / "run"
    sizes = (
        "vocabulary=300",
        "context=16",
        "width=16",
        "layers=3",
        "heads=2",
        "batch_size=4",
        "validation=8",
        "test=8",
    )
    words = (*sizes, "steps=3", "evaluate_every=3", "checkpoint_every=3", "hops=2", "arm=odfa", "threads=1")
    code = main(["train", "deep_gpt_tiny", f"data.path={file}", *words, "--run-dir", str(folder)])
    assert code == 0, capsys.readouterr().err
    assert load_run(folder).config.rule.hops == 2
    for more, told in (
        (("hops=4",), "rule.hops: expected at most 3, the places that are fed, got 4"),
        (("hops=1", "feedback.granularity=linear"), "expected block or sublayer, or rule.hops=0"),
    ):
        code = main(["train", "deep_gpt_tiny", f"data.path={file}", *sizes, *more, "--run-dir", str(tmp_path / "x")])
        said = capsys.readouterr().err
        assert (code, told in said) == (2, True), said
