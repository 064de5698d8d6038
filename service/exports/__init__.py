"""Exports of model versions as bundles and ONNX files, and imports of bundles."""
