"""The verification of model versions: each way of predicting must answer as training computes."""
