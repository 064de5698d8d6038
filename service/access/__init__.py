"""API keys, which identify callers. Knows no other noun of the service."""
