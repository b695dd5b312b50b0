"""Stage 2: a small transformer that reads prompt and partial reply, on ONNX Runtime."""
