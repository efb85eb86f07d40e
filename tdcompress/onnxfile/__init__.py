"""ONNX files without torch: load, strip, pack, unpack, inspect, verify, quantise."""
