"""Predictions over HTTP: the native routes, the hot path, cache, batching and formats.

Reads the registry and changes nothing in it.
"""
