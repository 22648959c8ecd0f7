"""msc-edge: visual anomaly detection that learns from normal images and runs on a plain CPU.

`msc_edge.train` fine-tunes a backbone, `msc_edge.export` packs a kit, and `msc_edge.runtime` scores with it. The other
modules of this package are shared by the three. Only `msc_edge.cli` and `msc_edge.demo` import them.
"""

import os
import sys
from pathlib import Path

__version__ = "0.2.0"

# Nobody phones home. Before onnxruntime is imported anywhere: on Linux it asks for its maker's host and leaves a device
# id in the home folder, and a call after the import is too late. Child processes inherit it.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
# OpenVINO asks for an analytics host when it is imported, unless this package is absent: then it uses its own stub.
sys.modules.setdefault("openvino_telemetry", None)  # pyright: ignore[reportArgumentType]

# In a source checkout train/, export/ and runtime/ are beside this folder; installed, they are inside it. With these
# lines imports also work when the checkout is the current directory (`python -c`, `python -m pytest`).
_checkout = Path(__file__).resolve().parent.parent
if (_checkout / "pyproject.toml").is_file() and (_checkout / "runtime").is_dir():
    __path__.append(str(_checkout))
