"""Breaks the service on purpose and compares what is left with an undisturbed run."""
