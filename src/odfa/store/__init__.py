"""The run folder: what a session writes, checks before it believes it, and reads back."""

from odfa.store.folder import RunFolderLost
from odfa.store.load import LoadedRun, load_run
from odfa.store.provenance import environment
from odfa.store.result import RunResult

__all__ = ["LoadedRun", "RunFolderLost", "RunResult", "environment", "load_run"]
