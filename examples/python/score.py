"""Score images with one ONNX file: python score.py kit.onnx IMAGE...   Needs onnxruntime, numpy and pillow."""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image

options = onnxruntime.SessionOptions()
options.log_severity_level = 3  # otherwise it warns that both limits may be given
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
labels = json.loads(session.get_modelmeta().custom_metadata_map["msc_edge.labels"])
for path in sys.argv[2:]:
    pixels = np.asarray(Image.open(path).convert("RGB"))  # uint8 (height, width, 3)
    score, p_value, verdict = session.run(["score", "p_value", "verdict"], {"image": pixels[None]})
    print(f"{path}\t{labels[verdict[0]]}\tscore {score[0]:.6f}\tp-value {p_value[0]:.6f}")
