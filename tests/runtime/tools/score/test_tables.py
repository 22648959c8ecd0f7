import io

import pytest

from msc_edge.runtime.results.image_result import ImageResult
from msc_edge.runtime.results.result import NearestImage
from msc_edge.runtime.results.summary import Summary
from msc_edge.runtime.tools.score.tables import show_limits, show_most_anomalous, show_summary
from msc_edge.terminal import console


def shown(show, *arguments, **options) -> str:
    to = console(stderr=False)
    to.file = output = io.StringIO()
    to.width = 120
    show(to, *arguments, **options)
    return output.getvalue()


@pytest.fixture
def summary(scored):
    """A summary with a number of images of each verdict; their names look like markup."""

    def build(**counts: int) -> Summary:
        result = Summary()
        for verdict, count in counts.items():
            for number in range(count):
                path = f"{verdict} [red]{number}[/red].png"
                if verdict == "unreadable":
                    result.add(ImageResult(path, None, error="the file is empty"))
                else:
                    nearest = (NearestImage(0, "[bold]n[/bold].png", 0.1),)
                    result.add(scored(path, verdict=verdict, nearest_images=nearest))
        return result

    return build


class TestSummary:
    def test_counts_and_shares_are_of_all_images(self, summary):
        counted = summary(normal=5, warn=1, reject=2, unreadable=2)
        text = shown(show_summary, counted, scored_now=10, seconds=4.0, other_files=1)
        lines = [" ".join(line.split()) for line in text.splitlines()]
        assert lines[0] == "10 images in 4.0 s, 2.5 images/s"
        assert lines[1:5] == ["normal 5 50.0 %", "warn 1 10.0 %", "reject 2 20.0 %", "unreadable 2 20.0 %"]
        assert lines[5] == "unreadable [red]0[/red].png: the file is empty"
        assert lines[7].startswith("1 other file skipped: the name does not end in .bmp ")

    def test_a_name_with_line_breaks_is_one_line(self, scored):
        found = Summary()
        found.add(ImageResult("a\nb\r.png", None, error="broken\nfile"))
        found.add(scored("c\nd.png", nearest_images=(NearestImage(0, "n\n.png", 0.1),)))
        unreadable = shown(show_summary, found, scored_now=2, seconds=1.0, other_files=0)
        assert r"a\nb\r.png: broken\nfile" in unreadable
        assert all(name in shown(show_most_anomalous, found) for name in (r"c\nd.png", r"n\n.png"))

    @pytest.mark.parametrize(
        ("scored_now", "expected"),
        [
            (0, "4 images: 4 from earlier runs, 0 now\n"),
            (1, "4 images: 3 from earlier runs, 1 now, in 2.0 s, 0.5 images/s\n"),
        ],
    )
    def test_a_continued_run_counts_both_parts(self, summary, scored_now, expected):
        text = shown(show_summary, summary(normal=4), scored_now=scored_now, seconds=2.0, other_files=0)
        assert text.startswith(expected)

    def test_only_the_first_unreadable_images_are_listed_and_the_rest_is_counted(self, summary):
        text = shown(show_summary, summary(unreadable=30), scored_now=30, seconds=1.0, other_files=0)
        assert text.count("the file is empty") == 5
        assert "and 25 more" in text

    def test_no_line_is_wrapped_to_the_width_of_a_terminal(self):
        long = Summary()
        long.add(ImageResult("x" * 500, None, error="y" * 500))
        text = shown(show_summary, long, scored_now=1, seconds=1.0, other_files=0)
        assert f"{'x' * 500}: {'y' * 500}\n" in text


class TestMostAnomalous:
    def test_names_are_printed_as_they_are(self, summary):
        text = shown(show_most_anomalous, summary(reject=2))
        assert "Most anomalous first" in text
        assert "reject [red]0[/red].png" in text
        assert "[bold]n[/bold].png" in text

    def test_the_title_says_how_many_there_are(self, summary):
        assert "The 10 most anomalous of 12 images" in shown(show_most_anomalous, summary(reject=12))

    def test_without_a_score_there_is_no_table(self, summary):
        assert shown(show_most_anomalous, summary(unreadable=3)) == ""


class TestLimits:
    def lines(self, detector, **change) -> dict[str, str]:
        moved = detector.with_limits(**change)
        _, *lines = shown(
            show_limits, moved.limits, moved.calibration, moved.manifest.models[moved.model].calibration.regions
        ).splitlines()
        return {line.split()[0]: line.split(maxsplit=1)[1] for line in lines}

    def test_a_target_that_needs_more_images_gets_a_caution(self, detector):
        lines = self.lines(detector)
        # The intervals are quantiles of Beta(2, 11) and Beta(1, 12).
        assert lines["warn"].endswith("target 20 %, expected 15.4 %, 90 % interval 3 to 33.9 %")
        assert lines["reject"].endswith("target 1 %, expected 7.7 %, 90 % interval 0.43 to 22.1 %")
        # 1 / 100 is the smallest rate that 99 images allow.
        assert "needs at least 99 calibration images, and the kit has 12" in lines["caution"]

    def test_a_met_target_has_no_caution(self, detector):
        assert "caution" not in self.lines(detector, false_alarm_rate=0.1)

    def test_a_limit_set_by_hand_counts_the_calibration_images_above_it(self, detector):
        third = sorted(detector.calibration.scores)[-3]
        assert "set by hand; 2 of 12 calibration images exceed it" in self.lines(detector, threshold=third)["reject"]

    def test_a_warn_limit_that_is_not_used_is_named(self, detector):
        assert self.lines(detector, threshold=0.0)["warn"].startswith("not used")
