import pytest

from msc_edge.runtime.tools.report.outcome import Outcome, Truth, outcome_of

GOOD, CRACK = Truth("good", False), Truth("crack", True)


@pytest.mark.parametrize(
    ("verdict", "truth", "expected"),
    [
        ("normal", GOOD, Outcome("right", "good part passed")),
        ("warn", GOOD, Outcome("wrong", "false alarm, warning only")),
        ("reject", GOOD, Outcome("wrong", "false alarm")),
        ("normal", CRACK, Outcome("wrong", "missed defect")),
        ("warn", CRACK, Outcome("wrong", "missed defect, warning only")),
        ("reject", CRACK, Outcome("right", "defect found")),
    ],
)
def test_a_defect_should_be_rejected_and_a_good_part_should_pass(verdict, truth, expected):
    assert outcome_of(verdict, truth) == expected
