"""A static page that scores images and the camera in the browser, with the single file of a kit.

The page needs the WebAssembly build of onnxruntime, from the npm package `onnxruntime-web`. It is not part of msc-edge.
"""

import json
import shutil
from importlib.resources import files
from pathlib import Path

from msc_edge.errors import UsageError
from msc_edge.export.fused.single_file import SingleFile
from msc_edge.files import folder_written_whole
from msc_edge.overlay import OPACITY, STOPS

PACKAGE = Path("node_modules") / "onnxruntime-web"
_OWN = ("index.html", "demo.css", "demo.js", "scoring.js")
_SCRIPTS = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")


def find_onnxruntime_web(folder: Path | None) -> Path:
    """The folder `dist` of onnxruntime-web: in `folder`, or in the folder node_modules of the current one.

    UsageError where a file that the page needs is missing.
    """
    package = PACKAGE if folder is None else folder
    for place in (package / "dist", package):
        if all((place / name).is_file() for name in _SCRIPTS):
            return place
    raise UsageError(
        f"{package}: has no onnxruntime-web, which the page runs with; install it with: npm install onnxruntime-web. "
        "If it is not in node_modules of this folder, pass its folder with --onnxruntime-web"
    )


def check_web_demo(out: Path, *, overwrite: bool) -> None:
    """UsageError where the page cannot be written to `out`: --overwrite replaces only such pages."""
    if out.exists() and not overwrite:
        raise UsageError(f"{out}: exists; pass --overwrite to replace a web demo, or choose another name")
    if out.exists() and not all((out / name).is_file() for name in _OWN):
        raise UsageError(f"{out}: not a web demo; --overwrite replaces only web demos: choose another name")


def write_web_demo(single: SingleFile, out: Path, scripts: Path, *, overwrite: bool = False) -> None:
    """Write the page to the folder `out`, whole or not at all; `scripts`: see `find_onnxruntime_web`."""
    with folder_written_whole(out, replace=overwrite) as folder:
        for name in _OWN:
            (folder / name).write_bytes(files("msc_edge.export.fused").joinpath("web", name).read_bytes())
        for name in _SCRIPTS:
            shutil.copyfile(scripts / name, folder / name)
        (folder / "kit.onnx").write_bytes(single.content)
        about = single.properties | {"colours": STOPS, "opacity": OPACITY}
        (folder / "kit.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
