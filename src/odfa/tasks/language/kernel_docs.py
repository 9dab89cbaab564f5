"""The documentation of the Linux kernel as text: 5,000 documents, 32 MB, in a package that Debian installs."""

from dataclasses import dataclass
from pathlib import Path

from odfa.errors import DataError
from odfa.tasks.language.text import TextData

ARCHIVE = Path("/usr/src/linux-source-6.12.tar.xz")
"""What the Debian package `linux-source-6.12` installs. Its updates change some documents, and so the fingerprint."""


@dataclass(frozen=True, kw_only=True)
class KernelDocsData(TextData, kind="kernel_docs"):
    """Every .rst and .txt file of the kernel's sources, read from the archive in 20 seconds; nothing is unpacked."""

    path: Path | None = None
    """Archive of the sources of a kernel; none: that of the Debian package linux-source-6.12."""

    @property
    def place(self) -> Path:
        """Where the text is read.

        Raises:
            DataError: the package is not installed.
        """
        if self.path is None and not ARCHIVE.exists():
            raise DataError(
                f"{ARCHIVE} is missing; install the text (Debian, Ubuntu: apt install linux-source-6.12), or say "
                "data.path=ARCHIVE for the sources of another kernel"
            )
        return self.path or ARCHIVE
