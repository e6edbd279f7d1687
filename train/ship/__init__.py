"""Turn a checkpoint into the files of `engines/`: deploy form, ONNX, int8, model cards."""
