"""What the path and the fields of a request name."""

import math

from starlette.convertors import IntegerConvertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.requests import Request

from msc_edge.errors import UsageError
from msc_edge.studio.training import Training
from msc_edge.studio.workspace import Comparison, Project, Workspace

_PER_PAGE = 60  # images
_LONGEST_SHOWN = 60  # characters of a wrong text


class _Number(IntegerConvertor):
    """A whole number in the path of a route. One that is too long for a number of Python is not there: 404."""

    regex = "[0-9]{1,9}"


register_url_convertor("number", _Number())


def project_of(workspace: Workspace, request: Request) -> Project:
    """The project in the path of a request. HTTPException 404 if there is none."""
    project = workspace.project(request.path_params["project"])
    if project is None:
        raise HTTPException(404, "there is no such project")
    return project


def training_of(workspace: Workspace, request: Request) -> tuple[Project, Training]:
    """The project and the training in the path of a request. HTTPException 404 if there is none."""
    project = project_of(workspace, request)
    training = project.training(request.path_params["number"])
    if training is None:
        raise HTTPException(404, "there is no such training")
    return project, training


def comparison_of(workspace: Workspace, request: Request) -> Comparison:
    """The comparison in the path of a request. HTTPException 404 if there is none."""
    number = request.path_params["number"]
    found = next((each for each in workspace.comparisons() if each.number == number), None)
    if found is None or not found.job.exists:
        raise HTTPException(404, "there is no such comparison")
    return found


def whole_number(text: str, what: str) -> int:
    """A whole number in a form or an address. UsageError if it is none."""
    if not text.isdecimal() or len(text) > 9:
        raise UsageError(f"{what} {_shown(text)}: expected a whole number")
    return int(text)


def list_page(request: Request, count: int) -> tuple[int, int, slice]:
    """The page of a list of images that a request asks for, from 1; the number of pages; and the places on it."""
    pages = max(1, -(-count // _PER_PAGE))
    number = min(max(1, whole_number(request.query_params.get("page", "1"), "page")), pages)
    return number, pages, slice(_PER_PAGE * (number - 1), _PER_PAGE * number)


def number_in(text: str, what: str) -> float:
    """A number in a form. UsageError if it is none."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UsageError(f"{what} {_shown(text)}: expected a number")
    return value


def _shown(text: str) -> str:
    """What was typed, as a message shows it: plainly, and not all of a very long text."""
    return f"{text[:_LONGEST_SHOWN]}..." if len(text) > _LONGEST_SHOWN else text or "(empty)"
