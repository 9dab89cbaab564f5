"""The command line: `odfa recipes | train | compare | align | env`, one file per subcommand."""

from odfa.cli.entry import main

__all__ = ["main"]
