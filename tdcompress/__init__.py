"""tdcompress: from training with targeted dropout to a verified, measured, compact ONNX file."""
