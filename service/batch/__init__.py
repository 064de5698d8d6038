"""Batch predictions: a model version applied to all rows of a dataset version."""
