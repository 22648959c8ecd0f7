"""msc-edge: visual anomaly detection that learns from good images and runs on a plain CPU.

`msc_edge.train` fine-tunes a backbone, `msc_edge.export` packs a kit, `msc_edge.runtime` scores with it.
This package holds what the three must agree on, and imports none of them.
"""

from pathlib import Path

__version__ = "0.1.0"

# In a source checkout train/, export/ and runtime/ stand beside this folder; installed, they are inside it.
# With this line the checkout's own folder works as the current directory too (`python -c`, `python -m pytest`).
_checkout = Path(__file__).resolve().parent.parent
if (_checkout / "pyproject.toml").is_file() and (_checkout / "runtime").is_dir():
    __path__.append(str(_checkout))
