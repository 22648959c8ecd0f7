"""The single file of a kit in Python, Node and Chromium: how far it is from the kit, how fast it is, and how large.

    python benchmarks/single_file.py KIT IMAGES... [--node-modules DIR] [--count 200] [--labelled DIR]

Each runtime scores the same pixels, one image after the other on one thread: the kit itself (`Detector`), onnxruntime
alone in Python, onnxruntime-node, and onnxruntime-web in headless Chromium. Times are medians of one image, all in one
run. `apart`: largest difference from the kit, of image scores, of scores, and of the heatmap; and the number of other
verdicts. --node-modules: of `npm install --prefix tests/examples --no-package-lock --ignore-scripts`.
--labelled: a folder with good/ and folders of defects, for what a rounded bank costs in AUROC.
"""

import functools
import http.server
import json
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msc_edge  # noqa: F401  (first: it turns off the telemetry of onnxruntime)

# isort: split
import numpy as np
import onnxruntime as ort
from common import CHECKOUT, parser_of

from msc_edge.export.fused.writing import fuse_kit
from msc_edge.image_files import find_images
from msc_edge.images import read_image
from msc_edge.runtime import Detector
from msc_edge.runtime.results.result import Result
from msc_edge.runtime.tools.evaluate.metrics import auroc

NODE_MODULES = CHECKOUT / "tests" / "examples" / "node_modules"
SCORE_ALL, IN_PAGE = (CHECKOUT / "tests" / "examples" / f"score_{place}.js" for place in ("all", "in_page"))
LABELS = ("normal", "warn", "reject")


def in_python(file: Path, images: list[np.ndarray]) -> list[dict[str, Any]]:
    """Each image with onnxruntime alone."""
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_outputs()]
    found = []
    for image in images:
        before = time.perf_counter()
        values = session.run(names, {"image": image[None]})
        result = {name: np.asarray(value).ravel() for name, value in zip(names, values, strict=True)}
        found.append(result | {"milliseconds": 1000 * (time.perf_counter() - before)})
    return found


def in_node(file: Path, listed: Path, node_modules: Path) -> list[dict[str, Any]]:
    """Each image in Node."""
    script = node_modules.parent / SCORE_ALL.name
    command = ["node", str(script if script.is_file() else SCORE_ALL), str(file), str(listed)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """A folder behind a web server; its address."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def in_chromium(demo: Path, listed: Path) -> list[dict[str, Any]]:
    """Each image in the page of the web demo."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415  (an extra)

    (demo / "images").symlink_to(listed.parent)
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with served(demo) as address, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(address)
        found = page.evaluate(IN_PAGE.read_text(), json.loads(listed.read_text()))
        browser.close()
    return found


def row(name: str, found: list[dict[str, Any]], results: list[Result]) -> str:
    """A row of the table."""
    apart = {"image_score": 0.0, "score": 0.0, "map": 0.0}
    verdicts = 0
    for each, result in zip(found, results, strict=True):
        apart["score"] = max(apart["score"], abs(each["score"][0] - result.score))
        apart["image_score"] = max(apart["image_score"], abs(each["image_score"][0] - result.image_score))
        if result.grid_map is not None:
            difference = np.abs(np.asarray(each["anomaly_map"]) - result.grid_map.grid.ravel()).max()
            apart["map"] = max(apart["map"], float(difference))
        verdicts += LABELS[int(each["verdict"][0])] != result.verdict
    median = np.median([each["milliseconds"] for each in found])
    return f"| {name} | {median:.1f} ms | {' | '.join(f'{value:.0e}' for value in apart.values())} | {verdicts} |"


def main() -> None:
    """Print the tables."""
    parser = parser_of(__doc__)
    parser.add_argument("kit", type=Path)
    parser.add_argument("images", nargs="+", help="files and folders")
    parser.add_argument("--node-modules", type=Path, default=NODE_MODULES, help="default: %(default)s")
    parser.add_argument("--count", type=int, default=200, help="images, evenly chosen; default: %(default)s")
    parser.add_argument("--labelled", type=Path, metavar="DIR", help="also AUROC with each bank")
    options = parser.parse_args()
    paths = find_images(options.images).paths
    paths = paths[:: max(1, len(paths) // options.count)][: options.count]
    images = [read_image(path) for path in paths]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        listed = folder / "raw" / "images.json"
        listed.parent.mkdir()
        for number, image in enumerate(images):
            (listed.parent / f"{number}.raw").write_bytes(image.tobytes())
        listed.write_text(
            json.dumps([{"file": f"{n}.raw", "height": i.shape[0], "width": i.shape[1]} for n, i in enumerate(images)])
        )
        print(f"{len(images)} images\n")
        print("| model and runtime | median | image score apart | score apart | heatmap apart | other verdicts |")
        print("|---|---|---|---|---|---|", flush=True)
        for precision in Detector.load(options.kit).manifest.precisions:
            detector = Detector.load(options.kit, precision=precision, threads=1, backend="onnxruntime")
            results, times = [], []
            for image in images:
                before = time.perf_counter()
                results.append(detector.score(image))
                times.append(1000 * (time.perf_counter() - before))
            print(f"| {precision}, the kit | {np.median(times):.1f} ms | | | | |")
            file, demo = folder / f"{precision}.onnx", folder / f"demo-{precision}"
            package = options.node_modules / "onnxruntime-web"
            fuse_kit(options.kit, file, precision=precision, web_demo=demo, onnxruntime_web=package)
            print(row(f"{precision}, Python", in_python(file, images), results))
            print(row(f"{precision}, Node", in_node(file, listed, options.node_modules), results))
            print(row(f"{precision}, Chromium", in_chromium(demo, listed), results), flush=True)
        print("\n| model and bank | size | score apart, median | largest | other verdicts | AUROC |")
        print("|---|---|---|---|---|---|", flush=True)
        labelled = find_images([options.labelled]).paths if options.labelled else []
        tested = [read_image(path) for path in labelled] or images
        truth = np.array([path.parent.name != "good" for path in labelled])
        for precision in Detector.load(options.kit).manifest.precisions:
            exact: list[dict[str, Any]] = []
            for bank in ("float32", "float16", "int8"):
                file = folder / f"{precision}-{bank}.onnx"
                fuse_kit(options.kit, file, precision=precision, bank=bank)
                found = in_python(file, tested)
                exact = exact or found
                apart = [abs(one["score"][0] - other["score"][0]) for one, other in zip(found, exact, strict=True)]
                other = sum(one["verdict"][0] != two["verdict"][0] for one, two in zip(found, exact, strict=True))
                area = f"{auroc(truth, np.array([each['score'][0] for each in found])):.4f}" if labelled else ""
                size = file.stat().st_size / 1e6
                print(
                    f"| {precision}, {bank} | {size:.1f} MB | {np.median(apart):.1e} | {max(apart):.1e} | {other} | "
                    f"{area} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
