"""From nodes of ONNX to steps for one image, constants folded and branches chosen."""
