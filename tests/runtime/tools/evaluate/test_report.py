"""The page of an evaluation. tests/runtime/tools/report/test_page.py opens it in a browser."""

import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from msc_edge.runtime import evaluate
from msc_edge.runtime.tools.evaluate.report import operating_points

pytestmark = pytest.mark.usefixtures("few_resamples")
HEADINGS = [
    "Missed anomalous images: not rejected",
    "False alarms: warned or rejected",
    "Detected anomalous images: rejected",
    "Unreadable images",
]


def test_it_has_the_metrics_limits_and_defect_types(evaluated, text_of):
    found = json.loads((evaluated / "evaluation.json").read_bytes())
    text = text_of((evaluated / "report.html").read_text(encoding="utf-8"))
    for metric in found["metrics"].values():
        assert f"{metric['value']:.4f} {metric['low']:.4f} to {metric['high']:.4f}" in text
    for each in found["defect_types"]:
        assert f"{each['name']} {each['images']}" in text
        assert f"{each['auroc']:.4f} {each['average_precision']:.4f} {each['warned']} (" in text
    for name in ("warn", "reject"):
        limit = found[name]
        assert f"{name} {limit['score']:.6f} {limit['false_alarms']} of {limit['normal_images']} (" in text
        assert f"{limit['interval'][0]} to {limit['interval'][1]}: " in text
    assert "test/empty/zero.png the file is empty" in text


def test_the_galleries_have_the_missed_the_false_alarms_and_the_detected(evaluated, text_of):
    text = text_of((evaluated / "report.html").read_text(encoding="utf-8"))
    _, missed, alarms, found, _ = re.split("|".join(rf"(?<=\S ){heading} (?=[A-Zi])" for heading in HEADINGS), text)
    assert "test/dent/really good.png nearest normal image" in missed
    assert "truth: dent" in missed
    assert "test/good/really a stain.png nearest normal image" in alarms
    assert re.findall(r"test/\S*/53\d\.png", found)
    assert "score first. 5 images. Each image is shown" in found


def test_warnings_are_counted_beside_the_rejected_normal_images(evaluated, text_of):
    """The first figure counts rejects only, the gallery of false alarms warnings too: the page says which."""
    found = json.loads((evaluated / "evaluation.json").read_bytes())
    warned = found["warn"]["false_alarms"] - found["reject"]["false_alarms"]
    assert warned > 0
    text = text_of((evaluated / "report.html").read_text(encoding="utf-8"))
    assert f"{warned} more get a warning, which is a false alarm, too." in text


def test_each_image_is_beside_its_two_nearest_normal_images(evaluated):
    page = (evaluated / "report.html").read_text(encoding="utf-8")
    cards = re.findall(r"<article.*?</article>", page, re.DOTALL)
    assert len(cards) == 8
    assert all(card.count("<img ") == 3 for card in cards)


def test_colours_and_words_say_right_or_wrong(evaluated):
    page = (evaluated / "report.html").read_text(encoding="utf-8")
    sections = dict(re.findall(r'<section>\s*<div class="head">\s*<h2>([^<]*)</h2>(.*?)</section>', page, re.DOTALL))
    for heading, expected in (
        ("Missed anomalous images: not rejected", {("wrong", "missed defect")}),
        ("False alarms: warned or rejected", {("wrong", "false alarm"), ("wrong", "false alarm, warning only")}),
        ("Detected anomalous images: rejected", {("right", "defect found")}),
    ):
        found = re.findall(r'<article class="card (\w+)".*?</svg>\s*([^<]*)</span>', sections[heading], re.DOTALL)
        assert set(found) == expected


class TestOperatingPoints:
    SCORES = st.lists(st.floats(-5, 5), min_size=1, max_size=40)

    @given(SCORES, SCORES)
    def test_no_other_limit_finds_more_with_so_few_false_alarms(self, normal, anomalous):
        for point in operating_points(np.array(normal), np.array(anomalous)):
            assert sum(score > point.score for score in normal) <= point.false_alarms <= point.rate * len(normal) + 1e-9
            best = max(
                sum(score > limit for score in anomalous)
                for limit in (-9.0, *normal, *anomalous)
                if sum(score > limit for score in normal) <= point.false_alarms
            )
            assert point.found == best == sum(score > point.score for score in anomalous)

    def test_rates_with_the_same_number_of_false_alarms_are_one(self):
        points = operating_points(np.arange(100.0), np.array([98.5, 99.5]))
        assert [(point.rate, point.false_alarms, point.found) for point in points] == [
            (0.0, 0, 1), (0.01, 1, 2), (0.02, 2, 2), (0.05, 5, 2), (0.1, 10, 2)
        ]  # fmt: skip


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_it_names_the_model_of_a_kit_with_two(int8_kit, parts, tmp_path, precision):
    evaluate(int8_kit, parts, tmp_path / "out", precision=precision, gallery=1)
    text = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert f", model {precision} (the kit has another model with its own limits)" in text


def test_galleries_can_be_left_out_or_be_empty(toy_kit, parts, tmp_path, text_of):
    evaluate(toy_kit, parts, tmp_path / "a", gallery=0)
    page = (tmp_path / "a" / "report.html").read_text(encoding="utf-8")
    assert "<article" not in page
    assert "5 images, none shown." in text_of(page)
    evaluate(toy_kit, parts, tmp_path / "b", threshold=0)
    assert "Every anomalous image was rejected." in (tmp_path / "b" / "report.html").read_text(encoding="utf-8")


def test_images_of_the_memory_bank_get_a_caution(toy_kit, toy, save, tmp_path, text_of):
    save(tmp_path / "data" / "good" / "0.png", toy.draw(0))
    save(tmp_path / "data" / "dent" / "1.png", toy.draw(1, "stain"))
    evaluate(toy_kit, tmp_path / "data", tmp_path / "out")
    text = text_of((tmp_path / "out" / "report.html").read_text(encoding="utf-8"))
    assert "Found in the kit's memory bank: 1 image of this data set." in text
