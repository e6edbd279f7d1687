"""Builds, caches and runs TensorRT and TensorRT-RTX engines."""
