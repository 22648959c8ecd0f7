import pytest

from msc_edge.runtime.results.image_result import ImageResult
from msc_edge.runtime.results.summary import Largest, Summary


def unreadable(path: str = "x") -> ImageResult:
    return ImageResult(path, None, error="the file is empty")


class TestLargest:
    def test_the_largest_are_kept_in_order_and_the_earlier_of_equals_comes_first(self, scored):
        largest = Largest(4)
        for number, key in enumerate([0.3, 0.9, 0.1, 0.9, 0.5, 0.7]):
            largest.add(scored(str(number)), key)
        assert [each.path for each in largest.images] == ["1", "3", "5", "4"]
        assert largest.count == 6

    def test_would_keep_agrees_with_add(self, scored):
        largest = Largest(3)
        for number, key in enumerate([0.3, 0.9, 0.1, 0.05, 0.5, 0.7, 0.2]):
            expected = largest.would_keep(key)
            largest.add(scored(str(number)), key)
            assert (str(number) in [each.path for each in largest.images]) == expected

    @pytest.mark.parametrize("size", [0, 1])
    def test_size_zero_keeps_nothing(self, scored, size):
        largest = Largest(size)
        assert largest.would_keep(1.0) == bool(size)
        largest.add(scored(), 1.0)
        assert len(largest.images) == size
        assert largest.count == 1


class TestSummary:
    def test_every_image_is_counted_once(self, scored):
        summary = Summary()
        for verdict in ("normal", "normal", "warn", "reject"):
            summary.add(scored(verdict=verdict))
        summary.add(unreadable())
        assert dict(summary.verdicts) == {"normal": 2, "warn": 1, "reject": 1}
        assert (summary.scored, summary.unreadable, summary.images) == (4, 1, 5)

    def test_the_most_anomalous_and_the_first_unreadable_are_kept(self, scored):
        summary = Summary(keep=3, keep_unreadable=2)
        for number in range(1000):
            summary.add(unreadable(str(number)))
            summary.add(scored(score=number / 1000))
        assert [each.path for each in summary.first_unreadable] == ["0", "1"]
        assert [each.result.score for each in summary.most_anomalous if each.result] == [0.999, 0.998, 0.997]

    def test_would_keep_compares_with_the_kept_scores(self, scored):
        summary = Summary(keep=1)
        assert summary.would_keep(0.1)
        summary.add(scored(score=0.5))
        assert (summary.would_keep(0.4), summary.would_keep(0.6)) == (False, True)
