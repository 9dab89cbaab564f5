"""Replacements for libraries that are no longer maintained: a script needs another import and no other change."""
