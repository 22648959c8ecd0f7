"""Images and other requests sent to a real server; the other modules of this folder add what they test themselves."""

import io
import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from openapi_spec_validator import validate
from prometheus_client.parser import text_string_to_metric_families

from msc_edge.image_files import find_images
from msc_edge.images import decode_image, read_image
from msc_edge.overlay import overlay
from msc_edge.runtime import Detector, score_folder

JSON = "application/json"
VARIES = ("path", "milliseconds")


@pytest.fixture(scope="module")
def rows(patch_kit: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The rows of `msc-edge score`, by path."""
    out = tmp_path_factory.mktemp("rows") / "scores.jsonl"
    score_folder(patch_kit, [photos], out, threads=1)
    lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    return {line["path"]: line for line in lines}


def fixed(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in VARIES}


def metric(server, name: str, **labels: str) -> float:
    text = server.request("/metrics").body.decode()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                return sample.value
    return 0.0


class TestScore:
    def test_an_image_gets_the_row_of_score_to_the_last_digit(self, server, photos, rows):
        for path in find_images([photos]).paths:
            answer = server.request("/score", path.read_bytes())
            row = rows[str(path)]
            if row["error"]:
                assert (answer.status, answer.json) == (422, {"error": f"the image cannot be read: {row['error']}"})
                continue
            assert (answer.status, answer.kind) == (200, JSON)
            assert list(answer.json) == list(row)
            assert fixed(answer.json) == fixed(row)
            assert answer.json["milliseconds"] > 0

    def test_an_image_gets_the_result_of_the_detector(self, server, patch_kit, photos):
        path = photos / "warn.png"
        expected = Detector.load(patch_kit, threads=1).score_file(path).to_dict()
        answer = server.request("/score", path.read_bytes()).json
        assert {name: answer[name] for name in expected} == expected

    def test_sixteen_clients_get_the_same_rows(self, server, photos, rows):
        paths = [path for path in find_images([photos]).paths if not rows[str(path)]["error"]] * 24

        def send(share: list[Path]) -> list[bool]:
            connection = server.connect()
            same = []
            for path in share:
                connection.request("POST", "/score", path.read_bytes(), {"Content-Type": "image/png"})
                response = connection.getresponse()
                same.append(fixed(json.load(response)) == fixed(rows[str(path)]) and response.status == 200)
            connection.close()
            return same

        with ThreadPoolExecutor(16) as clients:
            done = list(clients.map(send, [paths[number::16] for number in range(16)]))
        assert sum(map(len, done)) == len(paths)
        assert all(map(all, done))

    def test_a_form_is_accepted_and_its_file_name_is_the_path(self, server, photos, rows, form):
        path = photos / "warn.png"
        answer = server.request("/score", *form(path.read_bytes(), file_name="tray 7, ü.png"))
        assert (answer.status, answer.json["path"]) == (200, "tray 7, ü.png")
        assert fixed(answer.json) == fixed(rows[str(path)])

    @pytest.mark.parametrize(
        ("given", "shown"),
        [("../../etc/passwd", "passwd"), ("C:\\\\x\\\\a.png", "a.png"), ("a\x1b[31m.png", "a[31m.png"), ("", "")],
    )
    def test_a_file_name_is_shown_without_folders_and_control_characters(self, server, photos, form, given, shown):
        answer = server.request("/score", *form((photos / "warn.png").read_bytes(), file_name=given))
        assert (answer.status, answer.json["path"]) == (200, shown)

    def test_a_chunked_body_is_accepted(self, server, photos, rows):
        path = photos / "warn.png"
        answer = server.request("/score", io.BytesIO(path.read_bytes()), encode_chunked=True)
        assert fixed(answer.json) == fixed(rows[str(path)])

    def test_another_limit_is_that_of_score(self, start, patch_kit, photos, tmp_path):
        out = tmp_path / "scores.jsonl"
        score_folder(patch_kit, photos / "warn.png", out, threshold=0.5)
        row = json.loads(out.read_text())
        server = start(patch_kit, "--threshold", 0.5)
        assert fixed(server.request("/score", (photos / "warn.png").read_bytes()).json) == fixed(row)
        assert row["limit"] == server.request("/kit").json["limits"]["reject"]["score"] == 0.5


class TestHeatmap:
    def test_the_image_is_the_overlay_in_its_size(self, server, patch_kit, photos):
        path = next(path for path in photos.rglob("*.png") if "stain" in str(path))
        answer = server.request("/heatmap", path.read_bytes())
        assert (answer.status, answer.kind) == (200, "image/png")
        image = read_image(path)
        result = Detector.load(patch_kit, threads=1).score(image)
        assert result.grid_map
        drawn = decode_image(np.frombuffer(answer.body, np.uint8))
        assert drawn.shape == image.shape
        assert not np.array_equal(drawn, image)
        np.testing.assert_array_equal(drawn, overlay(image, result.grid_map))
        row = server.request("/score", path.read_bytes()).json
        assert float(answer.headers["Msc-Edge-Score"]) == row["score"]
        assert answer.headers["Msc-Edge-Verdict"] == row["verdict"]

    def test_a_kit_without_patches_has_none(self, start, toy_kit, photos):
        server = start(toy_kit)
        answer = server.request("/heatmap", (photos / "warn.png").read_bytes())
        assert answer.status == 404
        assert "whole images only" in answer.json["error"]
        facts = server.request("/kit").json
        assert (facts["heatmaps"], facts["region_limit"]) == (False, None)


class TestRefused:
    @pytest.mark.parametrize(
        ("body", "headers", "status", "message"),
        [
            (b"", {}, 422, "the file is empty"),
            (b"not an image", {}, 422, "not an image"),
            (b"x", {"Content-Type": "text/plain"}, 415, "'text/plain'"),
            (b"a=b", {"Content-Type": "application/x-www-form-urlencoded"}, 415, "image/* or application/octet-stream"),
            (b"x", {"Content-Encoding": "gzip"}, 415, "without Content-Encoding"),
            (b"x", {"Content-Type": "multipart/form-data"}, 400, "no boundary"),
            (b"x", {"Content-Type": "multipart/form-data; boundary=cut"}, 400, "the form is broken"),
            (b"x", {"Content-Type": f"multipart/form-data; boundary={'c' * 300}"}, 400, "the form is broken"),
            (bytes(200_001), {}, 413, "larger than 200000 bytes"),
        ],
    )
    def test_a_body_that_is_no_image(self, server, body, headers, status, message):
        answer = server.request("/score", body, headers)
        assert (answer.status, answer.kind) == (status, JSON)
        assert message in answer.json["error"]
        assert "; " in answer.json["error"], "what to do"

    def test_a_form_that_is_cut_or_has_no_image_or_many(self, server, photos, form):
        data = (photos / "warn.png").read_bytes()
        cut, headers = form(data, end=b"")
        assert server.request("/score", cut, headers).status == 400
        other, _ = form(data, name="file")
        assert "0 fields 'image'" in server.request("/score", other, headers).json["error"]
        whole, _ = form(data)
        twice = whole.removesuffix(b"--cut--\r\n") + whole
        assert "2 fields 'image'" in server.request("/score", twice, headers).json["error"]
        many = form(b"x", name="a")[0].removesuffix(b"--cut--\r\n") * 17 + whole
        assert "more than 16" in server.request("/score", many, headers).json["error"]

    def test_a_huge_body_in_chunks_without_length(self, server):
        chunks = (bytes(10_000) for _ in range(1000))
        assert server.request("/score", chunks, encode_chunked=True).status == 413

    def test_too_many_pixels_are_refused_before_they_are_decoded(self, server):
        header = b"P6 20000 20000 255\n"
        answer = server.request("/score", header)
        assert answer.status == 422
        assert "larger than 100 megapixels" in answer.json["error"]

    @pytest.mark.parametrize(
        ("method", "path", "status"),
        [
            ("GET", "/score", 405),
            ("PUT", "/heatmap", 405),
            ("DELETE", "/kit", 405),
            ("OPTIONS", "/score", 405),
            ("GET", "/", 404),
            ("GET", "/score/", 404),
            ("GET", "/../../etc/passwd", 404),
        ],
    )
    def test_another_method_or_path(self, server, method, path, status):
        answer = server.request(path, method=method)
        assert (answer.status, answer.kind, list(answer.json)) == (status, JSON, ["error"])
        assert ("Allow" in answer.headers) == (status == 405)
        assert "; " in answer.json["error"], "what to do"
        assert not any(name.lower().startswith("access-control") for name in answer.headers)


class TestPages:
    def test_the_kit(self, server, patch_kit):
        detector = Detector.load(patch_kit, threads=1)
        facts = server.request("/kit").json
        assert (facts["kit"], facts["name"]) == (detector.kit.sha256, detector.kit.name)
        assert facts["limits"]["reject"]["score"] == detector.limits.reject.score
        regions = detector.manifest.models["fp32"].calibration.regions
        assert regions
        assert facts["region_limit"] == asdict(regions.limit)
        assert (facts["max_bytes"], facts["heatmaps"], facts["scores"]) == (200_000, True, "both")

    def test_health_and_readiness(self, server):
        assert [server.request(path).body for path in ("/healthz", "/readyz")] == [b"ok\n", b"ready\n"]

    def test_metrics_have_no_times_of_creation(self, server):
        assert "_created" not in server.request("/metrics").body.decode()

    def test_metrics_count_requests_and_images(self, server, photos):
        """The time of an image that was refused, because it cannot be read, is none of a scored image."""
        names = [
            ("msc_edge_images_total", {"verdict": "warn"}),
            ("msc_edge_unreadable_total", {}),
            ("msc_edge_requests_total", {"path": "/score", "status": "422"}),
            ("msc_edge_requests_total", {"path": "other", "status": "404"}),
            ("msc_edge_image_seconds_count", {"stage": "score"}),
            ("msc_edge_image_seconds_count", {"stage": "queue"}),
        ]
        before = [metric(server, name, **labels) for name, labels in names]
        answer = server.request("/score", (photos / "warn.png").read_bytes())
        server.request("/score", b"broken")
        server.request("/a/path/that/is/not/there")
        after = [metric(server, name, **labels) for name, labels in names]
        is_warn = answer.json["verdict"] == "warn"
        assert [now - then for now, then in zip(after, before, strict=True)] == [float(is_warn), 1, 1, 1, 1, 1]
        assert metric(server, "msc_edge_images_in_work") == 0

    def test_the_openapi_document_is_valid(self, server):
        """The fixture compares every answer of these tests with it."""
        assert server.request("/openapi.json").json == server.document
        validate(server.document)

    def test_the_page_shows_every_path_and_loads_nothing(self, server):
        document = server.request("/openapi.json").json
        answer = server.request("/docs")
        page = answer.body.decode()
        assert all(f"<code>{path}</code>" in page for path in document["paths"])
        assert re.findall(r"<(?:script|link|img|iframe)\b|@import|url\(|src=", page) == []
        assert re.findall(r"https?://[\w.]+", page) == ["http://127.0.0.1"] * page.count("http://")
        shown = {unescape(text) for text in re.findall(r"<pre>(.*?)</pre>", page, re.DOTALL)}
        operations = [each for path in document["paths"].values() for each in path.values()]
        samples = {sample["source"] for each in operations for sample in each.get("x-codeSamples", [])}
        assert shown == samples
        for titles in ([sample["label"] for sample in each.get("x-codeSamples", [])] for each in operations):
            assert len(set(titles)) == len(titles)
        assert f"http://127.0.0.1:{server.port}/score" in page
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")

    def test_a_host_that_is_no_host_is_not_shown(self, start, toy_kit):
        server = start(toy_kit, "--host", "0.0.0.0", "--insecure")
        shown = server.request("/docs", headers={"Host": "a'; rm -rf /<b>"}).body.decode()
        assert "rm -rf" not in shown


def test_the_commands_help_needs_no_web_package(run_without: Callable[..., Any]):
    assert run_without("starlette", "serve", "--help").returncode == 0


def test_a_missing_extra_is_one_line(run_without: Callable[..., Any], toy_kit):
    done = run_without("starlette", "serve", str(toy_kit))
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "pip install 'msc-edge[web]'" in done.stderr
