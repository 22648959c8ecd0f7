"""What a finding means, in words that need no statistics."""

from typing import Any

from msc_edge.runtime.stream.page.texts import Texts

_RARE = 0.1  # below it: one good part in so many


def p_value_in_words(t: Texts, finding: dict[str, Any]) -> str:
    """How unusual a finding would be for a good part; empty where the kit does not say."""
    p_value = finding["p_value"]
    if p_value is None or p_value <= 0:
        return ""
    if finding["is_least_p_value"]:
        return t("part.rarer", count=t.number(finding["independent"] + 1, 0), images=finding["calibration_images"])
    if p_value < _RARE:
        return t("part.rare", count=t.number(1 / p_value, 0))
    return t("part.usual", percent=t.number(100 * p_value, 0))
