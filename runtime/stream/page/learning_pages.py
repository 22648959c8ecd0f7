"""Learning from a finding, and undoing it: for engineers."""

from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from msc_edge.errors import UsageError
from msc_edge.runtime.stream.page.audit import AuditLog
from msc_edge.runtime.stream.page.gallery import Gallery
from msc_edge.runtime.stream.page.gallery_pages import finding_of, json_body
from msc_edge.runtime.stream.page.learning import Learning
from msc_edge.runtime.stream.page.people import address_of, require
from msc_edge.runtime.stream.page.rendering import HEADERS


class LearningPages:
    """The changes that `Learning` makes."""

    def __init__(self, gallery: Gallery, learning: Learning, audit: AuditLog) -> None:
        self._gallery, self._learning, self._audit = gallery, learning, audit

    def routes(self) -> list[Route]:
        """The routes of these changes."""
        return [Route("/parts/{number:int}/learn", self.change, methods=["POST"])]

    async def change(self, request: Request) -> Response:
        """Learn from a finding, or undo it. The body: `{"action": "learn" or "undo"}`."""
        user = require(request, "engineer")
        action = (await json_body(request)).get("action")

        def work() -> dict[str, Any]:
            finding = finding_of(request, self._gallery)
            if action not in ("learn", "undo"):
                raise UsageError("the action is learn or undo")
            about = {"who": user.name, "role": user.role, "address": address_of(request), "finding": finding["id"]}
            self._audit.add(f"{action}_asked", **about, source=finding["source"], kit=finding["kit"])
            if action == "learn":
                learned = self._learning.learn(finding, who=user.name)
                facts: dict[str, Any] = {
                    "learned": learned.image.id,
                    "score": learned.before.score,
                    "score_after": learned.after.score,
                    "defects": learned.defects.of,
                    "synthetic": learned.synthetic.of,
                    "synthetic_after": learned.synthetic.after,
                }
            else:
                facts = {"undone": self._learning.undo(finding, who=user.name).id}
            self._audit.add(f"{action}_done", **about, **facts)
            return facts

        return JSONResponse(await run_in_threadpool(work), headers=HEADERS)
