"""The whole benchmark: every class, method and seed, each kept as soon as it is finished."""

import hashlib
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torchvision

from msc_edge.errors import KitError, SourceError, UsageError, writing
from msc_edge.files import folder_written_whole, sha256_of, written_whole
from msc_edge.progress import Report, silent
from msc_edge.train.one_vs_rest.protocol import (
    Method,
    ProtocolOptions,
    Split,
    check,
    read_jobs,
    run_job,
    splits_of,
    write_job,
)
from msc_edge.train.one_vs_rest.tables import write_tables
from msc_edge.train.run_folder import folder_lock
from msc_edge.train.weights import pretrained_weights

_SETTINGS = "settings.json"
_DATA = "data"  # where --dataset puts what it fetches
_SETS = {
    "cifar10": torchvision.datasets.CIFAR10,
    "cifar100": torchvision.datasets.CIFAR100,
    "fashion_mnist": torchvision.datasets.FashionMNIST,
    "svhn": torchvision.datasets.SVHN,
}


def run_protocol(
    train: Path,
    test: Path,
    out: Path,
    options: ProtocolOptions,
    *,
    classes: Sequence[str],
    methods: Sequence[Method],
    seeds: int,
    report: Report = silent,
) -> str:
    """Run what is not finished yet and write the tables into `out`; the table as Markdown.

    Raises UsageError when `out` holds jobs of other settings.
    """
    splits = splits_of(train, test, classes, images=options.images)
    check(splits, methods, options)
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    with folder_lock(out):
        _claim(out, options, splits, train=train, test=test)
        return _run(splits, methods, seeds, options, train=train, test=test, out=out, report=report)


def _run(
    splits: Sequence[Split],
    methods: Sequence[Method],
    seeds: int,
    options: ProtocolOptions,
    *,
    train: Path,
    test: Path,
    out: Path,
    report: Report,
) -> str:
    finished = {(job.label, job.method, job.seed): job for job in read_jobs(out)}
    for split in splits:
        for method in methods:
            # The frozen network is the same for all seeds.
            for seed in range(1 if method == "dn2" else seeds):
                if (split.name, method, seed) in finished:
                    continue
                with tempfile.TemporaryDirectory(prefix="msc-edge-benchmark-") as scratch:
                    job = run_job(
                        split, method, seed, options, train=train, test=test, folder=Path(scratch), report=report
                    )
                write_job(out, job)
                finished[split.name, method, seed] = job
                write_tables(out, finished.values())
    return write_tables(out, finished.values())


def _claim(out: Path, options: ProtocolOptions, splits: Sequence[Split], *, train: Path, test: Path) -> None:
    """Write down settings and images, or see that they are those of the jobs that are there."""
    settings = {key: str(value) for key, value in asdict(options).items()}
    settings["weights"] = pretrained_weights(options.backbone, options.weights).origin.sha256
    settings["test images"] = _digest(test, splits[0].test)
    settings |= {f"training images of {split.name}": _digest(train, split.train) for split in splits}
    path = out / _SETTINGS
    if not path.exists() and any(not inside.name.startswith(".") and inside.name != _DATA for inside in out.iterdir()):
        raise UsageError(f"{out}: is not empty, and what is there is no benchmark; choose another --out")
    before: dict[str, str] = {}
    if path.exists():
        try:
            before = {str(key): str(value) for key, value in json.loads(path.read_text(encoding="utf-8")).items()}
        except (OSError, ValueError, AttributeError) as error:
            raise KitError(f"{path}: cannot be read ({error}); give another --out, or delete {out}") from error
    if different := [key for key in settings if before.get(key, settings[key]) != settings[key]]:
        raise UsageError(
            f"{out}: holds results of other {different[0]} ({before[different[0]]}, and now "
            f"{settings[different[0]]}); give another --out"
        )
    with writing(out), written_whole(path) as partial:
        partial.write_text(json.dumps(before | settings, indent=2) + "\n", encoding="utf-8")


def _digest(folder: Path, names: Sequence[str]) -> str:
    try:
        lines = "\n".join(f"{sha256_of(folder / name)} {name}" for name in names)
    except OSError as error:
        raise SourceError(f"{error.filename}: cannot be read: {error.strerror}; check the permissions") from error
    return hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()


def fetched(name: str, folder: Path, *, report: Report = silent) -> tuple[Path, Path]:
    """A data set of torchvision's as images, a folder for each class: (train, test). Fetched once.

    Raises UsageError when it cannot be fetched.
    """
    made = []
    for part in ("train", "test"):
        target = folder / name / part
        made.append(target)
        if target.is_dir():
            continue
        try:
            split = {"split": part} if name == "svhn" else {"train": part == "train"}
            data = _SETS[name](str(folder / "downloads"), download=True, **split)
        except (OSError, RuntimeError) as error:
            raise UsageError(
                f"--dataset {name}: cannot be fetched ({error}); fetch it elsewhere, write it as a folder for each "
                "class, and give --train and --test"
            ) from error
        names = getattr(data, "classes", [str(label) for label in range(10)])
        with folder_written_whole(target) as whole:
            for number, (image, label) in enumerate(data):
                place = whole / names[label].replace("/", "-")
                place.mkdir(exist_ok=True)
                image.convert("RGB").save(place / f"{number:06d}.png")
                report(f"writing {part} images", number + 1, len(data))
    return made[0], made[1]
