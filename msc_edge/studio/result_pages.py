"""The pages of a finished training: what each limit would do, its images, and the kit."""

import asyncio
import base64
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from msc_edge.describe import describe_limits, disagree
from msc_edge.drawing import encode_image, fit
from msc_edge.images import decode_image
from msc_edge.kit.layout import thumbnail_file
from msc_edge.kit.opening import Kit
from msc_edge.kit.writing import write_zip
from msc_edge.overlay import overlay
from msc_edge.studio.folders import body_of
from msc_edge.studio.images import LARGE, detector_of, heatmap_response, image_response, scored, side_of
from msc_edge.studio.parameters import number_in, training_of
from msc_edge.studio.rendering import page
from msc_edge.studio.results import Results, ScoredImage
from msc_edge.studio.training import Training
from msc_edge.studio.workspace import Project, Workspace

_SHOWN = 24  # images in a gallery
_LARGEST_IMAGE = 128 << 20  # bytes


@dataclass(frozen=True)
class ResultPages:
    """The functions behind the paths of results."""

    workspace: Workspace

    def routes(self) -> list[Route]:
        """The paths."""
        one = "/projects/{project}/trainings/{number:number}"
        return [
            Route(f"{one}/limit", self.limit),
            Route(f"{one}/kit", self.kit),
            Route(f"{one}/report", self.report),
            Route(f"{one}/images/{{index:number}}", self.image),
            Route(f"{one}/images/{{index:number}}/{{view}}", self.image_file),
            Route(f"{one}/normal/{{row:number}}", self.normal_image),
            Route(f"{one}/try", self.try_image, methods=["POST"]),
        ]

    def limit(self, request: Request) -> Response:
        """A part of a page: what another reject limit would do."""
        project, training = training_of(self.workspace, request)
        return page(
            "limit.html.j2",
            project=project,
            training=training,
            results=(results := finished(training)),
            **at(results, number_in(request.query_params.get("score", ""), "the limit")),
        )

    def kit(self, request: Request) -> Response:
        """The kit, as a .zip. KitError if it is damaged: it must not leave this PC."""
        _, training = training_of(self.workspace, request)
        results = finished(training)
        with Kit.open(results.kit):  # every byte of it: not all damage changes the time of a file
            pass
        file = tempfile.NamedTemporaryFile(suffix=".zip", delete=False)  # noqa: SIM115 (sent after this function)
        file.close()
        path = Path(file.name)
        write_zip(results.kit, path)
        return FileResponse(
            path,
            filename=f"{training.file_name(results.manifest.name)}.zip",
            media_type="application/zip",
            background=BackgroundTask(path.unlink),
        )

    def report(self, request: Request) -> Response:
        """The report of the evaluation, a page that can be sent on."""
        _, training = training_of(self.workspace, request)
        path = training.evaluation and training.evaluation / "report.html"
        if path is None or not path.is_file():
            raise HTTPException(404, "there is no report: no labelled images were chosen")
        return FileResponse(path, media_type="text/html; charset=utf-8")

    def image(self, request: Request) -> Response:
        """One labelled image, large."""
        project, training = training_of(self.workspace, request)
        results = finished(training)
        image = _image(results, request.path_params["index"])
        result, size = scored(image.path, results.kit)
        values = {"results": results, "image": image, "result": result, "size": size}
        return page("image.html.j2", project=project, training=training, tab="trainings", **values)

    def image_file(self, request: Request) -> Response:
        """The pixels of a labelled image, with or without its heatmap."""
        _, training = training_of(self.workspace, request)
        results = finished(training)
        image = _image(results, request.path_params["index"])
        if request.path_params["view"] == "plain":
            return image_response(image.path, side=side_of(request))
        return heatmap_response(image.path, results.kit, side=side_of(request))

    def normal_image(self, request: Request) -> Response:
        """The thumbnail of a normal image of the kit."""
        _, training = training_of(self.workspace, request)
        path = finished(training).kit / thumbnail_file(request.path_params["row"])
        if not path.is_file():
            raise HTTPException(404)
        return FileResponse(path, media_type="image/jpeg")

    async def try_image(self, request: Request) -> Response:
        """The result of any image."""
        project, training = training_of(self.workspace, request)
        return await asyncio.to_thread(self._try, project, training, await body_of(request, most=_LARGEST_IMAGE))

    def _try(self, project: Project, training: Training, data: bytes) -> Response:
        results = finished(training)
        detector = detector_of(results.kit)
        image = decode_image(np.frombuffer(data, np.uint8), detector.manifest.decode)
        result = detector.score_decoded(image)
        drawn = overlay(image, result.grid_map) if result.grid_map else image
        return page(
            "tried.html.j2",
            project=project,
            training=training,
            result=result,
            url=_data_url(drawn),
            size=(image.shape[1], image.shape[0]),
            results=results,
        )


def finished(training: Training) -> Results:
    """The results of a training. HTTPException 404 before it has finished."""
    results = Results.of(training)
    if results is None:
        raise HTTPException(404, "this training has no kit yet")
    return results


def at(results: Results, score: float) -> dict[str, Any]:
    """What the part of the page about one limit shows."""
    warned = results.warned(score)
    galleries = (
        ("Missed defects: not rejected", "wrong", results.missed(score)),
        ("False alarms: good parts rejected", "wrong", results.false_alarms(score)),
        ("False alarms: good parts with a warning only", "wrong", warned),
        ("Nearest to the limit", "near", results.near(score)),
        ("Found defects: rejected", "right", results.found(score)),
    )
    return {
        "score": score,
        "limits": list(describe_limits(results.limits, results.calibration, results.regions)),
        "rate": results.rate_of(score),
        "at": results.at(score),
        "warned": len(warned),
        "types": results.types_at(score),
        "disagreeing": sum(disagree(flagged=image.score > score, regions=image.regions) for image in results.images),
        "galleries": [(*about, found[:_SHOWN], len(found)) for *about, found in galleries if results.images],
    }


def _image(results: Results, index: int) -> ScoredImage:
    image = next((each for each in results.images if each.index == index), None)
    if image is None:
        raise HTTPException(404, "there is no such image")
    return image


def _data_url(image: np.ndarray) -> str:
    """A JPEG of an image, uint8 (height, width, 3), as a data: URL."""
    data = encode_image(fit(image, width=LARGE, height=LARGE), ".jpg", quality=88)
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"
