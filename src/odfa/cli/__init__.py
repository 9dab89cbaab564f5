"""The command line: `odfa recipes | train | compare | align | device | project | env`, one file per subcommand."""

from odfa.cli.entry import main

__all__ = ["main"]
