"""Spellings of the period, for scripts as they are; nothing below knows of this layer."""
