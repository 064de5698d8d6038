"""Nets: built in torch, run in NumPy or onnxruntime, and solved exactly where they are lines.

Knows layers and parameters; nothing of losses, steps, runs or requests. Only `architectures` loads
torch.
"""
