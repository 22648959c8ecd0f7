"""Every message of the library that names options: the page has words for it, or the studio cannot cause it."""

import ast
import importlib.util
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import grimp
import numpy as np
import pytest

from msc_edge.errors import KitError, MscEdgeError, UnreadableImageError
from msc_edge.files import folder_written_whole
from msc_edge.images import read_image
from msc_edge.kit.opening import Kit
from msc_edge.preprocessing import Region, preset
from msc_edge.runtime.tools.evaluate.labelled import labelled_dataset
from msc_edge.studio.wording import in_words_of_page, in_words_of_pages
from msc_edge.train.dataset import normal_folder
from msc_edge.train.inputs import IgnoreMaskFile

OPTION = re.compile(
    r"(?<![\w(-])--[a-z]|msc-edge (?:train|export|evaluate|score|distil) |\bpass\b(?! rate)|\banother name\b"
)
# Modules and parts of their messages that no page can cause, by the reason.
NOT_CAUSED = {
    "the choices of the page fix these options": {
        "export.models": ("--precision fp32",),
        "export.pack": ("--region-rate", "--scores", "--name"),
        "images": ("pass uint8",),
        "preprocessing": ("--image-size", "--tiles"),
        "train.backbones.architecture": ("no published weights",),
        "train.backbones.efficientnet_lite": ("is not the file",),
        "train.checkpoint_selection": ("--select synthetic",),
        "train.dataset": ("--group-by",),
        "train.devices": ("--devices", "--batch", "--accelerator"),
        "train.fine_tune": ("--freeze-to",),
        "train.inputs": ("--tiles", "--preset"),
        "train.options": ("--learning-rate",),
        "train.patches.taps": ("no feature map",),
        "train.preparation": ("--reduced-jpeg",),
        "train.torchvision_weights": ("backbone",),
    },
    "a training that has finished, or was interrupted, is not started again": {
        "train.run_folder": ("resume the training", "no training to resume", "not empty", "go on from it"),
        "train.training": ("export it with",),
    },
    "the log of the process shows it": {"train.collapse": ("collapsing",)},
    "the page asks for it, and checks it": {
        "calibration": ("warn rate",),
        "studio.workspace": ("already",),
        "train.dataset": ("the path is empty",),
    },
    "no backend and no precision is named": {
        "runtime.backends.openvino_backend": ("--backend",),
        "runtime.backends.selection": ("--backend", "--precision both"),
    },
    "frames in memory": {"images": ("pass a numpy array", "several frames")},
    "calls of the library with wrong arguments": {"arguments": ("pass a path",), "map_metrics.metrics": ("pass",)},
    "only files are listed": {"images": ("it is a folder",)},
    "files of other commands": {
        "export.fused.web_demo": ("onnxruntime-web", "web demo"),
        "export.fused.writing": ("exists",),
        "kit.signatures": ("exists already",),
        "kit.thumbnails": ("--thumbnails",),
        "kit.writing": ("--out", "NEWKIT"),
        "runtime.batch": ("--resume", "--out", "output"),
        "runtime.earlier_rows": ("--out",),
        "runtime.results.image_result": ("--out",),
        "runtime.results.row_file": ("pass",),
        "runtime.tools.evaluate.run": ("exists already", "is a file"),
        "runtime.tools.report.report_path": ("--report", "is a folder"),
    },
    "the studio uses kits alone, without what a station has learned": {
        "runtime.additions_file": ("another name", "--list"),
        "runtime.option_types": ("--learned",),
        "runtime.station_limits": ("--learned",),
    },
    "the labelled images are one folder": {"runtime.tools.evaluate.labelled": ("pass both", "--abnormal:")},
    "a kit of a training is a folder that export has made": {
        "kit.container": ("training run",),
        "kit.opening": ("unpacked",),
    },
    "before there is a page": {
        "runtime.option_types": ("--insecure", "--precision"),
        "runtime.web.refused_requests": ("--tls-cert",),
        "runtime.web.listening": ("--port", "--host"),
        "runtime.web.server": ("--token-file",),
        "runtime.web.settings": ("--tls-cert", "--token-file"),
    },
}


def texts(file: Path) -> Iterator[str]:
    """The texts in the code of a module, without docstrings; X for what is inserted."""
    nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
    skipped = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    skipped |= {id(part) for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in nodes:
        parts = node.values if isinstance(node, ast.JoinedStr) else [node]
        if id(node) not in skipped:
            yield "".join(
                str(part.value) if isinstance(part, ast.Constant) else "X"
                for part in parts
                if isinstance(part, ast.FormattedValue) or (isinstance(part, ast.Constant) and type(part.value) is str)
            )


@pytest.fixture(scope="module")
def messages() -> list[tuple[str, str]]:
    """The texts that name options in all modules that the studio imports, each with its module."""
    graph = grimp.build_graph("msc_edge", cache_dir=None)
    modules = graph.find_upstream_modules("msc_edge.studio", as_package=True) | graph.find_descendants(
        "msc_edge.studio"
    )
    files = {name: spec.origin for name in sorted(modules) if (spec := importlib.util.find_spec(name)) and spec.origin}
    return [
        (name.removeprefix("msc_edge."), text)
        for name, file in files.items()
        if name != "msc_edge.studio.wording"
        for text in texts(Path(file))
        if OPTION.search(text)
    ]


def test_no_page_names_an_option(messages: list[tuple[str, str]]) -> None:
    assert len(messages) > 50
    excused = [(module, part) for modules in NOT_CAUSED.values() for module, parts in modules.items() for part in parts]
    used = set()
    left = []
    for module, text in messages:
        if not OPTION.search(in_words_of_pages(text)):
            continue
        reasons = {(name, part) for name, part in excused if name == module and part in text}
        used |= reasons
        if not reasons:
            left.append((module, text, in_words_of_pages(text)))
    assert left == []
    assert used == set(excused)


def raised(cause: Callable[[], object]) -> str:
    with pytest.raises(MscEdgeError) as error:
        cause()
    assert OPTION.search(str(error.value))
    return in_words_of_pages(str(error.value))


def test_a_folder_with_defects_beside_good_parts(tmp_path: Path) -> None:
    for name in ("good", "dent"):
        (tmp_path / name).mkdir()
    message = raised(lambda: normal_folder(tmp_path))
    assert message.startswith(f"the folder of normal images {tmp_path}: contains 'good' and also dent")
    assert message.endswith(f"choose {tmp_path / 'good'} on the page Images")


def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    assert raised(lambda: normal_folder(gone)) == (
        f"the folder of normal images {gone}: No such file or directory; choose another one on the page Images"
    )


def test_labelled_images_without_defect_types(tmp_path: Path) -> None:
    assert raised(lambda: labelled_dataset(tmp_path)).endswith(
        "expected a folder good and a folder for each defect type; choose such a folder, or drop images, on the page "
        "Images"
    )


def test_a_region_of_letters() -> None:
    assert raised(lambda: Region.parse("a,b,c,d")).startswith("the region a,b,c,d: expected four whole numbers")


def test_images_of_sixteen_bits(tmp_path: Path, save: Callable) -> None:
    path = save(tmp_path / "deep.png", np.full((8, 8, 3), 4000, np.uint16))
    assert raised(lambda: read_image(path)).endswith("; save it with 8 bits a channel")


def test_an_ignore_mask_that_does_not_fit(tmp_path: Path, save: Callable) -> None:
    black = save(tmp_path / "black.png", np.zeros((40, 60, 3), np.uint8))
    mask = IgnoreMaskFile(black)
    region = Region(x=50, y=0, width=40, height=40)
    for cause, words in (
        (lambda: mask.of(preset("whole-frame", image_size=32, region=region)), "60x40 pixels, and the region is not"),
        (lambda: mask.of(preset("whole-frame", image_size=32)), "nothing that the network sees would be ignored"),
        (
            lambda: mask.check(np.zeros((40, 40, 3), np.uint8), "a.png"),
            "a.png: is 40x40 pixels, and the ignore mask is",
        ),
        (lambda: IgnoreMaskFile(tmp_path / "none.png"), "the ignore mask: cannot be opened"),
    ):
        message = raised(cause)
        assert words in message
        assert message.endswith("draw it again on the page Region")


def test_a_kit_that_is_there_already(tmp_path: Path) -> None:
    (tmp_path / "kit" / "other").mkdir(parents=True)

    def write() -> None:
        with folder_written_whole(tmp_path / "kit"):
            pass

    assert raised(write).endswith("move this folder elsewhere, and try again")


def test_a_kit_that_was_damaged(toy_kit: Path, tmp_path: Path, change_byte: Callable) -> None:
    shutil.copytree(toy_kit, tmp_path / "kit")
    change_byte(tmp_path / "kit" / "model.onnx", -1)
    with pytest.raises(KitError) as error:
        Kit.open(tmp_path / "kit")
    assert in_words_of_pages(str(error.value)).endswith("; export the kit again")


def test_an_image_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImageError) as error:
        read_image(tmp_path / "none.png")
    assert in_words_of_pages(f"/data/none.png: {error.value}") == (
        "/data/none.png: cannot be opened: No such file or directory; check that the file is there and may be read"
    )


def test_no_message_sends_the_reader_to_the_page_where_he_is(tmp_path: Path) -> None:
    for cause in (lambda: labelled_dataset(tmp_path), lambda: normal_folder(tmp_path / "gone")):
        message = raised(cause)
        assert message.endswith("on the page Images")
        assert in_words_of_page(message, "Images") == message.removesuffix("on the page Images").rstrip(", ")
        assert in_words_of_page(message, "Region") == message


def test_other_messages_stay_as_they_are() -> None:
    for message in ("the disk is full; free some space", "/data/a --normal b/x.png: changed since the training", ""):
        assert in_words_of_pages(message) == message
