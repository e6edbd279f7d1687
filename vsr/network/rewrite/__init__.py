"""Rewrites ONNX graphs, exactly or with rounding, to be faster on one kind of device."""
