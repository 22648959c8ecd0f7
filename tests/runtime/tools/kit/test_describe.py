import io

import pytest
from rich.console import Console

from msc_edge.kit.layout import MANIFEST
from msc_edge.kit.manifest import parse_manifest
from msc_edge.kit.opening import Kit, seal
from msc_edge.preprocessing import Region
from msc_edge.runtime.batch import Row, Summary
from msc_edge.runtime.tools.display import (
    console,
    describe_kit,
    describe_limits,
    show_kit,
    show_most_anomalous,
    show_summary,
)


def shown(show, *arguments, terminal: bool = False, **options) -> str:
    to = console(stderr=False)
    to.file = io.StringIO()
    if terminal:
        to = Console(file=to.file, force_terminal=True, color_system=None, width=70, markup=False, highlight=False)
    show(to, *arguments, **options)
    return to.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]


def summary(**counts: int) -> Summary:
    result = Summary()
    for verdict, count in counts.items():
        for number in range(count):
            path = f"{verdict} [red]{number}[/red].png"
            if verdict == "unreadable":
                result.add(Row(path, error="the file is empty"))
            else:
                result.add(Row(path, 0.5, 0.5, verdict, "[bold]n[/bold].png", 1.0))  # pyright: ignore[reportArgumentType]
    return result


class TestLimits:
    def words(self, detector, **change):
        moved = detector.with_limits(**change)
        return dict(describe_limits(moved.limits, moved.calibration))

    def test_a_rate_that_too_few_images_cannot_promise_is_said_so(self, detector):
        words = self.words(detector)
        # The bands are quantiles of Beta(2, 11) and Beta(1, 12).
        band = "(3 to 33.9 % with 90 % certainty; 20 % allowed)"
        assert words["warn"].endswith(f", expected to flag 15.4 % of good images {band}")
        band = "(0.43 to 22.1 % with 90 % certainty)"
        assert words["reject"].endswith(f", expected to flag 7.7 % of good images {band}")
        # 1 / 100 is the least rate that 99 images can promise.
        assert words["caution"].startswith("reject does NOT keep to the 1 %")
        assert "at least 99 held-out images, and the kit has 12" in words["caution"]

    def test_a_rate_that_is_kept_needs_no_caution(self, detector):
        assert "caution" not in self.words(detector, false_alarm_rate=0.1)

    def test_a_threshold_by_hand_tells_how_many_good_images_exceed_it(self, detector):
        third = sorted(detector.calibration.scores)[-3]
        assert "set by hand; 2 of 12 held-out images exceed it" in self.words(detector, threshold=third)["reject"]

    def test_a_warn_limit_that_can_never_be_met_is_said_so(self, detector):
        assert self.words(detector, threshold=0.0)["warn"].startswith("never given")


class TestSummaryShown:
    def test_counts_and_shares_of_all_images(self):
        text = shown(
            show_summary,
            summary(normal=5, warn=1, reject=2, unreadable=2),
            done_now=10,
            seconds=4.0,
            other_files=1,
        )
        lines = [" ".join(line.split()) for line in text.splitlines()]
        assert lines[0] == "10 images in 4.0 s, 2.5 a second"
        assert lines[1:5] == ["normal 5 50.0 %", "warn 1 10.0 %", "reject 2 20.0 %", "unreadable 2 20.0 %"]
        assert lines[5] == "unreadable [red]0[/red].png: the file is empty"
        assert lines[7].startswith("1 other file passed over")

    @pytest.mark.parametrize(
        ("done_now", "expected"),
        [(0, "4 images: 4 done earlier and 0 now"), (1, "4 images: 3 done earlier and 1 now, in 2.0 s")],
    )
    def test_a_continued_run_tells_both_parts(self, done_now, expected):
        text = shown(show_summary, summary(normal=4), done_now=done_now, seconds=2.0, other_files=0)
        assert text.startswith(expected)

    def test_only_the_first_few_unreadable_ones_are_listed_and_the_rest_counted(self):
        text = shown(show_summary, summary(unreadable=30), done_now=30, seconds=1.0, other_files=0)
        assert text.count("the file is empty") == 5
        assert "and 25 more" in text

    def test_no_line_of_a_file_is_broken_for_the_width_of_a_terminal(self):
        long = Summary()
        long.add(Row("x" * 500, error="y" * 500))
        assert f"{'x' * 500}: {'y' * 500}\n" in shown(show_summary, long, done_now=1, seconds=1.0, other_files=0)


def test_the_table_shows_names_as_they_are():
    text = shown(show_most_anomalous, summary(reject=2))
    assert "reject [red]0[/red].png" in text
    assert "[bold]n[/bold].png" in text


def test_nothing_scored_gives_no_table():
    assert shown(show_most_anomalous, summary(unreadable=3)) == ""


class TestKitShown:
    def test_facts_of_the_toy_kit(self, toy_kit):
        with Kit.open(toy_kit) as kit:
            facts = dict(describe_kit(kit))
        assert facts["backbone"] == "toy_pixels, 192 values, fp32, opset 20"
        assert facts["bank"].startswith("12 normals x 192")
        assert "recall 1.0000 over 12 queries" in facts["search"]
        assert facts["calibration"].startswith("12 held-out good images")
        assert facts["limits set"].endswith("held out of the images that were trained on; for the first time")
        assert facts["parity"].startswith("24 images: scores differ from training's by at most 2.3e-07")

    def test_a_file_gets_a_line_a_fact(self, toy_kit):
        with Kit.open(toy_kit) as kit:
            assert shown(show_kit, kit).splitlines() == [f"{name}: {value}" for name, value in describe_kit(kit)]

    def test_a_narrow_terminal_gets_every_word_too(self, toy_kit):
        with Kit.open(toy_kit) as kit:
            words = "".join(f"{name}{value}" for name, value in describe_kit(kit))
            assert "".join(shown(show_kit, kit, terminal=True).split()) == "".join(words.split())

    @pytest.mark.parametrize(
        ("change", "expected"),
        [
            ({"region": Region(x=1, y=2, width=30, height=20)}, "30x20 pixels from (1, 2), stretched to 8x8"),
            ({"resize": "short-side", "resize_to": 9, "preset": "paper"}, "shorter side to 9, centre 8x8"),
        ],
    )
    def test_preprocessing_in_words(self, kit, change, expected):
        manifest = parse_manifest((kit / MANIFEST).read_bytes())
        preprocessing = manifest.preprocessing.model_copy(update=change)
        seal(kit, manifest.model_copy(update={"preprocessing": preprocessing, "parity": None}))
        with Kit.open(kit) as opened:
            facts = dict(describe_kit(opened))
        assert expected in facts["images"]
        assert facts["parity"] == "NOT measured"
