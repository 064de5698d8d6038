"""API keys: who a caller is. Knows nothing of what callers do."""
