"""Predictions by the protocols of other servers: Open Inference Protocol and MLflow.

All answers come from `predict`.
"""
