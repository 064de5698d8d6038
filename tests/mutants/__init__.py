"""Negative controls: deliberate faults in the code, each of which a named test must find."""
