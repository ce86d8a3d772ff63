"""Strategies: how a run is spread over several devices."""
