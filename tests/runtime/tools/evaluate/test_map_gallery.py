"""The galleries of the worst and the best heatmaps."""

import re
import shutil
import tracemalloc
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from msc_edge.kit.opening import Kit
from msc_edge.runtime import Detector, evaluate
from msc_edge.runtime.tools.evaluate.labelled import LabelledImage, labelled_dataset
from msc_edge.runtime.tools.evaluate.map_gallery import map_galleries, worst_and_best
from msc_edge.runtime.tools.evaluate.masks import MaskedImage, MaskedMaps
from msc_edge.runtime.tools.report.gallery import Gallery

pytestmark = pytest.mark.usefixtures("few_resamples")
SHARES = st.floats(0, 1)


def masked(number: int, *, aupimo: float | None, overlap: float, peak: float = 1.0) -> MaskedImage:
    path = Path(f"{number}.png")
    return MaskedImage(LabelledImage(path, "dent", path.name), path, aupimo, overlap, peak)


def names(images: list[MaskedImage]) -> list[str]:
    return [image.label.name for image in images]


class TestOrder:
    @given(values=st.lists(st.tuples(SHARES, SHARES, SHARES), max_size=12), count=st.integers(0, 14))
    def test_no_image_is_in_both_and_every_worst_one_is_below_every_best_one(self, values, count):
        images = [masked(number, aupimo=a, overlap=b, peak=c) for number, (a, b, c) in enumerate(values)]
        for by_aupimo in (True, False):
            worst, best = worst_and_best(images, count, by_aupimo=by_aupimo)
            assert len({*names(worst), *names(best)}) == len(worst) + len(best) == min(count, len(images))
            assert len(worst) - len(best) in (0, 1)
            found = [(each.aupimo if by_aupimo else each.overlap) or 0.0 for each in (*worst, *best[::-1])]
            assert found == sorted(found)

    def test_by_aupimo_or_by_overlap(self):
        images = [masked(0, aupimo=0.9, overlap=0.1), masked(1, aupimo=0.2, overlap=0.8)]
        assert [names(each) for each in worst_and_best(images, 2, by_aupimo=True)] == [["1.png"], ["0.png"]]
        assert [names(each) for each in worst_and_best(images, 2, by_aupimo=False)] == [["0.png"], ["1.png"]]

    def test_of_equal_ones_the_lowest_map_in_the_mask_is_the_worst(self):
        images = [masked(number, aupimo=0, overlap=0, peak=peak) for number, peak in enumerate((0.7, 0.2, 0.9, 0.4))]
        worst, best = worst_and_best(images, 4, by_aupimo=True)
        assert (names(worst), names(best)) == (["1.png", "3.png"], ["2.png", "0.png"])


class TestReport:
    def cards(self, page: str, title: str) -> list[str]:
        section = page.partition(f"<h2>{title}</h2>")[2].partition("</section>")[0]
        return re.findall(r"<article.*?</article>", section, re.DOTALL)

    def test_maps_that_miss_their_mask_are_the_worst(self, evaluated_maps):
        page = (evaluated_maps / "report.html").read_text(encoding="utf-8")
        worst, best = self.cards(page, "Worst heatmaps"), self.cards(page, "Best heatmaps")
        assert (len(worst), len(best)) == (2, 2)
        assert {name for card in worst for name in re.findall(r"test/stain/(\d)\.png<br>", card)} == {"0", "1"}
        assert all("overlap 0.0000" in card for card in worst)
        assert not any("overlap 0.0000" in card for card in best)

    def test_each_has_the_outline_of_its_mask_and_each_gallery_its_legend(self, evaluated_maps, text_of):
        page = (evaluated_maps / "report.html").read_text(encoding="utf-8")
        for title in ("Worst heatmaps", "Best heatmaps"):
            for card in self.cards(page, title):
                assert card.count('<path class="mask"') == card.count('<path class="casing"') == 1
                assert "with its heatmap and the outline of its mask" in card
            text = text_of(page.partition(f"<h2>{title}</h2>")[2].partition("<article")[0])
            legend = "heatmap: yellow is its limit region: heatmap above the limit mask: the true defect"
            assert f"0 limit 2 \u00d7 limit {legend}" in text
            assert "of 5 images" in text
        # The masks are seen in these two galleries only.
        assert page.count('<path class="mask"') == 4 + 2

    def test_too_few_normal_pixels_are_reported_in_one_sentence(self, evaluated_maps, text_of):
        text = text_of((evaluated_maps / "report.html").read_text(encoding="utf-8"))
        assert (
            "AUPIMO is not resolved: the normal images have too few pixels, and one pixel changes its false-positive "
            "rate by 0.0054 %. Compare kits by AU-PRO instead."
        ) in text
        assert "smallest overlap first, because AUPIMO is not resolved." in text

    def test_with_enough_normal_pixels_the_order_is_that_of_aupimo(self, patch_kit, masked_parts, toy, save, tmp_path):
        data = shutil.copytree(masked_parts, tmp_path / "data")
        save(data / "test" / "good" / "large.png", cv2.resize(toy.draw(1), (640, 480)))
        for path in (data / "test" / "good").glob("?.png"):
            path.unlink()
        evaluation = evaluate(patch_kit, data, tmp_path / "out", resamples=100, threads=1)
        assert evaluation.maps
        assert evaluation.maps.fpr_step == 1 / (640 * 480)
        page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
        assert "not resolved" not in page
        assert "largest AUPIMO first." in page
        found = [float(each) for each in re.findall(r"AUPIMO (\d\.\d{4}) ", page)]
        worst, best = found[:3], found[3:]
        assert worst + best[::-1] == sorted(found)

    @pytest.mark.parametrize("gallery", [0, 1, 100])
    def test_both_have_at_most_the_images_of_one_gallery(self, patch_kit, masked_parts, tmp_path, gallery):
        evaluate(patch_kit, masked_parts, tmp_path / "out", resamples=100, gallery=gallery, threads=1)
        page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
        assert sum(len(self.cards(page, f"{kind} heatmaps")) for kind in ("Worst", "Best")) == min(gallery, 5)

    def test_without_masks_there_are_none(self, patch_kit, masked_parts, tmp_path):
        evaluate(patch_kit, masked_parts / "test", tmp_path / "without", resamples=100, threads=1)
        shutil.copytree(masked_parts / "test", tmp_path / "data" / "test")
        evaluate(patch_kit, tmp_path / "data", tmp_path / "out", resamples=100, threads=1)
        page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
        assert "Worst heatmaps" not in page
        assert "mask: the true defect" not in page
        assert "region: heatmap above the limit" in page


class TestLater:
    """Files that disappear between the scores and the page."""

    def galleries(self, kit: Path, data: Path, missing: Path) -> list[Gallery]:
        with Kit.open(kit) as opened:
            detector = Detector.of(opened, threads=1)
            labelled = labelled_dataset(data)
            maps, results = MaskedMaps(labelled), {}
            for image in labelled.images:
                results[image.path] = detector.score_file(image.path)
                maps.add(image, results[image.path])
            found = maps.result()
            assert found
            missing.unlink()
            return map_galleries(opened, detector, found.images, results, count=10, by_aupimo=False)

    def test_an_image_that_is_gone_has_a_card_with_the_reason(self, patch_kit, masked_parts, tmp_path):
        data = shutil.copytree(masked_parts, tmp_path / "data")
        cards = [
            card
            for gallery in self.galleries(patch_kit, data, data / "test" / "stain" / "3.png")
            for card in gallery.cards
        ]
        (gone,) = [card for card in cards if card.problem]
        assert (gone.name, gone.outline, gone.overlay) == ("test/stain/3.png", None, "")
        assert gone.problem == "the file cannot be read any more: No such file or directory"
        assert len(cards) == 5

    def test_an_image_whose_mask_is_gone_is_shown_without_outline(self, patch_kit, masked_parts, tmp_path):
        data = shutil.copytree(masked_parts, tmp_path / "data")
        galleries = self.galleries(patch_kit, data, data / "ground_truth" / "stain" / "3.png")
        (gone,) = [card for gallery in galleries for card in gallery.cards if card.problem]
        assert (gone.name, gone.outline) == ("test/stain/3.png", None)
        assert "this mask cannot be read" in gone.problem
        assert gone.overlay


def test_maps_are_not_kept(patch_kit, toy, save, tmp_path):
    """Thirty maps of 700 x 700 pixels take 59 MB."""
    large = cv2.resize(toy.draw(1), (700, 700))
    for number in range(15):
        save(tmp_path / "data" / "test" / "good" / f"{number}.bmp", large)
        save(
            tmp_path / "data" / "test" / "dent" / f"{number}.bmp",
            cv2.circle(large.copy(), (500, 200), 90, (0, 0, 0), -1),
        )
        mask = cv2.circle(np.zeros_like(large), (500, 200), 90, (255, 255, 255), -1)
        save(tmp_path / "data" / "ground_truth" / "dent" / f"{number}.png", mask)
    with Kit.open(patch_kit) as opened:
        detector, labelled, results = Detector.of(opened, threads=1), labelled_dataset(tmp_path / "data"), {}
        tracemalloc.start()
        try:
            maps = MaskedMaps(labelled)
            for image in labelled.images:
                result = detector.score_file(image.path)
                maps.add(image, result)
                results[image.path] = replace(result, grid_map=None)
            found = maps.result()
            assert found
            galleries = map_galleries(opened, detector, found.images, results, count=12, by_aupimo=True)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert [len(gallery.cards) for gallery in galleries] == [6, 6]
    assert peak < 40e6
