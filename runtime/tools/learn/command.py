"""`msc-edge learn`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msc_edge.runtime.option_types import FalseAlarmRate, Threshold, TrustedKey

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from msc_edge.errors import MscEdgeError
    from msc_edge.runtime.kept_images import Change, KeptImage
    from msc_edge.runtime.learning.learner import Learned

_LIMITS = "limits"  # in place of the number of an image


def learn(
    kit: Annotated[Path, typer.Argument(metavar="KIT", help="A kit: a folder or a .zip.", show_default=False)],
    add: Annotated[
        list[Path] | None,
        typer.Option(metavar="IMAGE", help="Learn that this image is normal; may be repeated.", show_default=False),
    ] = None,
    defect: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="IMAGE",
            help="Keep a confirmed defect: nothing that makes it look normal is learned. May be repeated.",
            show_default=False,
        ),
    ] = None,
    undo: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ID",
            help="Let an image count no more: scores are as without it; may be repeated. The word limits in place of "
            "an ID: the station limits.",
            show_default=False,
        ),
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="Show what was learned and what guards it.")] = False,
    reason: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Why, for the record; needed to change anything.")
    ] = None,
    by: Annotated[
        str | None, typer.Option(metavar="NAME", help="Who, for the record.", show_default="the user of this PC")
    ] = None,
    per_day: Annotated[int, typer.Option(min=1, help="Most images that are learned in a day.")] = 20,
    threshold: Threshold = None,
    false_alarm_rate: FalseAlarmRate = None,
    trusted_key: TrustedKey = None,
) -> None:
    """Teach a kit that parts which it rejects are normal, on this station only, and take it back.

    What is learned lies in one file beside the kit, which stays as it is. An image is learned only if no confirmed
    defect gets a milder verdict, and nearly all synthetic anomalies stay rejected. Running streams use it within a
    second.

    Exit codes: 0 done, or an image is normal already, 2 usage, or an image was not learned, 3 an image cannot be read,
    4 the kit, or the file with what was learned, is damaged, 5 the file cannot be written.
    """
    from msc_edge.errors import UsageError
    from msc_edge.runtime.station import user_name
    from msc_edge.text import valid_text

    given = {"--add": add, "--defect": defect, "--undo": undo, "--list": list_}
    actions = [name for name, value in given.items() if value]
    if len(actions) != 1:
        raise UsageError(
            f"{' and '.join(actions)} exclude each other" if actions else f"say what to do: {', '.join(given)}"
        )
    if list_:
        _show_list(kit, trusted_key)
        return
    if reason is None or not reason.strip():
        raise UsageError(f"{actions[0]} needs a --reason, for the record, such as 'new supplier'")
    who, why = valid_text(by or user_name()), valid_text(reason)
    if undo:
        _undo(kit, undo, by=who, reason=why, trusted_key=trusted_key)
        return
    from msc_edge.runtime.learning.learner import Learner

    with Learner(
        kit, threshold=threshold, false_alarm_rate=false_alarm_rate, trusted_key=trusted_key, per_day=per_day
    ) as learner:
        if defect:
            refused = _each(defect, lambda path: _kept(*learner.keep_defect(path, by=who, reason=why)))
        else:
            refused = _each(add or (), lambda path: _learned(learner.add(path, by=who, reason=why)))
    if refused:
        raise refused


def _each(paths: "Sequence[Path]", act: "Callable[[Path], None]") -> "MscEdgeError | None":
    """Act on each image; the error to end with, if there is one. One image does not stop the others."""
    from msc_edge.errors import AlreadyNormalError, KitError, MscEdgeError, OutputError, UsageError
    from msc_edge.terminal import echo
    from msc_edge.text import one_line

    errors: list[MscEdgeError] = []
    for path in paths:
        try:
            act(path)
        except AlreadyNormalError as error:
            echo(one_line(str(error)))
        except (OutputError, KitError):
            raise
        except MscEdgeError as error:
            errors.append(error)
            if len(paths) > 1:
                echo(one_line(f"refused: {error}"), err=True)
    if not errors or len(paths) == 1:
        return errors[0] if errors else None
    return UsageError(f"{len(errors)} of {len(paths)} images were refused; the others count, or are normal already")


def _learned(learned: "Learned") -> None:
    from msc_edge.terminal import echo
    from msc_edge.text import many, one_line

    before, after = learned.before, learned.after
    scores = f"score {before.score:.6g} -> {after.score:.6g}, limit {after.limit:.6g}"
    patches = many(learned.patches, "patch", "patches")
    echo(
        one_line(
            f"{learned.image.name}: learned as number {learned.image.id}, with {patches}: {before.verdict} -> "
            f"{after.verdict}, {scores}"
        )
    )
    for name, kept in (("confirmed defects", learned.defects), ("synthetic anomalies", learned.synthetic)):
        if kept.of:
            echo(f"  {name} rejected by the kit: {kept.of}; before {kept.before}, now {kept.after} of them")
        else:
            echo(f"  {name}: none that the kit rejects")


def _kept(image: "KeptImage", verdict: str) -> None:
    from msc_edge.terminal import echo
    from msc_edge.text import one_line

    guards = "" if verdict == "reject" else f"; the kit does not reject it ({verdict}), so it guards little"
    echo(one_line(f"{image.name}: kept as number {image.id}, a confirmed defect{guards}"))


def _undo(kit: Path, what: "Sequence[str]", *, by: str, reason: str, trusted_key: Path | None) -> None:
    from msc_edge.errors import UsageError
    from msc_edge.kit.opening import Kit
    from msc_edge.runtime.additions_file import AdditionsFile
    from msc_edge.runtime.kept_images import Change
    from msc_edge.terminal import echo
    from msc_edge.text import one_line

    for each in what:
        if each != _LIMITS and not (each.isascii() and each.isdecimal()):
            raise UsageError(f"--undo {each}: expected the number of an image, as --list shows it, or {_LIMITS}")
    change = Change.now(by, reason)
    with Kit.open(kit, trusted_key=trusted_key) as opened, AdditionsFile.open(kit, opened.identity) as file:
        for each in what:
            if each == _LIMITS:
                echo(f"{file.undo_limits(change).name} count no more: the limits of the kit do")
            else:
                undone = file.undo(int(each), change)
                echo(one_line(f"{undone.name}: number {undone.id} counts no more"))
        limits = file.limits()
        if withdrawn := limits and limits.withdrawn(file.images()):
            echo(one_line(f"warning: {withdrawn}"), err=True)


def _show_list(kit: Path, trusted_key: Path | None) -> None:
    from msc_edge.kit.opening import Kit
    from msc_edge.runtime.additions_database import additions_path, renamed_additions
    from msc_edge.runtime.additions_file import AdditionsFile
    from msc_edge.terminal import echo
    from msc_edge.text import many, one_line

    with Kit.open(kit, trusted_key=trusted_key) as opened:
        identity = opened.identity
    images, limits = [], None
    if additions_path(kit, identity).exists() or renamed_additions(kit, identity):
        with AdditionsFile.open(kit, identity) as file:
            images, limits = file.images(), file.limits()
    if not images:
        echo(one_line(f"{kit}: this station has learned nothing for it"))
        return
    for image in images:
        what = "learned" if image.kind == "addition" else "defect "
        line = f"{image.id:>4}  {what}  {image.name}: {_told(image.added)}"
        echo(one_line(f"{line}; undone {_told(image.undone)}" if image.undone else line))
    if limits:
        echo(one_line(f"      limits   with {many(len(limits.learned), 'learned image')}: {_told(limits.made)}"))
        if withdrawn := limits.withdrawn(images):
            echo(one_line(f"warning: {withdrawn}"), err=True)
    counted = [image.kind for image in images if image.undone is None]
    learned, defects = (counted.count(kind) for kind in ("addition", "defect"))
    found = f"{many(learned, 'learned image')}, {many(defects, 'confirmed defect')}"
    echo(one_line(f"{additions_path(kit, identity)}: {found}"))


def _told(change: "Change") -> str:
    return f"{change.time} by {change.by}: {change.reason}"
