"""A training from its input to its last checkpoint: the loop, its state, and what it reports.

Knows what a run asks for; nothing of queues, databases or the process that runs it.
"""
