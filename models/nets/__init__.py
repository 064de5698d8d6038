"""Nets: a graph of operations, and what computes it: NumPy, torch, onnxruntime; lines exactly.

Knows operations and parameters; nothing of losses, steps, runs or requests. Only `module` and
`dropout` load torch. Each evaluator has one table by the kind of operation: `graph`, `numeric`,
`module`, `onnx_nodes`, `sessions`, and `models.export.standalone`.
"""
