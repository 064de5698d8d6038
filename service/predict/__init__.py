"""Predictions over HTTP: the native routes, the hot path, cache, batching, formats, explanations.

Reads the registry but never writes to it.
"""
