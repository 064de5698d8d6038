"""How the columns of a table become the numbers of a net, and its outputs become values again.

Knows NumPy and JSON; nothing of nets, requests or files.
"""
