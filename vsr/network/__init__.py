"""Builds ONNX graphs of super-resolution networks that map picture planes to picture planes."""
