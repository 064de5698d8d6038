"""Training runs: plan, life, metrics, and the process that trains. Knows nothing of serving."""
