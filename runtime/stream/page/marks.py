"""What operators say about findings: a false alarm, or a defect of a class. Each change is a record of its own.

The frame of a marked finding is copied into the folder `marked` of the state, where no limit of size removes it.
"""

import re
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, get_args

from msc_edge.errors import UsageError, writing
from msc_edge.runtime.stream.page.store import Store
from msc_edge.runtime.stream.sinks.image_store import overlay_path
from msc_edge.text import one_line

Action = Literal["false_alarm", "defect", "withdrawn"]
FOLDER = "marked"
_LONGEST_CLASS = 60


class Marks:
    """The marks of findings. Safe to use from several threads."""

    def __init__(self, store: Store, folder: Path) -> None:
        """`folder`: of the state."""
        self._store, self._folder = store, folder / FOLDER

    def set(
        self, finding: dict[str, Any], action: str, defect: str, *, who: str, audit: Callable[[str | None], None]
    ) -> None:
        """Mark a finding of `Gallery`, change its mark, or withdraw it.

        `defect`: the class, for a defect only. `audit` is called with the class before the change counts; when it
        raises, nothing has changed. UsageError for an action or a class that cannot be used, OutputError when the disk
        does not take the record.
        """
        if action not in get_args(Action):
            raise UsageError("a mark is false_alarm, defect or withdrawn")
        name = _class_of(defect) if action == "defect" else None
        if action == "withdrawn" and finding["mark"] is None:
            raise UsageError("this part has no mark that could be withdrawn")
        kept = None if action == "withdrawn" else self._keep(finding)
        mark = None if action == "withdrawn" else action
        with self._store.transaction(durable=True) as database:
            database.execute(
                "INSERT INTO marks (finding, action, defect, who, time, source, captured, verdict, score, limit_score, "
                "image_score, patch_score, p_value, model, kit, image) "
                "SELECT id, ?, ?, ?, ?, source, time, verdict, score, limit_score, image_score, patch_score, p_value, "
                "model, kit, ? FROM findings WHERE number = ?",
                (action, name, who, time.time(), str(kept) if kept else None, finding["number"]),
            )
            database.execute(
                "UPDATE findings SET mark = ?, defect = ? WHERE number = ?", (mark, name, finding["number"])
            )
            audit(name)
        if action == "withdrawn":
            self._remove(finding)

    def history(self, finding: str) -> Sequence[dict[str, Any]]:
        """All marks of a finding, by the id of its decision, the newest first."""
        with self._store.reading() as database:
            rows = database.execute("SELECT * FROM marks WHERE finding = ? ORDER BY number DESC", (finding,)).fetchall()
        return [dict(row) for row in rows]

    def classes(self) -> list[str]:
        """The classes of defects in use, the most frequent first."""
        with self._store.reading() as database:
            rows = database.execute(
                "SELECT defect FROM findings WHERE mark = 'defect' GROUP BY defect ORDER BY count(*) DESC, defect"
            ).fetchall()
        return [name for (name,) in rows]

    def defects(self, kit: str) -> Sequence[dict[str, Any]]:
        """The findings of a kit that are marked as defects, with `who` has marked them last."""
        with self._store.reading() as database:
            rows = database.execute(
                "SELECT findings.*, "
                "(SELECT who FROM marks WHERE finding = findings.id ORDER BY marks.number DESC LIMIT 1) AS who "
                "FROM findings WHERE mark = 'defect' AND kit = ?",
                (kit,),
            ).fetchall()
        return [dict(row) for row in rows]

    def kept_image(self, finding: dict[str, Any]) -> Path | None:
        """Where the copy of a frame is, or would be; None for a frame that was not saved."""
        if finding["image"] is None:
            return None
        return self._folder / Path(finding["image"]).name

    def _keep(self, finding: dict[str, Any]) -> Path | None:
        """Copy the frame and its overlay; where the copy is. None where the frame is gone."""
        kept = self.kept_image(finding)
        if kept is None or kept.is_file():
            return kept
        saved = Path(finding["image"])
        with writing(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            for source, target in ((overlay_path(saved), overlay_path(kept)), (saved, kept)):
                partial = target.with_name(f".{target.name}.partial")
                try:
                    shutil.copyfile(source, partial)
                    partial.replace(target)
                except FileNotFoundError:  # removed by its limits of size and age, or saved without overlay
                    continue
                finally:
                    partial.unlink(missing_ok=True)
        return kept if kept.is_file() else None

    def _remove(self, finding: dict[str, Any]) -> None:
        if (kept := self.kept_image(finding)) and Path(finding["image"]).is_file():
            for path in (kept, overlay_path(kept)):
                with suppress(OSError):
                    path.unlink(missing_ok=True)


def _class_of(text: str) -> str:
    name = re.sub(r"\s+", " ", text).strip()
    if not name or len(name) > _LONGEST_CLASS or one_line(name) != name:
        raise UsageError(f"name the defect in 1 to {_LONGEST_CLASS} letters, for example: scratch")
    return name
