"""The next token of dialogues and other text."""
