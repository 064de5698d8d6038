"""Negative controls: faults put into the code on purpose, each of which a named test must find."""
