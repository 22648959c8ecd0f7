import re
from dataclasses import replace
from pathlib import Path

from msc_edge.train.one_vs_rest.protocol import Job, Point
from msc_edge.train.one_vs_rest.tables import write_tables


def job(label: str, method: str, *aurocs: float, selected_step: int = 0) -> Job:
    return Job(label, method, 0, tuple(Point(step, auroc, 0.5) for step, auroc in enumerate(aurocs)), selected_step)


def test_means_are_over_the_classes_that_all_methods_have_finished(tmp_path: Path) -> None:
    table = write_tables(tmp_path, [job("a", "dn2", 0.9), job("b", "dn2", 0.5), job("a", "v2", 0.95)])
    assert "| mean of 1 common classes | 0.9000 | 0.9500 |" in table
    table = write_tables(tmp_path, [job("a", "dn2", 0.9), job("b", "dn2", 0.5)])
    assert "| mean | 0.7000 |" in table
    assert "mean" not in write_tables(tmp_path, [job("a", "dn2", 0.9), job("b", "v2", 0.5)])


def test_the_table_compares_the_selected_step_with_the_best_one(tmp_path: Path) -> None:
    table = write_tables(tmp_path, [job("a", "v2", 0.5, 0.8, 0.7, selected_step=2), job("b", "v2", 0.9, 0.8)])
    assert "| a | v2 | 0 | 0.5000 | 2 | 0.7000 | 1 | 0.8000 | 67% |" in table
    assert "| b | v2 | 0 | 0.9000 | 0 | 0.9000 | 0 | 0.9000 | no gain |" in table
    lines = (tmp_path / "table.csv").read_text().splitlines()
    assert lines[0] == "class,method,seed,selected_step,auroc,best_step,best_auroc,seconds"
    assert lines[1] == "a,v2,0,2,0.700000,1,0.800000,"


def test_hours_are_of_all_jobs_of_a_method_and_empty_if_one_is_unknown(tmp_path: Path) -> None:
    jobs = [replace(job(label, "v2", 0.9), seconds=5400.0) for label in "ab"] + [job("a", "dn2", 0.9)]
    assert "| hours |  | 3.0 |" in write_tables(tmp_path, jobs)
    assert "a,v2,0,0,0.900000,0,0.900000,5400.0" in (tmp_path / "table.csv").read_text().splitlines()


def test_a_vertical_bar_in_the_name_of_a_class_is_escaped(tmp_path: Path) -> None:
    rows = write_tables(tmp_path, [job("a|b", "v2", 0.5)]).splitlines()
    # In Markdown, a bar after a backslash is text.
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows[:4]} == {3}
