"""Task: classify images and rows of tables."""
