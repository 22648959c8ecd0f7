"""Removal of dropped images, trainings, comparisons and projects. Nothing outside of the studio's folder is deleted.

What is removed is renamed first, into the folder `.removed` of the studio, and deleted there: it is gone at once, and a
studio that is killed meanwhile deletes the rest at its next start.
"""

import logging
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from msc_edge.errors import OutputError, SourceError, UsageError
from msc_edge.image_files import find_images
from msc_edge.studio.training import KIT, Training
from msc_edge.studio.workspace import Comparison, Project, Workspace
from msc_edge.text import one_line

Which = Literal["normal", "test"]
_TRASH = ".removed"
_LOG = logging.getLogger("msc_edge")


@dataclass(frozen=True)
class DroppedImage:
    """A dropped image."""

    path: Path
    name: str
    """In its folder, with its label: the name on pages."""


def dropped_images(project: Project, which: Which) -> list[DroppedImage]:
    """The dropped normal or labelled images, by name."""
    folder = project.dropped / which
    try:
        paths = find_images([folder]).paths
    except SourceError:  # none
        return []
    return [DroppedImage(path, one_line(path.relative_to(folder).as_posix())) for path in paths]


def remove_dropped(workspace: Workspace, project: Project, which: Which, names: Sequence[str]) -> None:
    """Delete dropped images. UsageError for other names, and while work runs that reads them; else as `remove`."""
    check_idle(workspace, project=project)
    known = {image.name: image.path for image in dropped_images(project, which)}
    if unknown := [name for name in names if name not in known]:
        raise UsageError(f"{unknown[0]}: is not among the dropped images; load the page again")
    for name in names:
        remove(known[name], workspace=workspace)
    folder = project.dropped / which
    for empty in (*sorted({known[name].parent for name in names}, reverse=True), folder):
        with suppress(OSError):  # it is not empty
            empty.rmdir()


def delete_training(workspace: Workspace, training: Training) -> None:
    """Delete a training, and its comparisons. UsageError while it runs; else as `remove`."""
    check_idle(workspace, training)
    for comparison in comparisons_of(workspace, training):
        remove(comparison.folder, workspace=workspace)
    remove(training.folder, workspace=workspace)


def delete_comparison(workspace: Workspace, comparison: Comparison) -> None:
    """Delete a comparison. UsageError while it runs; else as `remove`."""
    check_idle(workspace, comparison=comparison)
    remove(comparison.folder, workspace=workspace)


def delete_project(workspace: Workspace, project: Project) -> None:
    """Delete a project with its dropped images, trainings and comparisons; folders of images elsewhere stay.

    UsageError while work of it runs; else as `remove`.
    """
    check_idle(workspace, project=project)
    for comparison in comparisons_of(workspace, *project.trainings()):
        remove(comparison.folder, workspace=workspace)
    remove(project.folder, workspace=workspace)


def comparisons_of(workspace: Workspace, *trainings: Training) -> list[Comparison]:
    """The comparisons with a kit of one of these trainings."""
    kits = {training.folder / KIT for training in trainings}
    return [each for each in workspace.comparisons() if each.job.exists and kits & set(each.kits)]


def check_idle(
    workspace: Workspace, *trainings: Training, project: Project | None = None, comparison: Comparison | None = None
) -> None:
    """UsageError while work runs that reads or writes a project, trainings or a comparison."""
    trainings = (*trainings, *(project.trainings() if project else ()))
    if project and project.check.state == "running":
        raise UsageError("the check of the images is running; cancel it first, on the page Images")
    for each in trainings:
        if each.job.is_active:
            raise UsageError(f"{each.title} is {each.job.state}; cancel it first, on its page")
    concerned = {*comparisons_of(workspace, *trainings), *((comparison,) if comparison else ())}
    for each in workspace.comparisons():
        reads = project and each.job.exists and Path(each.job.request["test"]).is_relative_to(project.folder)
        if (reads or each in concerned) and each.job.state == "running":
            raise UsageError(f"the comparison of {' and '.join(each.names)} is running; cancel it first, on its page")


def remove(path: Path, *, workspace: Workspace) -> None:
    """Delete a file, or a folder with all that is in it. Of a link, only the link is deleted, also within a folder.

    UsageError for a place outside of the studio's folder, also by a link on the way to it, OutputError from the disk.
    """
    root = workspace.folder
    inside = path.is_relative_to(root) and path != root and ".." not in path.parts
    if not inside or Path(os.path.realpath(path.parent)) != path.parent:
        raise UsageError(
            f"{path}: is not in the folder of the studio, or only by a link, so it is not deleted; delete it there"
        )
    trash = root / _TRASH
    try:
        trash.mkdir(exist_ok=True)
        if trash.is_symlink():
            raise UsageError(f"{trash}: is a link, so nothing is deleted there; remove the link")
        path.rename(trash / secrets.token_hex(8))
    except OSError as error:
        raise OutputError(f"{path}: cannot be removed: {error.strerror}; check the permissions") from error
    empty_trash(workspace)


def empty_trash(workspace: Workspace) -> None:
    """Delete what was removed, also by a studio that was killed meanwhile."""
    trash = workspace.folder / _TRASH
    if trash.is_symlink() or not trash.is_dir():
        return
    shutil.rmtree(trash, ignore_errors=True)  # it does not follow links
    if any(_entries(trash)):
        _LOG.warning("%s", one_line(f"{trash}: cannot be emptied; delete it"))


def _entries(folder: Path) -> Iterator[Path]:
    with suppress(OSError):
        yield from folder.iterdir()
