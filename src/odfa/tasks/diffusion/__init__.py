"""Task: generate images from noise."""
