"""Loaders: what one is, and several as one."""
