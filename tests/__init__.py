"""The test room; modules of its rooms import each other by full name."""
