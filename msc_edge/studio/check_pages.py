"""The check of the images: its part of the page of images, and the files that it shows."""

import asyncio
from dataclasses import dataclass
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from msc_edge.errors import UsageError
from msc_edge.studio.checked import KINDS, Changes, CheckResult
from msc_edge.studio.images import side_of, thumbnail_response
from msc_edge.studio.parameters import list_page, project_of
from msc_edge.studio.rendering import page, see
from msc_edge.studio.workspace import Project, Workspace

_LEAKED_SHOWN = 24


@dataclass(frozen=True)
class CheckPages:
    """The functions behind the paths of checks."""

    workspace: Workspace

    def routes(self) -> list[Route]:
        """The paths."""
        return [
            Route("/projects/{project}/check", self.start, methods=["POST"]),
            Route("/projects/{project}/check", self.check),
            Route("/projects/{project}/check/cancel", self.cancel, methods=["POST"]),
            Route("/projects/{project}/normal/{index:number}", self.normal_image),
            Route("/projects/{project}/leaked/{index:number}", self.leaked_image),
        ]

    async def start(self, request: Request) -> Response:
        """Start the check of the images."""
        project = project_of(self.workspace, request)
        if project.normal is None:
            raise UsageError("no normal images are chosen; choose a folder, or drop images")
        project.check_folders()
        test = project.test
        start = project.check.start
        await asyncio.to_thread(start, "check", normal=str(project.normal), test=test and str(test))
        return see("projects", project.name, "images")

    def check(self, request: Request) -> Response:
        """A part of the page of images: the check."""
        project = project_of(self.workspace, request)
        return page("check.html.j2", project=project, **check_values(project, request))

    async def cancel(self, request: Request) -> Response:
        """Stop the check."""
        project = project_of(self.workspace, request)
        await asyncio.to_thread(project.check.cancel)
        return see("projects", project.name, "images")

    def normal_image(self, request: Request) -> Response:
        """A checked normal image."""
        result, index = self._result(request), request.path_params["index"]
        if index >= len(result.images):
            raise HTTPException(404)
        return thumbnail_response(result.path_of(index), side=side_of(request))

    def leaked_image(self, request: Request) -> Response:
        """A labelled image that is also a normal image."""
        result, index = self._result(request), request.path_params["index"]
        if index >= len(result.leaked):
            raise HTTPException(404)
        return thumbnail_response(result.leaked_path(index), side=side_of(request))

    def _result(self, request: Request) -> CheckResult:
        result = CheckResult.of(project_of(self.workspace, request).check)
        if result is None:
            raise HTTPException(404)
        return result


def check_values(project: Project, request: Request) -> dict[str, Any]:
    """What the part of the page about the check shows."""
    job, result = project.check, CheckResult.of(project.check)
    values = {"job": job, "result": result}
    if result is None:
        return values
    shown = request.query_params.get("show", "all")
    shown = shown if shown in KINDS else "all"
    matching = result.shown(shown)
    number, pages, places = list_page(request, len(matching))
    return values | {
        "is_current": result.normal == str(project.normal) and result.test == (project.test and str(project.test)),
        "changes": Changes.since(result),
        "counts": {kind: len(result.shown(kind)) for kind in KINDS},
        "shown": shown,
        "matching": matching[places],
        "number": number,
        "pages": pages,
        "sizes": result.group_sizes,
        "leaked": list(enumerate(result.leaked))[:_LEAKED_SHOWN],
    }
