"""Uploads, their parsing and profile, and the versions of datasets.

Knows nothing about the models that learn from them.
"""
