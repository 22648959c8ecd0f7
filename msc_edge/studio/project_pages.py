"""The pages of a project before its training: which images, and which part of them."""

import asyncio
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from msc_edge.errors import MscEdgeError, UsageError
from msc_edge.files import kind_of
from msc_edge.preprocessing import Region
from msc_edge.studio.check_pages import check_values
from msc_edge.studio.checked import CheckResult
from msc_edge.studio.folders import body_of, chosen_labelled, chosen_normal, image_count, list_folder, receive_file
from msc_edge.studio.images import size_of
from msc_edge.studio.inspected import present, store_mask, store_region
from msc_edge.studio.parameters import project_of, whole_number
from msc_edge.studio.removal import Which, dropped_images
from msc_edge.studio.rendering import page, see
from msc_edge.studio.wording import in_words_of_page
from msc_edge.studio.workspace import Workspace

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
        chosen = None
        if text.strip():
            with _on_page("Images"):
                choose = chosen_normal if which == "normal" else chosen_labelled
                chosen = str(await asyncio.to_thread(choose, text, self.workspace.folder))
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
        usable = present(result)
        index = whole_number(request.query_params.get("image", str(usable[0] if usable else 0)), "image")
        size = None
        if result and usable:
            index = index if index in usable else usable[0]
            size = size_of(result.path_of(index))
        return page(
            "region.html.j2", project=project, tab="region", size=size, index=index, usable=usable, result=result
        )

    async def choose_region(self, request: Request) -> Response:
        """Another region of interest."""
        project, form = project_of(self.workspace, request), await request.form()
        with _on_page("Region"):
            await asyncio.to_thread(store_region, project, _region_in(form))
        return see("projects", project.name, "region")

    def mask(self, request: Request) -> Response:
        """The ignore mask."""
        project = project_of(self.workspace, request)
        if not project.mask.is_file():
            raise HTTPException(404)
        return Response(project.mask.read_bytes(), media_type="image/png", headers={"Cache-Control": "no-store"})

    async def receive_mask(self, request: Request) -> Response:
        """Another ignore mask: an image, white where parts are not inspected; the query may have another region."""
        project, query = project_of(self.workspace, request), request.query_params
        body = await body_of(request, most=_LARGEST_MASK)
        with _on_page("Region"):
            region = _region_in(query) if "x" in query else project.settings.region
            ignores = await asyncio.to_thread(store_mask, project, body, region)
        return JSONResponse({"ignores": ignores}, 201)

    async def delete_mask(self, request: Request) -> Response:
        """Inspect everything."""
        project = project_of(self.workspace, request)
        await asyncio.to_thread(project.mask.unlink, missing_ok=True)
        return see("projects", project.name, "region")


def _region_in(fields: Mapping[str, object]) -> Region | None:
    """The region in a form; None where it is empty. UsageError if it is not whole numbers."""
    texts = [str(fields.get(name, "")).strip() for name in ("x", "y", "width", "height")]
    return Region.parse(",".join(texts)) if any(texts) else None


@contextmanager
def _on_page(name: str) -> Iterator[None]:
    """Errors within, in the words of the page of this name, where the user is."""
    try:
        yield
    except MscEdgeError as error:
        raise UsageError(in_words_of_page(str(error), name)) from error


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
