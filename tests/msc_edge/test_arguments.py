from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from msc_edge.arguments import (
    check_functions,
    described,
    functions_argument,
    number_argument,
    path_argument,
    paths_argument,
    whole_argument,
)
from msc_edge.errors import UsageError


@pytest.mark.parametrize("value", ["a/b", Path("a/b")])
def test_a_path_is_text_or_a_path(value):
    assert path_argument("kit", value, "'kit'") == Path("a/b")


@pytest.mark.parametrize(
    ("value", "shown"),
    [(3, "3"), (None, "None"), (b"kit", "b'kit'"), (["kit"], "of the type list"), (np.zeros(3), "of the type ndarray")],
)
def test_anything_else_is_no_path(value, shown):
    with pytest.raises(UsageError, match=rf"^kit is {shown}; expected a path as text or pathlib.Path, such as 'kit'$"):
        path_argument("kit", value, "'kit'")


def test_an_empty_path_is_refused():
    with pytest.raises(UsageError, match="kit is empty, perhaps from a variable that is not set; pass a path"):
        path_argument("kit", "", "'kit'")


@pytest.mark.parametrize("value", ["a", Path("a"), ["a"], (Path("a"),), {"a": 1}])
def test_paths_are_one_or_several(value):
    assert list(map(Path, paths_argument("paths", value, "'images'"))) == [Path("a")]


@pytest.mark.parametrize(
    ("value", "message"),
    [(None, "paths is None; expected a path or a list"), (b"a", "paths is b'a'"), (["a", 3], r"paths\[1\] is 3")],
)
def test_other_paths_are_refused(value, message):
    with pytest.raises(UsageError, match=message):
        paths_argument("paths", value, "'images'")


@pytest.mark.parametrize("value", [0.5, np.float32(0.5), np.float64(0.5), Fraction(1, 2)])
def test_a_number_is_a_float(value):
    found = number_argument("threshold", value, 0.2)
    assert (found, type(found)) == (0.5, float)


def test_a_number_that_no_float_can_have_is_infinite():
    assert [number_argument("threshold", sign * 10**400, 0.2) for sign in (1, -1)] == [float("inf"), float("-inf")]


@pytest.mark.parametrize("value", ["0.5", None, True, [0.5], 1j, np.zeros(1)])
def test_other_numbers_are_refused(value):
    with pytest.raises(UsageError, match=r"^threshold is .*; expected a number, such as 0\.2$"):
        number_argument("threshold", value, 0.2)


@pytest.mark.parametrize("value", [2, np.int64(2), np.uint8(2)])
def test_a_whole_number_is_an_int(value):
    found = whole_argument("threads", value, least=1)
    assert (found, type(found)) == (2, int)


@pytest.mark.parametrize("value", ["2", 2.0, True, None, np.bool_(True), 0, 5])
def test_other_whole_numbers_are_refused(value):
    with pytest.raises(UsageError, match=r"^threads is .*; expected a whole number from 1 to 4$"):
        whole_argument("threads", value, least=1, most=4)


def test_functions():
    check_functions(report=print, on_image=None)
    assert functions_argument("on_result", [print, len]) == (print, len)
    with pytest.raises(UsageError, match="report is 3; expected a function"):
        check_functions(report=3)  # pyright: ignore[reportArgumentType]
    with pytest.raises(UsageError, match=r"on_result is of the type builtin_function_or_method; expected a list"):
        functions_argument("on_result", print)
    with pytest.raises(UsageError, match=r"on_result\[1\] is 'x'; expected a function"):
        functions_argument("on_result", [print, "x"])


def test_a_long_value_is_cut():
    assert len(described("x" * 1000)) == 60
