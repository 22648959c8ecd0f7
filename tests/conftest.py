"""The toy kit and the drawn images that tests of all packages score, and the rules of the suite."""

import gc
import importlib.util
import logging
import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the tests run in parallel themselves
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch is imported: its waiting threads keep cores busy
# Tests start hundreds of processes. Without bytecode files each would compile the package again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

import cv2
import hypothesis
import numpy as np
import pytest

from msc_edge.kit.layout import BANK_FILES, INDEX_FILES, MANIFEST, MODEL_FILES
from msc_edge.kit.manifest import Manifest, parse_manifest
from msc_edge.kit.model_entry import CalibrationInfo
from msc_edge.kit.quantization import Agreement, Quantization
from msc_edge.kit.writing import seal
from msc_edge.runtime import Detector
from msc_edge.runtime.backends.check_image import check_image

_ASSETS = Path(__file__).parent / "assets"
SHARED = Path(__file__).parent.parent.parent / "shared"
IN_CI = os.environ.get("CI") == "true"

# The only reasons for which CI may skip a test, by the beginning of the message.
ALLOWED_SKIPS = {
    "runs as root": "root may read and list everything, so permission errors cannot be produced",
}

# CI checks the same examples each time; elsewhere Hypothesis keeps looking for new ones.
hypothesis.settings.register_profile("ci", derandomize=True, deadline=None, database=None)
hypothesis.settings.register_profile("local", deadline=None)
hypothesis.settings.load_profile("ci" if IN_CI else "local")


def _fail_forbidden_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    """In CI a skip is a failure, unless its reason is in ALLOWED_SKIPS: no test may be skipped for a missing part."""
    if not IN_CI or not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
    reason = reason.removeprefix("Skipped: ")
    if not reason.startswith(tuple(ALLOWED_SKIPS)):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI, where every part must be present: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Imported modules and collected tests stay: the garbage collector searches them neither now nor in each test."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Random networks, of fixtures too, are the same in each run: a failure can be repeated."""
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _fail_forbidden_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _fail_forbidden_skip(report)
    return report


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> None:
    """A background job of a script ignores Ctrl-C, and so would the processes that tests stop by it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def free_port() -> Iterator[Callable[[], int]]:
    """Reserve a port of 127.0.0.1 that no other program gets, and on which nothing listens yet.

    The port stays bound to a socket that does not listen. A server with SO_REUSEADDR can still open it.
    """
    reserved: list[socket.socket] = []

    def reserve() -> int:
        reserved.append(socket.socket())
        reserved[-1].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved[-1].bind(("127.0.0.1", 0))
        return reserved[-1].getsockname()[1]

    yield reserve
    for each in reserved:
        each.close()


@pytest.fixture(scope="session")
def toy() -> ModuleType:
    """tests/assets/make_toy_kit.py."""
    spec = importlib.util.spec_from_file_location("make_toy_kit", _ASSETS / "make_toy_kit.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def toy_kit() -> Path:
    """The committed toy kit; not to be changed."""
    return _ASSETS / "toy.kit"


@pytest.fixture(scope="session")
def patch_kit(toy: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy kit with patches; not to be changed."""
    folder = tmp_path_factory.mktemp("kits") / "patches.kit"
    toy.make(folder, patches=True)
    return folder


@pytest.fixture(scope="session")
def written_by_0_1_0() -> Path:
    """A kit, a state database, row files and what they hold, written by msc-edge 0.1.0; not to be changed."""
    return _ASSETS / "from-0.1.0"


@pytest.fixture
def kit(toy_kit: Path, tmp_path: Path) -> Path:
    """A copy of the toy kit that a test may damage."""
    return shutil.copytree(toy_kit, tmp_path / "copy.kit")


@pytest.fixture(scope="session")
def int8_kit(toy_kit: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy kit with a second model, named int8; not to be changed.

    The toy network is one of pixels and is not quantised: the second model is a copy of the first. Its limits are twice
    as high, so tests can tell which model scored.
    """
    folder = shutil.copytree(toy_kit, tmp_path_factory.mktemp("kits") / "int8.kit")
    for names in (MODEL_FILES, BANK_FILES, INDEX_FILES):
        shutil.copyfile(folder / names["fp32"], folder / names["int8"])
    manifest = parse_manifest((folder / MANIFEST).read_bytes())
    seal(folder, with_int8(manifest, Detector.load(toy_kit, threads=1)))
    return folder


def with_int8(manifest: Manifest, detector: Detector) -> Manifest:
    """The manifest of a kit with its fp32 model once more as int8, under limits twice as high."""
    fp32 = manifest.models["fp32"]
    bank = fp32.banks.images
    old = fp32.calibration
    scores = [2 * score for score in old.scores]
    limits = type(old.calibration)(scores).limits(warn_rate=old.warn_rate, reject_rate=old.reject_rate)
    int8 = fp32.model_copy(
        update={
            "file": MODEL_FILES["int8"],
            "banks": fp32.banks.model_copy(
                update={
                    "images": bank.model_copy(
                        update={
                            "file": BANK_FILES["int8"],
                            "index": bank.index and bank.index.model_copy(update={"file": INDEX_FILES["int8"]}),
                        }
                    )
                }
            ),
            "calibration": CalibrationInfo(
                scores=scores, warn_rate=old.warn_rate, reject_rate=old.reject_rate, limits=limits
            ),
            "parity": None,
            "quantization": Quantization(
                target="x86-vnni",
                images=12,
                layers=1,
                float_layers=[],
                check_embedding=detector.embed(check_image(manifest.preprocessing)).tolist(),
            ),
            "agreement": Agreement(
                normal_images=12, synthetic_anomalies=36, auroc_fp32=0.9, auroc=0.9, rank_correlation=1.0
            ),
        }
    )
    return manifest.model_copy(update={"models": {"fp32": fp32, "int8": int8}, "default_model": "fp32"})


@pytest.fixture(scope="session")
def detector(toy_kit: Path) -> Detector:
    return Detector.load(toy_kit, threads=1)


@pytest.fixture(scope="session")
def save() -> Callable[[Path, np.ndarray], Path]:
    """Write an RGB image as the suffix of its path says, whatever characters the path has."""

    def write(path: Path, image: np.ndarray) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(path.suffix, image[..., ::-1])[1].tobytes())
        return path

    return write


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory, toy: ModuleType, save: Callable) -> Path:
    """Images of each verdict, in nested folders, with two unreadable ones and two other files; not to be changed."""
    folder = tmp_path_factory.mktemp("line") / "photos [3]"
    for seed in range(100, 106):
        save(folder / f"good_{seed}.png", toy.draw(seed))
    save(folder / "warn.png", toy.draw(155))
    for defect in ("empty", "scratch", "stain"):
        save(folder / "schicht ü" / f"{defect}, [bold]red[/bold].png", toy.draw(200, defect))
    (folder / "cut.png").write_bytes((folder / "good_100.png").read_bytes()[:900])
    (folder / "zero.png").touch()
    (folder / "notes.txt").write_text("not an image")
    (folder / "schicht ü" / "Protokoll.pdf").write_text("not an image")
    return folder


@pytest.fixture(scope="session")
def change_byte() -> Callable[[Path, int], None]:
    """StateChange over one bit of a file."""

    def change(path: Path, place: int) -> None:
        content = bytearray(path.read_bytes())
        content[place] ^= 1
        path.write_bytes(content)

    return change


@pytest.fixture(scope="session")
def real_weights() -> Path:
    """A genuine ImageNet MobileNetV2."""
    path = SHARED / "weights" / "mobilenet_v2.safetensors"
    if not path.is_file():
        pytest.skip("needs ../shared/weights/mobilenet_v2.safetensors")
    return path


@pytest.fixture(scope="session")
def real_papers() -> Path:
    """Images of printed papers: folders `good` and `defect`."""
    path = SHARED / "data" / "paper" / "PA_BDP01_TL"
    if not path.is_dir():
        pytest.skip("needs ../shared/data/paper")
    return path


@pytest.fixture(scope="session")
def contrast() -> Callable[[str, str], float]:
    """The contrast of two colours such as #2e7d32, from 1 to 21, as WCAG 2.2 defines it."""

    def luminance(colour: str) -> float:
        digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
        values = (int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4))
        linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in values]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    def contrast(one: str, other: str) -> float:
        low, high = sorted((luminance(one), luminance(other)))
        return (high + 0.05) / (low + 0.05)

    return contrast


@pytest.fixture(autouse=True)
def _restored_logs() -> Iterator[None]:
    """A command that runs in this process sends its log to its own handler, and no longer to the root logger."""
    logs = [logging.getLogger(name) for name in ("msc_edge", "msc_edge.stream")]
    before = [(list(log.handlers), log.level, log.propagate) for log in logs]
    yield
    for log, state in zip(logs, before, strict=True):
        log.handlers, log.level, log.propagate = state


@pytest.fixture(scope="module")
def opened() -> Iterator[Callable[..., AbstractContextManager[Any]]]:
    """A page in Chromium: `with opened(server) as page`. See `_opened`.

    The tests of a module share a browser. No longer: in a thread with its driver, asyncio cannot run.
    """
    with ExitStack() as stack:

        @cache
        def browser() -> Any:
            from playwright.sync_api import expect, sync_playwright  # few tests need it

            chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
            if chromium is None:
                pytest.skip("needs chromium, which is not installed")
            driver = stack.enter_context(sync_playwright())
            expect.set_options(timeout=60_000)
            started = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", *_FAKE_CAMERA])
            stack.callback(started.close)
            return started

        yield lambda server, **options: _opened(browser(), server, **options)


_FAKE_CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")


@contextmanager
def _opened(
    browser: Any, server: Any, *, size: tuple[int, int] = (1280, 900), allowed: str = "", **options: Any
) -> Iterator[Any]:
    """A page of a new context: it has no cookies, storage or cache of an earlier page.

    At the end: nothing was loaded but from `server.address`, and the console shows no error.

    `allowed`: a part of the errors that the console may show. `options`: of the browser's context.
    """
    loaded, errors = [], []
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]}, ignore_https_errors=True, **{"locale": "en-GB", **options}
    )
    try:
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("request", lambda request: loaded.append(request.url))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        yield page
    finally:
        context.close()
    assert [url for url in loaded if not url.startswith((server.address, "data:", "blob:"))] == []
    assert [error for error in errors if not (allowed and allowed in error)] == []
