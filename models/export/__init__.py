"""A model that leaves the service: bundle, ONNX graph, plain script, and how a copy is verified.

Knows file formats; nothing of versions, aliases or requests. Only `reference` and the script
`standalone` load torch.
"""
