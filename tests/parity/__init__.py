"""Train/predict skew, looked for: generated tables through every way into the service.

`models` trains small models of every kind, `tables` makes requests whose meaning is known, `ways`
sends them, `check` compares what comes back with what training computes from the meaning.
"""
