"""Training runs: plan, lifecycle, metrics and the training process. Knows no predictions."""
