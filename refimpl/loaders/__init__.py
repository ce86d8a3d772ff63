"""Loaders and batches: what a loader is, several as one, data modules, and batches of any nesting."""
