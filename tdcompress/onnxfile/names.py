"""Names of the files that lie beside an ONNX file."""

SAMPLES = "samples.npz"
"""Real inputs with the outputs that were recorded for them, by name: in a stage's folder, and in a run's."""
