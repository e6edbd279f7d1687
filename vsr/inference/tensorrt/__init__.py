"""Build, cache and run TensorRT and TensorRT-RTX engines."""
