"""Export verification: each way of predicting with a version must agree with training."""
