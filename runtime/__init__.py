"""Scoring with a kit, on a plain CPU, without torch.

from msc_edge.runtime import Detector

detector = Detector.load("kit")
result = detector.score(frame)      # uint8 (height, width, 3), RGB
print(result.verdict, result.score, result.p_value)
"""

from msc_edge.runtime.detector import Detector
from msc_edge.runtime.result import Neighbour, Result

__all__ = ["Detector", "Neighbour", "Result"]
