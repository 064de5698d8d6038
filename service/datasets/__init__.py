"""Uploads, their parsing and profile, and the versions of datasets.

Knows nothing of what is learned from them.
"""
