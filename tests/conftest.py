"""The toy kit and the drawn images that tests of all packages score."""

import importlib.util
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest

from msc_edge.calibration import Calibration
from msc_edge.kit.layout import BANKS, INDEXES, MANIFEST, MODELS
from msc_edge.kit.manifest import Agreement, Int8, Quantization, parse_manifest
from msc_edge.kit.opening import seal
from msc_edge.runtime import Detector
from msc_edge.runtime.backends.selection import check_image

_ASSETS = Path(__file__).parent / "assets"
SHARED = Path(__file__).parent.parent.parent / "shared"


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


@pytest.fixture
def kit(toy_kit: Path, tmp_path: Path) -> Path:
    """A copy of the toy kit that a test may damage."""
    return shutil.copytree(toy_kit, tmp_path / "copy.kit")


@pytest.fixture(scope="session")
def int8_kit(toy_kit: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy kit with a second model, under the name of int8; not to be changed.

    Its network is one of pixels, which nobody quantises: the second model is the first one again. What the runtime does
    with two models is told apart by their limits, which are twice as high for this one.
    """
    folder = shutil.copytree(toy_kit, tmp_path_factory.mktemp("kits") / "int8.kit")
    for names in (MODELS, BANKS, INDEXES):
        shutil.copyfile(folder / names["fp32"], folder / names["int8"])
    manifest = parse_manifest((folder / MANIFEST).read_bytes())
    check = Detector.load(toy_kit, threads=1).embed(check_image(manifest.preprocessing))
    scores = Calibration([2 * score for score in manifest.calibration.scores])
    limits = scores.limits(warn_rate=manifest.calibration.warn_rate, reject_rate=manifest.calibration.reject_rate)
    int8 = Int8(
        quantization=Quantization(target="x86-vnni", images=12, layers=1, in_float=[], check=check.tolist()),
        agreement=Agreement(good=12, spoiled=36, auroc_fp32=0.9, auroc_int8=0.9, rank_correlation=1.0),
        bank=manifest.bank,
        calibration=manifest.calibration.model_copy(update={"scores": scores.scores.tolist(), "limits": limits}),
    )
    seal(folder, manifest.model_copy(update={"int8": int8, "preferred": "auto"}))
    return folder


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
