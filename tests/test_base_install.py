"""The wheel in an environment without extras, as on a factory PC."""

import csv
import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from filelock import FileLock

from msc_edge import __version__

REPOSITORY = Path(__file__).parent.parent
TOY_KIT = REPOSITORY / "tests" / "assets" / "toy.kit"
IMAGES = TOY_KIT / "thumbnails"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name != "posix", reason="expects the programs of the environment in bin/"),
]


HERE = Path(sys.executable).with_name("msc-edge")
BARE_ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def run(*command: str | Path, cwd: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    environment = os.environ if command[0] == HERE else BARE_ENVIRONMENT
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def pip(binaries: Path, *command: str | Path) -> str:
    """Run the pip of this environment for another one; gives what it prints."""
    return run(sys.executable, "-m", "pip", "--python", binaries / "python", *command, cwd=binaries).stdout


def install(binaries: Path, *what: str | Path) -> None:
    """Without byte code: the tests import a part of it only."""
    pip(binaries, "install", "--quiet", "--no-compile", *what)


@pytest.fixture(scope="module")
def wheelhouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `make wheelhouse` writes."""
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    folder = tmp_path_factory.mktemp("house") / "wheel house"
    with FileLock(tmp_path_factory.getbasetemp().parent / "wheel.lock"):  # two builds in one folder disturb each other
        run("make", "wheelhouse", f"BIN={Path(sys.executable).parent}", f"WHEELHOUSE={folder}", cwd=REPOSITORY)
    return folder


@pytest.fixture(scope="module")
def bare(wheelhouse: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder bin/ of an environment with the wheels of the wheelhouse, and without the source tree."""
    binaries = tmp_path_factory.mktemp("bare") / "env" / "bin"
    venv.create(binaries.parent)
    install(binaries, "--no-index", "--find-links", wheelhouse, "msc-edge")
    return binaries


def test_a_wheelhouse_installs_without_a_network(wheelhouse: Path, bare: Path, tmp_path: Path) -> None:
    assert run(bare / "msc-edge", "--version", cwd=tmp_path).stdout == f"msc-edge {__version__}\n"
    run(bare / "msc-edge", "score", TOY_KIT, IMAGES, "--out", "scores.csv", cwd=tmp_path)
    # A wheel of modules that this tree no longer has would install them, too.
    (wheel,) = wheelhouse.glob("msc_edge-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if name.endswith(".py")}
    sources = ("msc_edge", "train", "export", "runtime")
    own = {path.relative_to(REPOSITORY) for source in sources for path in (REPOSITORY / source).rglob("*.py")}
    assert packed == {(path if path.parts[0] == "msc_edge" else "msc_edge" / path).as_posix() for path in own}


def test_the_bare_install_has_no_training_package(bare: Path) -> None:
    listed = json.loads(pip(bare, "list", "--format", "json"))
    names = {package["name"].lower() for package in listed}
    assert "msc-edge" in names
    assert not names & {"torch", "torchvision", "lightning", "onnx", "safetensors", "hnswlib", "scikit-learn"}


def test_the_bare_install_gives_the_scores_of_this_one(bare: Path, tmp_path: Path) -> None:
    columns = ("path", "score", "p_value", "verdict", "limit", "nearest", "model", "kit", "error")
    tables = []
    for program, name in ((bare / "msc-edge", "bare.csv"), (HERE, "here.csv")):
        run(program, "score", TOY_KIT, IMAGES, "--out", name, cwd=tmp_path)
        with (tmp_path / name).open(newline="", encoding="utf-8") as file:
            tables.append([[row[column] for column in columns] for row in csv.DictReader(file)])
    assert len(tables[0]) == len(list(IMAGES.iterdir()))
    assert tables[0] == tables[1]


def test_the_bare_install_scores_in_300_megabytes(bare: Path, tmp_path: Path) -> None:
    measure = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    command = (bare / "msc-edge", "score", TOY_KIT, IMAGES, "--out", "scores.csv")
    peak = int(run(bare / "python", "-c", measure, *command, cwd=tmp_path).stdout)
    peak_bytes = peak if sys.platform == "darwin" else peak * 1024
    assert peak_bytes < 300e6


def test_a_backend_that_is_not_installed_is_one_line_with_the_remedy(bare: Path, tmp_path: Path) -> None:
    done = run(bare / "msc-edge", "score", TOY_KIT, IMAGES, "--backend", "openvino", cwd=tmp_path, check=False)
    assert (done.returncode, len(done.stderr.strip().splitlines())) == (2, 1)
    assert "pip install 'msc-edge[openvino]'" in done.stderr


@pytest.mark.parametrize(
    "command",
    [
        "demo",
        "train --normal x --out y",
        "export x --out y",
        "distil --images x --out y",
        "benchmark one-vs-rest --train x --test x --out y",
    ],
)
def test_a_command_of_training_is_one_line_with_the_remedy(bare: Path, tmp_path: Path, command: str) -> None:
    done = run(bare / "msc-edge", *command.split(), cwd=tmp_path, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stderr.strip().splitlines() == [done.stderr.strip()]
    assert "pip install 'msc-edge[train]'" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def with_openvino(bare: Path, wheelhouse: Path) -> Path:
    """The same environment with the extra `openvino`. The tests above need it without."""
    (wheel,) = wheelhouse.glob("msc_edge-*.whl")
    install(bare, f"{wheel}[openvino]")
    return bare


@pytest.fixture(scope="module")
def real_kit(toy: ModuleType, save: Callable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A kit of edge-small with the fp32 model only."""
    from msc_edge.export.pack import export  # torch takes seconds, and a worker has it already
    from msc_edge.train.options import TrainingOptions
    from msc_edge.train.training import train

    place = tmp_path_factory.mktemp("real")
    for seed in range(24):
        save(place / "good" / f"{seed:02d}.png", toy.draw(seed))
    train(place / "good", place / "run", TrainingOptions(steps=0))
    export(place / "run", place / "kit", precision="fp32")
    return place / "kit"


def test_openvino_gives_the_scores_of_onnxruntime(
    with_openvino: Path, real_kit: Path, photos: Path, tmp_path: Path
) -> None:
    tables = []
    for backend in ("onnxruntime", "openvino"):
        out = tmp_path / f"{backend}.csv"
        printed = run(
            with_openvino / "msc-edge", "score", real_kit, photos, "--backend", backend, "--out", out, cwd=tmp_path
        ).stderr
        assert ("backend: openvino" in printed) == (backend == "openvino")
        with out.open(newline="", encoding="utf-8") as file:
            tables.append(list(csv.DictReader(file)))
    scored = [(one, other) for one, other in zip(*tables, strict=True) if not one["error"]]
    assert len(scored) == 10
    for one, other in scored:
        assert (one["path"], one["nearest"]) == (other["path"], other["nearest"])
        assert float(one["image_score"]) == pytest.approx(float(other["image_score"]), abs=2e-6)
        assert float(one["patch_score"]) == pytest.approx(float(other["patch_score"]), rel=1e-4)
        assert one["verdict"] == other["verdict"]


@pytest.mark.parametrize(
    ("kit", "measured"),
    [
        ("real_kit", {"fp32", "fp32 with OpenVINO"}),
        # OpenVINO computes an operator of the toy network differently. fp32 and int8 are never compared.
        ("int8_kit", {"fp32"}),
    ],
)
def test_auto_measures_the_backends_once_and_caches_the_fastest(
    with_openvino: Path, kit: str, measured: set[str], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    script = (
        "import sys; from msc_edge.runtime import Detector\n"
        "d = Detector.load(sys.argv[1], threads=1); print(d.model, d.spec.name)"
    )
    environment = {"XDG_CACHE_HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    command = [str(with_openvino / "python"), "-c", script, str(request.getfixturevalue(kit))]
    first, second = (
        subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    )
    assert first == second
    (path,) = (tmp_path / "msc-edge" / "backend").iterdir()
    cached = json.loads(path.read_text())
    assert set(cached["milliseconds"]) == measured
    assert first.split() == [cached["backend"]["precision"], cached["backend"]["name"]]


def test_openvino_is_refused_where_it_computes_other_embeddings(with_openvino: Path) -> None:
    """The toy kit resizes by an ONNX operator whose antialiasing OpenVINO does not compute."""
    done = run(
        with_openvino / "msc-edge",
        "score",
        TOY_KIT,
        IMAGES,
        "--backend",
        "openvino",
        cwd=with_openvino,
        check=False,
    )
    assert done.returncode == 2
    assert "OpenVINO computes other embeddings here than onnxruntime" in done.stderr
    assert run(with_openvino / "msc-edge", "score", TOY_KIT, IMAGES, cwd=with_openvino).returncode == 0


def test_a_file_that_openvino_cannot_use_is_one_line(with_openvino: Path, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"\x08\x0a\x12\x07pytorch")
    script = (
        "from pathlib import Path; from msc_edge.kit.model_entry import EmbeddingOutput, Outputs\n"
        "from msc_edge.runtime.backends.openvino_backend import OpenVinoBackend\n"
        "outputs = Outputs(embedding=EmbeddingOutput(dim=3))\n"
        "try: OpenVinoBackend(Path('model.onnx'), outputs=outputs, threads=1)\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    printed = run(with_openvino / "python", "-c", script, cwd=tmp_path).stdout
    assert printed.startswith("KitError model.onnx: ")
    assert len(printed.strip().splitlines()) == 1
