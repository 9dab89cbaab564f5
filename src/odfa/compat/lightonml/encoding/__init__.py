"""Encoders and decoders of that library."""
