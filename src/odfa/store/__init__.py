"""The run folder: what a run writes into it, and how it is checked and read back."""

from odfa.store.folder import RunFolderLost
from odfa.store.load import LoadedRun, load_run
from odfa.store.provenance import environment
from odfa.store.result import RunResult

__all__ = ["LoadedRun", "RunFolderLost", "RunResult", "environment", "load_run"]
