"""One ONNX file for places where Python is not: the model of a kit with its scoring, and nothing else to read."""
