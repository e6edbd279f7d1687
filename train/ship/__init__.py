"""Turn a checkpoint into what `engines/` holds: deploy form, ONNX, int8, cards."""
