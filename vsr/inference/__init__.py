"""Runs networks: backends (OpenVINO, TensorRT), models, tiles and the upscaler."""
