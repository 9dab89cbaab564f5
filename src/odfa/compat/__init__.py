"""Drop-ins for libraries that are no longer kept: change the import, keep the script."""
