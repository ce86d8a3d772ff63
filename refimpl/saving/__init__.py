"""What outlives a run: checkpoints, hyperparameters, exported modules."""
