"""`python -m odfa`: the command line."""

from odfa.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
