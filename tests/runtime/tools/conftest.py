"""Pages that several modules look at, and evaluations that do not spend their time on resamples."""

import html
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest

from msc_edge.kit.opening import Kit
from msc_edge.runtime import evaluate, score_folder
from msc_edge.runtime.tools.evaluate import evaluation, metrics
from msc_edge.runtime.tools.report.scores import ScoreReport

DEFECTS = ("empty", "scratch", "stain")
SCRIPT = "<script>alert(1)<"  # a folder with the file "script>.png"


@pytest.fixture(scope="module")
def few_resamples() -> Iterator[None]:
    """Three resamples in place of a hundred or more, which take most of the time; test_metrics.py tests them."""
    with_intervals = metrics.with_intervals

    def few(*arguments: Any, resamples: int, **options: Any) -> Any:
        assert resamples >= 100
        return with_intervals(*arguments, resamples=3, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "with_intervals", few)
        yield


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory, toy: ModuleType, save: Callable) -> Path:
    """Twelve normal images and four of each of three defect types, in the MVTec-AD layout; not to be changed."""
    folder = tmp_path_factory.mktemp("drawn") / "parts"
    for seed in range(300, 312):
        save(folder / "test" / "good" / f"{seed}.png", toy.draw(seed))
    for number, defect in enumerate(DEFECTS):
        for seed in range(4):
            save(folder / "test" / defect / f"{seed:03d}.png", toy.draw(400 + 10 * number + seed, defect))
    save(folder / "train" / "good" / "000.png", toy.draw(0))
    return folder


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory, toy: ModuleType, save: Callable) -> Path:
    """A data set with a missed defect, a false alarm, an unreadable image and a name that looks like markup."""
    folder = tmp_path_factory.mktemp("parts")
    test = folder / "test"
    for seed in range(500, 508):
        save(test / "good" / f"{seed}.png", toy.draw(seed))
    save(test / "good" / "really a stain.png", toy.draw(520, "stain"))
    save(test / "dent" / "really good.png", toy.draw(521))
    for seed in range(530, 534):
        save(test / "empty" / f"{seed}.png", toy.draw(seed, "empty"))
    save(test / SCRIPT / "script>.png", toy.draw(540, "scratch"))
    (test / "empty" / "zero.png").touch()
    return folder


@pytest.fixture(scope="module")
def evaluated(
    few_resamples: None,  # noqa: ARG001
    toy_kit: Path,
    parts: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The folder of an evaluation of `parts`."""
    out = tmp_path_factory.mktemp("evaluated") / "out"
    evaluate(toy_kit, parts, out, resamples=100)
    return out


@pytest.fixture(scope="session")
def masked_parts(tmp_path_factory: pytest.TempPathFactory, toy: ModuleType, save: Callable) -> Path:
    """Six normal images, and five stains at (50, 12) with masks: those of 0 and 1 are far from the stain."""
    folder = tmp_path_factory.mktemp("masked")
    for seed in range(6):
        save(folder / "test" / "good" / f"{seed}.png", toy.draw(600 + seed))
    for number in range(5):
        save(folder / "test" / "stain" / f"{number}.png", toy.draw(700 + number, "stain"))
        place = (8, 40) if number < 2 else (50, 12)
        mask = cv2.circle(np.zeros((48, 64, 3), np.uint8), place, 8, (255, 255, 255), -1)
        save(folder / "ground_truth" / "stain" / f"{number}.png", mask)
    return folder


@pytest.fixture(scope="module")
def evaluated_maps(
    few_resamples: None,  # noqa: ARG001
    patch_kit: Path,
    masked_parts: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The folder of an evaluation of `masked_parts`, with four images in a gallery."""
    out = tmp_path_factory.mktemp("evaluated maps") / "out"
    evaluate(patch_kit, masked_parts, out, resamples=100, gallery=4, threads=1)
    return out


@pytest.fixture(scope="session")
def score_report(toy_kit: Path, parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the score file s.csv of `parts` and its report s.html, with six images."""
    place = tmp_path_factory.mktemp("scored")
    page = ScoreReport(gallery=6)
    with Kit.open(toy_kit) as kit:
        done = score_folder(kit, [parts], place / "s.csv", on_result=[page.add], thumbnail_if=page.wants_thumbnail)
        page.write(place / "s.html", done.detector, kit)
    return place


@pytest.fixture(scope="session")
def text_of() -> Callable[[str], str]:
    """The text of a page, without its style and its markup."""

    def text(page: str) -> str:
        content = re.sub(r"<style>.*?</style>|<[^>]*>", " ", page, flags=re.DOTALL)
        return " ".join(html.unescape(content).split())

    return text


@pytest.fixture(scope="session")
def sections() -> Callable[[Path], str]:
    """A page without its head and title, where the kit and the date are."""

    def below(report: Path) -> str:
        return report.read_text(encoding="utf-8").partition('<div class="tiles')[2]

    return below
