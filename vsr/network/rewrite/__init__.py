"""Exact rewrites of an ONNX graph that make it faster on one kind of device."""
