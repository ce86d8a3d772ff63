"""What a batch's gradients go through: optimizers and their schedules, precision, truncated and manual optimization."""
