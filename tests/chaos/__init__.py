"""Injects faults into the service and compares the results with those of an undisturbed run."""
