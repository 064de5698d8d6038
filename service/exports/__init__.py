"""Bundles and ONNX files of model versions, and the import of bundles."""
