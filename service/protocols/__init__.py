"""Predictions through the protocols of other servers: Open Inference Protocol and MLflow.

Translates requests and answers; `predict` computes the predictions.
"""
