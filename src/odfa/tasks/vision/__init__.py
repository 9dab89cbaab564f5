"""Images and tables to classes."""
