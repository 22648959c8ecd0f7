from msc_edge.runtime.tools.doctor.checks import Check, run_check, run_checks, summary_of


def test_a_check_that_fails_is_a_problem_with_its_error():
    check = run_check("sums", lambda: Check("sums", "ok", str(1 // 0)))
    assert (check.name, check.state) == ("sums", "problem")
    assert "ZeroDivisionError" in check.found
    assert check.remedy


def test_checks_run_under_their_names_after_a_failure_too():
    def first() -> Check:
        raise RuntimeError("broken")

    def second() -> Check:
        return Check("second", "ok", "")

    assert [(check.name, check.state) for check in run_checks(first, second)] == [
        ("first", "problem"),
        ("second", "ok"),
    ]


def test_the_summary_names_the_problems():
    note, problem = Check("disk", "note", "almost full"), Check("clock", "problem", "1970", "set it")
    assert summary_of([note]) == "no problem found"
    assert summary_of([note, problem]) == "1 problem: clock"
    assert summary_of([problem, problem]) == "2 problems: clock, clock"
