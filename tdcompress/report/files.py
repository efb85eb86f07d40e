"""What a report calls files of a run's folder. All of its files are known to `tdcompress.runs.manifest` alone."""

REPORT = "report.json"
DENSE_FILE = "dense.onnx"
SELECTED_FILE = "model.onnx"
