"""The pages that delete: each names what would go and what stays, and deletes after a confirmation only."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from msc_edge.errors import KitError, UsageError
from msc_edge.studio.images import side_of, thumbnail_response
from msc_edge.studio.parameters import comparison_of, list_page, project_of, training_of
from msc_edge.studio.removal import (
    Which,
    check_idle,
    comparisons_of,
    delete_comparison,
    delete_project,
    delete_training,
    dropped_images,
    remove_dropped,
)
from msc_edge.studio.rendering import page, see
from msc_edge.studio.workspace import Project, Workspace
from msc_edge.text import many


@dataclass(frozen=True)
class _Removal:
    """What a confirmation shows, and what it does."""

    title: str
    goes: Sequence[str]
    stays: Sequence[str]
    button: str
    action: Callable[[], None]
    back: tuple[str | int, ...]
    """The parts of the path of the page before."""
    then: tuple[str | int, ...]
    """And of that after the removal."""
    fields: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class RemovalPages:
    """The functions behind the paths of removal."""

    workspace: Workspace

    def routes(self) -> list[Route]:
        """The paths."""
        both = ["GET", "POST"]
        return [
            Route("/projects/{project}/delete", self.project, methods=both),
            Route("/projects/{project}/trainings/{number:number}/delete", self.training, methods=both),
            Route("/comparisons/{number:number}/delete", self.comparison, methods=both),
            Route("/projects/{project}/dropped/{which}", self.dropped),
            Route("/projects/{project}/dropped/{which}/image", self.image),
            Route("/projects/{project}/dropped/{which}/delete", self.remove, methods=["POST"]),
        ]

    async def project(self, request: Request) -> Response:
        """Delete a project."""
        project = project_of(self.workspace, request)
        check_idle(self.workspace, project=project)
        trainings = project.trainings()
        dropped = sum(len(dropped_images(project, which)) for which in get_args(Which))
        comparisons = comparisons_of(self.workspace, *trainings)
        try:
            chosen = [text for text in (project.settings.normal, project.settings.test) if text]
        except KitError:  # a damaged project can be deleted, too
            chosen = []
        return await _confirmed(
            request,
            _Removal(
                title=f"Delete the project {project.name}?",
                goes=[
                    "the settings of the project, its region and its ignore mask",
                    *([many(len(trainings), "training") + ", with kits and evaluations"] if trainings else []),
                    *([many(dropped, "dropped image")] if dropped else []),
                    *([many(len(comparisons), "comparison") + " with its kits"] if comparisons else []),
                ],
                stays=[f"The images in {folder} stay." for folder in chosen],
                button="Delete the project",
                action=lambda: delete_project(self.workspace, project),
                back=("projects", project.name, "images"),
                then=(),
            ),
        )

    async def training(self, request: Request) -> Response:
        """Delete a training."""
        project, training = training_of(self.workspace, request)
        check_idle(self.workspace, training)
        comparisons = comparisons_of(self.workspace, training)
        return await _confirmed(
            request,
            _Removal(
                title=f"Delete training {training.number} of {project.name}?",
                goes=[
                    "its kit and its evaluation" if training.kit else "its run",
                    *([many(len(comparisons), "comparison") + " with its kit"] if comparisons else []),
                ],
                stays=["The images stay, and kits that were downloaded."],
                button="Delete the training",
                action=lambda: delete_training(self.workspace, training),
                back=("projects", project.name, "trainings", training.number),
                then=("projects", project.name, "trainings"),
            ),
        )

    async def comparison(self, request: Request) -> Response:
        """Delete a comparison."""
        comparison = comparison_of(self.workspace, request)
        check_idle(self.workspace, comparison=comparison)
        return await _confirmed(
            request,
            _Removal(
                title="Delete the comparison?",
                goes=[f"the comparison of {' and '.join(comparison.names)}"],
                stays=["Both kits and the images stay."],
                button="Delete the comparison",
                action=lambda: delete_comparison(self.workspace, comparison),
                back=("comparisons", comparison.number),
                then=("comparisons",),
            ),
        )

    def dropped(self, request: Request) -> Response:
        """The dropped images, to choose those that are removed."""
        project, which = self._of(request)
        images = dropped_images(project, which)
        number, pages, places = list_page(request, len(images))
        values = {"which": which, "images": images[places], "count": len(images), "number": number, "pages": pages}
        return page("dropped.html.j2", project=project, tab="images", **values)

    def image(self, request: Request) -> Response:
        """A dropped image."""
        project, which = self._of(request)
        name = request.query_params.get("name", "")
        found = next((image.path for image in dropped_images(project, which) if image.name == name), None)
        if found is None:
            raise HTTPException(404)
        return thumbnail_response(found, side=side_of(request))

    async def remove(self, request: Request) -> Response:
        """Delete dropped images: those that were chosen, or all."""
        project, which = self._of(request)
        check_idle(self.workspace, project=project)
        form = await request.form()
        images = await asyncio.to_thread(dropped_images, project, which)
        names = [image.name for image in images] if form.get("all") else [str(name) for name in form.getlist("name")]
        if not names:
            raise UsageError("no image is chosen; choose those to remove")
        used = [each.number for each in project.trainings() if str(project.dropped / which) in each.plan.folders]
        return await _confirmed(
            request,
            _Removal(
                title=f"Remove {many(len(names), 'dropped image')}?",
                goes=names,
                stays=[
                    f"{many(len(used), 'training')} of this project used dropped images. Kits stay as they are, but "
                    "without these images a training cannot be exported again, and its page cannot show them."
                ]
                if used
                else [],
                button=f"Remove {many(len(names), 'image')}",
                action=lambda: remove_dropped(self.workspace, project, which, names),
                back=("projects", project.name, "dropped", which),
                then=("projects", project.name, "images"),
                fields=[("name", name) for name in names],
            ),
            form,
        )

    def _of(self, request: Request) -> tuple[Project, Which]:
        which = request.path_params["which"]
        if which not in get_args(Which):
            raise HTTPException(404)
        return project_of(self.workspace, request), which


async def _confirmed(request: Request, removal: _Removal, form: FormData | Mapping[str, str] | None = None) -> Response:
    """The question, and after its form was sent, the removal. A GET never deletes."""
    if request.method == "POST":
        form = form or await request.form()
        if form.get("confirmed"):
            await asyncio.to_thread(removal.action)
            return see(*removal.then)
    return page("confirm.html.j2", removal=removal, path=request.url.path)
