"""Super-resolution networks as ONNX graphs that map picture planes to picture planes."""
