"""A stored model answers rows: requests of a few rows, whole tables, and explanations.

Knows how to read a client's values; nothing of HTTP, and no torch, so that the API can load it.
"""
