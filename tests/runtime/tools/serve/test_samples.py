"""The samples of docs/integrate.md are those of the server's page, and those of curl and Python run."""

import json
import re
import shutil
import ssl
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pytest

from msc_edge.images import read_image
from msc_edge.runtime import Detector
from msc_edge.runtime.tools.serve import samples

DOCS = Path(__file__).parents[4] / "docs" / "integrate.md"
LANGUAGES = {"curl": "sh", "Python": "python", "C#": "csharp", "Node.js": "js"}
ALL = (*samples.SCORE, *samples.SECURE, *samples.FORM, *samples.HEATMAP)
TOKEN = "0123456789abcdef"


def test_the_documentation_has_the_samples():
    section = DOCS.read_text(encoding="utf-8").partition("## Over HTTP")[2].partition("\n## ")[0]
    blocks = re.findall(r"```(\w+)\n(.*?)\n```", section, flags=re.DOTALL)
    assert [sample for sample in ALL if (LANGUAGES[sample.lang], sample.source) not in blocks] == []


@pytest.fixture(scope="module")
def secure(start, toy_kit, certificate):
    """A server with TLS and a token."""
    files = ("--tls-cert", certificate / "cert.pem", "--tls-key", certificate / "key.pem")
    return start(toy_kit, *files, MSC_EDGE_TOKEN=TOKEN)


@pytest.fixture
def folder(tmp_path, photos):
    """The folder that the samples run in."""
    shutil.copyfile(photos / "warn.png", tmp_path / "part.png")
    return tmp_path


def run(source: str, server, folder: Path, *program: str) -> str:
    source = source.replace(samples.BASE, f"http://127.0.0.1:{server.port}")
    done = subprocess.run([*program, source], cwd=folder, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_python(server, folder, patch_kit):
    (source,) = [sample.source for sample in samples.SCORE if sample.lang == "Python"]
    result = Detector.load(patch_kit, threads=1).score_file(folder / "part.png").to_dict()
    assert run(source, server, folder, sys.executable, "-c").split() == [result["verdict"], str(result["score"])]


@pytest.mark.parametrize("sample", [samples.SCORE[0], *samples.FORM], ids=["body", "form"])
def test_curl(server, folder, patch_kit, sample):
    result = Detector.load(patch_kit, threads=1).score_file(folder / "part.png").to_dict()
    assert f'"score": {result["score"]}' in run(sample.source, server, folder, "sh", "-c")


def test_curl_writes_a_heatmap(server, folder):
    run(samples.HEATMAP[0].source, server, folder, "sh", "-c")
    assert np.shape(read_image(folder / "heatmap.png")) == read_image(folder / "part.png").shape


def test_with_a_token_curl_sends_it(start, toy_kit, folder):
    server = start(toy_kit, MSC_EDGE_TOKEN=TOKEN)
    address = f"http://127.0.0.1:{server.port}"
    for sample in (samples.SCORE[0], *samples.FORM, *samples.get("/kit")):
        shown = samples.for_server(sample, address=address, token=True)
        assert '"kit":' in run(shown.source.replace("TOKEN", TOKEN), server, folder, "sh", "-c")


@pytest.mark.parametrize("sample", [each for each in samples.SECURE if each.lang in ("curl", "Python")], ids=repr)
def test_with_tls_and_a_token(secure, folder, certificate, sample):
    shutil.copyfile(certificate / "cert.pem", folder / "ca.pem")
    (folder / "token").write_text(f"{TOKEN}\n")
    source = samples.for_server(sample, address=f"https://localhost:{secure.port}", token=True).source
    program = ("sh", "-c") if sample.lang == "curl" else (sys.executable, "-c")
    assert "warn" in run(source, secure, folder, *program)


def test_a_server_with_tls_and_a_token_shows_them(secure, certificate):
    trusted = ssl.create_default_context(cafile=str(certificate / "cert.pem"))
    address = f"https://localhost:{secure.port}"
    with urlopen(f"{address}/openapi.json", context=trusted) as response:
        shown = json.load(response)["paths"]["/score"]["post"]["x-codeSamples"]
    assert [each["lang"] for each in shown] == ["curl", "Python", "C#", "curl"]
    assert all("ca.pem" in each["source"] and address in each["source"] for each in shown[:3])
