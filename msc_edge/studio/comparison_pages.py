"""The pages of comparisons: two kits on the same images."""

import asyncio
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from msc_edge.describe import disagree
from msc_edge.errors import UsageError
from msc_edge.runtime.tools.compare import comparison
from msc_edge.studio.folders import chosen_labelled
from msc_edge.studio.images import heatmap_response, side_of
from msc_edge.studio.parameters import comparison_of
from msc_edge.studio.rendering import page, see
from msc_edge.studio.training import Training
from msc_edge.studio.training_settings import differing
from msc_edge.studio.workspace import Workspace

_SHOWN = 60  # images with different verdicts


@dataclass(frozen=True)
class ComparisonPages:
    """The functions behind the paths of comparisons."""

    workspace: Workspace

    def routes(self) -> list[Route]:
        """The paths."""
        one = "/comparisons/{number:number}"
        return [
            Route("/comparisons", self.comparisons),
            Route("/comparisons", self.start, methods=["POST"]),
            Route(one, self.comparison),
            Route(f"{one}/progress", self.progress),
            Route(f"{one}/cancel", self.cancel, methods=["POST"]),
            Route(f"{one}/resume", self.resume, methods=["POST"]),
            Route(f"{one}/images/{{index:number}}/{{side:number}}", self.image),
        ]

    def comparisons(self, _: Request) -> Response:
        """All comparisons, and the form of a new one.

        The first choice: the two newest kits of one project, where there are two, on its labelled images.
        """
        done = [each for each in self.workspace.comparisons() if each.job.exists]
        kits, tests = self._kits(), self._tests()
        names = list(kits)
        pairs = itertools.pairwise(names)
        chosen = next((pair for pair in pairs if kits[pair[0]].project == kits[pair[1]].project), names[:2])
        projects = [kits[name].project for name in chosen]
        test = next((project for project in projects if project in tests), None)
        return page(
            "comparisons.html.j2",
            kits=kits,
            settings=differing(kits.values()),
            tests=tests,
            chosen=chosen,
            test=test,
            comparisons=done,
        )

    def _kits(self) -> Mapping[str, Training]:
        """The trainings that have a kit, by their names on pages; those of a project follow each other."""
        trainings = [training for project in self.workspace.projects() for training in project.trainings()]
        return {training.title: training for training in trainings if training.kit}

    def _tests(self) -> Mapping[str, Path]:
        """The folders of labelled images, by the names of their projects."""
        return {project.name: test for project in self.workspace.projects() if (test := project.test)}

    async def start(self, request: Request) -> Response:
        """Compare two kits."""
        form = await request.form()
        kits = self._kits()
        first, second = (kits.get(str(form.get(name))) for name in ("first", "second"))
        if first is None or second is None or first == second:
            raise UsageError("choose two different kits")
        typed = str(form.get("folder", "")).strip()
        test = self._tests().get(str(form.get("test")))
        if typed:
            test = await asyncio.to_thread(chosen_labelled, typed, self.workspace.folder)
        if test is None:
            raise UsageError("choose the images: those of a project, or a folder with good/ and defect types")
        made = await asyncio.to_thread(self.workspace.new_comparison)
        start = made.job.start
        await asyncio.to_thread(start, "compare", first=str(first.kit), second=str(second.kit), test=str(test))
        return see("comparisons", made.number)

    def comparison(self, request: Request) -> Response:
        """One comparison."""
        found = comparison_of(self.workspace, request)
        values: dict[str, Any] = {}
        if found.job.state == "done":
            result = comparison.Comparison.model_validate(found.job.result)
            shown = [(position, result.images[position]) for position in result.differing[:_SHOWN]]
            values = {"result": result, "differing": shown, "differing_count": len(result.differing)}
            values["disagreeing"] = any(
                disagree(flagged=verdict != "normal", regions=regions)
                for _, image in shown
                for verdict, regions in zip(image.verdicts, image.regions, strict=True)
            )
        return page(
            "comparison.html.j2", comparison=found, job=found.job, settings=differing(found.trainings), **values
        )

    def progress(self, request: Request) -> Response:
        """A part of a page: the progress."""
        found = comparison_of(self.workspace, request)
        return page("progress.html.j2", job=found.job, comparison=found)

    async def cancel(self, request: Request) -> Response:
        """Stop a comparison."""
        found = comparison_of(self.workspace, request)
        await asyncio.to_thread(found.job.cancel)
        return see("comparisons", found.number)

    async def resume(self, request: Request) -> Response:
        """Do a comparison again."""
        found = comparison_of(self.workspace, request)
        await asyncio.to_thread(found.job.resume)
        return see("comparisons", found.number)

    def image(self, request: Request) -> Response:
        """An image with the heatmap of one of the two kits, side 0 or 1."""
        found, index, side = (
            comparison_of(self.workspace, request),
            request.path_params["index"],
            request.path_params["side"],
        )
        images = found.job.result and found.job.result["images"]
        if not images or index >= len(images) or side not in (0, 1):
            raise HTTPException(404)
        return heatmap_response(Path(images[index]["path"]), found.kits[side], side=side_of(request))
