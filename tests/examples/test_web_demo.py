"""The web demo in real Chromium: it scores as the kit does, shows files and the camera, and loads nothing else."""

import functools
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from playwright.sync_api import expect
from typer.testing import CliRunner

from msc_edge.cli import app

pytestmark = pytest.mark.slow

SCORE_ALL = Path(__file__).with_name("score_in_page.js").read_text()


class _Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Not on the terminal of the tests."""


@pytest.fixture(scope="module")
def server(case, node_modules: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """The page of the case, served as a folder."""
    folder = tmp_path_factory.mktemp("web") / "demo"
    package = node_modules / "onnxruntime-web"
    done = CliRunner().invoke(
        app, ["fuse", str(case.kit), "--web-demo", str(folder), "--onnxruntime-web", str(package)]
    )
    assert done.exit_code == 0, done.output
    (folder / "images").symlink_to(case.images.parent)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Handler, directory=folder)) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield SimpleNamespace(address=f"http://127.0.0.1:{serving.server_port}", folder=folder)
        serving.shutdown()


def test_all_images_score_as_with_the_kit(case, server: SimpleNamespace, opened) -> None:
    with opened(server) as page:
        page.goto(server.address)
        case.check(page.evaluate(SCORE_ALL, json.loads(case.images.read_text())))


def test_files_are_scored_and_shown(case, server: SimpleNamespace, opened, tmp_path: Path) -> None:
    paths = []
    for number, each in enumerate(json.loads(case.images.read_text())[:3]):
        raw = np.fromfile(case.images.with_name(each["file"]), np.uint8)
        paths.append(tmp_path / f"{number} ü.png")
        cv2.imwrite(str(paths[-1]), raw.reshape(each["height"], each["width"], 3)[..., ::-1])
    (tmp_path / "broken.png").write_bytes(paths[0].read_bytes()[:60])
    with opened(server, size=(390, 844)) as page:
        page.goto(server.address)
        expect(page.locator("#files")).to_be_enabled()
        page.locator("#files").set_input_files([*paths, tmp_path / "broken.png"])
        rows = page.locator("#rows tr")
        expect(rows).to_have_count(4)
        expect(rows.first).to_contain_text("broken.png")
        expect(rows.first).to_contain_text("not scored")
        for number, result in enumerate(case.results[:3]):
            row = page.locator("#rows tr", has_text=f"{number} ü.png")
            assert float(row.locator("td").nth(1).inner_text()) == pytest.approx(
                result.score, abs=1e-5 / case.least_deviation
            )
        words = {"normal": "normal", "warn": "warning", "reject": "reject"}
        expect(page.locator("#verdict strong")).to_have_text(words[case.results[2].verdict])
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_the_camera_is_scored_until_it_is_stopped(server: SimpleNamespace, opened) -> None:
    """Chromium's fake camera: a green picture with a clock is no part."""
    with opened(server) as page:
        page.goto(server.address)
        page.get_by_role("button", name="Use the camera").click()
        expect(page.locator("#verdict strong")).to_have_text("reject")
        first = page.locator("#figures").inner_text()
        expect(page.locator("#figures")).not_to_have_text(first)
        page.get_by_role("button", name="Stop the camera").click()
        expect(page.get_by_role("button", name="Use the camera")).to_be_visible()


def test_the_folder_needs_nothing_else(server: SimpleNamespace) -> None:
    names = {path.name for path in server.folder.iterdir()} - {"images"}
    own = {"index.html", "demo.css", "demo.js", "scoring.js", "kit.onnx", "kit.json"}
    assert names == own | {"ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"}
    for name in ("index.html", "demo.css", "demo.js", "scoring.js"):
        assert "http" not in (server.folder / name).read_text().replace("http.server", "")
