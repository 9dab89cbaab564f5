"""Task: predict the next token of dialogues and other text."""
