"""Task: predict climate fields from emissions and from past fields."""
