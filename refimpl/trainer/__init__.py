"""What the user holds: the trainer, its options, and what can be read off it."""
