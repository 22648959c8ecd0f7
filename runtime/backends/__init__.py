"""What computes a kit's model: onnxruntime, or OpenVINO where it is installed."""
