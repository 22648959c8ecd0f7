"""The pages of a project before its training: which images, and which part of them."""

import asyncio
import itertools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from msc_edge.drawing import encode_image
from msc_edge.errors import UsageError
from msc_edge.files import kind_of, written_whole
from msc_edge.ignore_mask import WHITE
from msc_edge.images import decode_image
from msc_edge.preprocessing import Region
from msc_edge.studio.check_pages import check_values
from msc_edge.studio.checked import CheckResult
from msc_edge.studio.folders import body_of, chosen_folder, image_count, list_folder, receive_file
from msc_edge.studio.images import size_of
from msc_edge.studio.parameters import project_of, whole_number
from msc_edge.studio.removal import Which, dropped_images
from msc_edge.studio.rendering import page, see
from msc_edge.studio.workspace import Project, Workspace

_LEAST_SIDE = 16  # pixels of a region
_MOST_LISTED = 200  # images to choose from
_LARGEST_MASK = 32 << 20  # bytes
_NO_LABELS = frozenset({"ground_truth", "mask", "masks", "normal"})
_LABEL = re.compile(r"\w[\w .\-]{0,59}")


@dataclass(frozen=True)
class ProjectPages:
    """The functions behind the paths of projects."""

    workspace: Workspace

    def routes(self) -> list[Route]:
        """The paths."""
        return [
            Route("/", self.home),
            Route("/projects", self.create, methods=["POST"]),
            Route("/folders", self.folders),
            Route("/projects/{project}", self.overview),
            Route("/projects/{project}/images", self.images),
            Route("/projects/{project}/images", self.choose, methods=["POST"]),
            Route("/projects/{project}/files", self.receive, methods=["PUT"]),
            Route("/projects/{project}/region", self.region),
            Route("/projects/{project}/region", self.choose_region, methods=["POST"]),
            Route("/projects/{project}/mask", self.mask),
            Route("/projects/{project}/mask", self.receive_mask, methods=["PUT"]),
            Route("/projects/{project}/mask/delete", self.delete_mask, methods=["POST"]),
        ]

    def home(self, _: Request) -> Response:
        """All projects."""
        return page("home.html.j2", projects=self.workspace.projects(), folder=str(self.workspace.folder))

    async def create(self, request: Request) -> Response:
        """A new project."""
        form = await request.form()
        project = await asyncio.to_thread(self.workspace.create, str(form.get("name", "")))
        return see("projects", project.name, "images")

    def folders(self, request: Request) -> Response:
        """A part of a page: the folders in a folder of this PC."""
        given = request.query_params.get("path", "")
        listing = list_folder(Path(given) if given else Path.home())
        return page("folders.html.j2", listing=listing)

    def overview(self, request: Request) -> Response:
        """The project: to the first thing that is left to do."""
        project = project_of(self.workspace, request)
        trainings = project.trainings()
        if trainings:
            return see("projects", project.name, "trainings", trainings[0].number)
        return see("projects", project.name, "images" if project.check.state != "done" else "trainings")

    def images(self, request: Request) -> Response:
        """The images, and what of them will be used."""
        project = project_of(self.workspace, request)
        folders = {"normal": project.normal, "test": project.test}
        counts = {which: image_count(folder) for which, folder in folders.items()}
        gone = {which: bool(folder) and kind_of(folder)[0] != "folder" for which, folder in folders.items()}
        dropped = {which: len(dropped_images(project, which)) for which in get_args(Which)}
        return page(
            "images.html.j2",
            project=project,
            tab="images",
            found=counts,
            gone=gone,
            dropped_count=dropped,
            **check_values(project, request),
        )

    async def choose(self, request: Request) -> Response:
        """Another folder of normal or of labelled images; empty: the dropped ones."""
        project, form = project_of(self.workspace, request), await request.form()
        which, text = str(form.get("which")), str(form.get("folder", ""))
        if which not in ("normal", "test"):
            raise UsageError("the form is not complete; load the page again")
        chosen = str(await asyncio.to_thread(chosen_folder, text, self.workspace.folder)) if text.strip() else None
        await asyncio.to_thread(project.change, **{which: chosen})
        return see("projects", project.name, "images")

    async def receive(self, request: Request) -> Response:
        """A dropped image, `name`: normal, or a labelled one with `label`, which is `good` or a defect type."""
        project, which = project_of(self.workspace, request), request.query_params.get("which", "")
        chosen = project.settings.normal if which == "normal" else project.settings.test
        if chosen is not None:
            raise UsageError(
                f"the folder {chosen} is in use, so this file is not stored; use dropped images instead first"
            )
        label = request.query_params.get("label", "")
        folder = project.dropped / "normal" if which == "normal" else project.dropped / "test" / _label(label)
        path = await receive_file(request, folder, request.query_params.get("name", ""))
        return JSONResponse({"name": path.name}, 201)

    def region(self, request: Request) -> Response:
        """Where the region and the ignore mask are drawn."""
        project = project_of(self.workspace, request)
        result = CheckResult.of(project.check)
        present = _present(result)
        index = whole_number(request.query_params.get("image", str(present[0] if present else 0)), "image")
        size = None
        if result and present:
            index = index if index in present else present[0]
            size = size_of(result.path_of(index))
        return page(
            "region.html.j2", project=project, tab="region", size=size, index=index, usable=present, result=result
        )

    async def choose_region(self, request: Request) -> Response:
        """Another region of interest."""
        project, form = project_of(self.workspace, request), await request.form()
        texts = [str(form.get(name, "")).strip() for name in ("x", "y", "width", "height")]
        region = Region.parse(",".join(texts)) if any(texts) else None
        if region is not None:
            await asyncio.to_thread(_check_region, project, region)
        await asyncio.to_thread(project.change, region=region)
        return see("projects", project.name, "region")

    def mask(self, request: Request) -> Response:
        """The ignore mask."""
        project = project_of(self.workspace, request)
        if not project.mask.is_file():
            raise HTTPException(404)
        return Response(project.mask.read_bytes(), media_type="image/png", headers={"Cache-Control": "no-store"})

    async def receive_mask(self, request: Request) -> Response:
        """Another ignore mask: an image, white where parts are not inspected."""
        project = project_of(self.workspace, request)
        await asyncio.to_thread(_write_mask, project, await body_of(request, most=_LARGEST_MASK))
        return JSONResponse({"saved": True}, 201)

    async def delete_mask(self, request: Request) -> Response:
        """Inspect everything."""
        project = project_of(self.workspace, request)
        await asyncio.to_thread(project.mask.unlink, missing_ok=True)
        return see("projects", project.name, "region")


def _present(result: CheckResult | None) -> list[int]:
    """The places of the checked images that training would use and that are still there, the first of them."""
    found = (place for place in result.usable if result.path_of(place).is_file()) if result else iter(())
    return list(itertools.islice(found, _MOST_LISTED))


def _check_region(project: Project, region: Region) -> None:
    """UsageError for a region that is not inside the checked images."""
    result = CheckResult.of(project.check)
    present = _present(result)
    if result is None or not present:
        return
    width, height = size_of(result.path_of(present[0]))
    if not region.fits(height=height, width=width):
        raise UsageError(f"the region is not inside the images, which are {width} x {height} pixels; make it smaller")
    if min(region.width, region.height) < _LEAST_SIDE:
        raise UsageError(f"the region is {region.width} x {region.height} pixels; at least {_LEAST_SIDE} are needed")


def _write_mask(project: Project, data: bytes) -> None:
    mask = decode_image(np.frombuffer(data, np.uint8))
    if not (mask > WHITE).any():
        project.mask.unlink(missing_ok=True)  # nothing is white: everything is inspected
        return
    with written_whole(project.mask) as partial:
        partial.write_bytes(encode_image(mask, ".png"))


def _label(label: str) -> str:
    """The name of the folder of a label. UsageError if it cannot be one."""
    name = label.strip()
    if not name:
        raise UsageError("the defect type is empty; type one, or good for good parts")
    if name.lower() in _NO_LABELS or not _LABEL.fullmatch(name):
        raise UsageError(
            f"{name}: cannot be a defect type; use letters, digits, spaces, '-', '_' and '.', begin with a letter or a "
            "digit, and avoid the names of masks"
        )
    return name
