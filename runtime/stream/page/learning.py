"""Learning from the page: a false alarm becomes a normal image of the station, and is undone; see docs/learning.md.

Defects that operators have confirmed guard it: before something is learned, the station keeps all of them.
"""

import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from msc_edge.errors import MscEdgeError, UsageError
from msc_edge.kit.opening import KitIdentity
from msc_edge.runtime.additions_database import additions_path
from msc_edge.runtime.additions_file import AdditionsFile
from msc_edge.runtime.kept_images import Change, KeptImage
from msc_edge.runtime.learning.learner import Learned, Learner
from msc_edge.runtime.stream.page.marks import Marks

_REASON = "marked on the page"


class Learning:
    """Teaches the kits of a stream, one image at a time. Safe to use from several threads."""

    def __init__(self, marks: Marks, kits: Callable[[], Mapping[str, Path]]) -> None:
        """`kits`: the kits in use, by SHA-256."""
        self._marks, self._kits = marks, kits
        self._busy = threading.Lock()

    def learned(self, finding: dict[str, Any]) -> KeptImage | None:
        """What was learned from a finding and counts; None where nothing was, or its kit is not in use."""
        kit, image = self._kits().get(finding["kit"]), self._marks.kept_image(finding)
        if kit is None or image is None:
            return None
        identity = KitIdentity(kit.name, finding["kit"])
        if not additions_path(kit, identity).exists():
            return None
        with suppress(MscEdgeError), AdditionsFile.open(kit, identity) as file:  # the stream reports these
            kept = (each for each in file.images() if each.kind == "addition" and each.undone is None)
            return next((each for each in kept if each.name == image.name), None)

    def learn(self, finding: dict[str, Any], *, who: str) -> Learned:
        """Learn from a finding that is marked as a false alarm, at the limit that it was scored with.

        UsageError with the reason where it is not learned; see `Learner.add`.
        """
        if finding["mark"] != "false_alarm":
            raise UsageError("mark this part as a false alarm first")
        kit, image = self._kit_of(finding), self._marks.kept_image(finding)
        if image is None or not image.is_file():
            raise UsageError("the image of this part was not saved, so it cannot be learned")
        with self._busy, Learner(kit, threads=1, threshold=finding["limit_score"]) as learner:
            self._keep_defects(learner, finding["kit"])
            return learner.add(image, by=who, reason=f"false alarm, {_REASON}")

    def undo(self, finding: dict[str, Any], *, who: str) -> KeptImage:
        """Let what was learned from a finding count no more. UsageError where nothing was."""
        learned = self.learned(finding)
        if learned is None:
            raise UsageError("nothing was learned from this part that counts")
        kit = self._kit_of(finding)
        with self._busy, AdditionsFile.open(kit, KitIdentity(kit.name, finding["kit"])) as file:
            return file.undo(learned.id, Change.now(who, _REASON))

    def _kit_of(self, finding: dict[str, Any]) -> Path:
        kit = self._kits().get(finding["kit"])
        if kit is None:
            raise UsageError("the kit that scored this part is not in use any more")
        return kit

    def _keep_defects(self, learner: Learner, kit: str) -> None:
        """Keep the defects that are marked now, and no others that were marked here."""
        marked = {
            path.name: (path, finding)
            for finding in self._marks.defects(kit)
            if (path := self._marks.kept_image(finding)) and path.is_file()
        }
        for kept in learner.file.images():
            if kept.kind == "defect" and kept.undone is None and kept.added.reason.endswith(_REASON):
                if kept.name not in marked:
                    learner.file.undo(kept.id, Change.now(kept.added.by, "its mark was withdrawn or changed"))
                marked.pop(kept.name, None)
        for path, finding in marked.values():
            with suppress(UsageError):  # it is kept already, or learned: then its mark came too late
                learner.keep_defect(path, by=finding["who"] or "", reason=f"{finding['defect']}, {_REASON}")
