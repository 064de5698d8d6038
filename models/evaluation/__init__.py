"""How good a model is: the rows held out for it, scores, curves and the importance of columns.

Knows NumPy; nothing of torch, of runs or of how the predictions were made.
"""
