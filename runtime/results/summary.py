"""Counts over the results of many images, and the few that need a look."""

import heapq
from collections import Counter
from dataclasses import dataclass, field

from msc_edge.calibration import Verdict
from msc_edge.runtime.results.image_result import ImageResult


class Largest:
    """The images with the largest keys among those added, at most `size`."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.count = 0
        """All images that were added."""
        self._heap: list[tuple[float, int, ImageResult]] = []

    def add(self, image: ImageResult, key: float) -> None:
        """Consider an image."""
        self.count += 1
        # The count breaks ties in favour of the earlier image; images themselves have no order.
        heapq.heappush(self._heap, (key, -self.count, image))
        if len(self._heap) > self.size:
            heapq.heappop(self._heap)

    def would_keep(self, key: float) -> bool:
        """Whether an image with this key would be kept. May be called from other threads; then it errs towards yes."""
        heap = self._heap
        return self.size > 0 and (len(heap) < self.size or key >= heap[0][0])

    @property
    def images(self) -> list[ImageResult]:
        """The kept images, the largest key first."""
        return [image for _, _, image in sorted(self._heap, key=lambda each: each[:2], reverse=True)]


@dataclass
class Summary:
    """Counts of verdicts, the most anomalous images and the first unreadable ones."""

    keep: int = 10
    """How many of the most anomalous images are kept."""
    keep_unreadable: int = 10
    verdicts: Counter[Verdict] = field(default_factory=Counter)
    unreadable: int = 0
    first_unreadable: list[ImageResult] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._largest = Largest(self.keep)

    def add(self, image: ImageResult) -> None:
        """Count one image."""
        if image.result is None:
            self.unreadable += 1
            if len(self.first_unreadable) < self.keep_unreadable:
                self.first_unreadable.append(image)
            return
        self.verdicts[image.result.verdict] += 1
        self._largest.add(image, image.result.score)

    @property
    def scored(self) -> int:
        """Images that have a score."""
        return self.verdicts.total()

    @property
    def images(self) -> int:
        """All images, the unreadable ones included."""
        return self.scored + self.unreadable

    @property
    def most_anomalous(self) -> list[ImageResult]:
        """The kept images with the largest scores, the most anomalous first."""
        return self._largest.images

    def would_keep(self, score: float) -> bool:
        """Whether an image with this score would be among the most anomalous ones; see `Largest.would_keep`."""
        return self._largest.would_keep(score)
