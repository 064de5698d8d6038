"""A search for train/predict skew: generated tables through every protocol of the service.

`models` trains small models of every kind, `tables` generates requests of known meaning, `ways`
sends them, `check` compares the answers with the predictions of training for that meaning.
"""
