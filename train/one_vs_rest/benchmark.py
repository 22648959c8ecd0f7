"""The benchmark: all classes, methods and seeds. Each finished job is written immediately."""

import hashlib
import itertools
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torchvision

from msc_edge.errors import KitError, SourceError, UsageError, writing
from msc_edge.files import folder_written_whole, sha256_of, written_whole
from msc_edge.progress import Report, silent
from msc_edge.train.one_vs_rest.cost import description_of, estimate_of, measure_cost
from msc_edge.train.one_vs_rest.protocol import (
    DN2,
    ProtocolOptions,
    Split,
    read_jobs,
    run_job,
    splits_of,
    steps_of,
    write_job,
)
from msc_edge.train.one_vs_rest.tables import write_tables
from msc_edge.train.run_folder import folder_lock
from msc_edge.train.weights import pretrained_weights

_SETTINGS = "settings.json"
_MAPS = "maps"
_ALL_STEPS = "training steps of all jobs"
_DATA = "data"  # for downloads of --dataset
_DATASETS = {
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
    methods: Sequence[str],
    seeds: int,
    report: Report = silent,
    announce: Callable[[str], None] = lambda _: None,
) -> str:
    """Run the jobs that are not finished and write the tables into `out`. Returns the table as Markdown.

    `announce` is called once before the first job, with the estimated time. Raises UsageError if `out` contains jobs
    with other settings or other files.
    """
    splits = splits_of(train, test, classes, images=options.images)
    steps = steps_of(splits, methods, options)
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    with folder_lock(out):
        _check_settings(out, options, splits, train=train, test=test)
        jobs = _unfinished(splits, methods, seeds, out)
        if jobs:
            cost = measure_cost(jobs[0][0], [method for _, method, _ in jobs], options)
            announce(description_of(estimate_of(jobs, steps, options, cost), options))
        return _run(jobs, options, steps, train=train, test=test, out=out, report=report)


def _unfinished(splits: Sequence[Split], methods: Sequence[str], seeds: int, out: Path) -> list[tuple[Split, str, int]]:
    finished = {(job.label, job.method, job.seed) for job in read_jobs(out)}
    return [
        (split, method, seed)
        for split in splits
        for method in methods
        for seed in range(1 if method == DN2 else seeds)  # the frozen network is the same for all seeds
        if (split.name, method, seed) not in finished
    ]


def _run(
    jobs: Sequence[tuple[Split, str, int]],
    options: ProtocolOptions,
    steps: Mapping[tuple[str, str], int],
    *,
    train: Path,
    test: Path,
    out: Path,
    report: Report,
) -> str:
    finished = {(job.label, job.method, job.seed): job for job in read_jobs(out)}
    total, done, maps = sum(steps[split.name, method] for split, method, _ in jobs), itertools.count(1), out / _MAPS
    report(_ALL_STEPS, 0, total)
    for split, of_split in itertools.groupby(jobs, key=lambda job: job[0]):
        for _, method, seed in of_split:
            started = time.monotonic()
            with tempfile.TemporaryDirectory(prefix="msc-edge-benchmark-") as scratch:
                job = run_job(
                    split,
                    method,
                    seed,
                    options,
                    train=train,
                    test=test,
                    folder=Path(scratch),
                    maps=maps,
                    stepped=lambda: report(_ALL_STEPS, next(done), total),
                    report=report,
                )
            job = replace(job, seconds=round(time.monotonic() - started, 1))
            write_job(out, job)
            finished[split.name, method, seed] = job
            write_tables(out, finished.values())
        shutil.rmtree(maps / split.name, ignore_errors=True)
    shutil.rmtree(maps, ignore_errors=True)
    return write_tables(out, finished.values())


def _check_settings(out: Path, options: ProtocolOptions, splits: Sequence[Split], *, train: Path, test: Path) -> None:
    """Write settings and image hashes to `out`, or compare them with those of the jobs in `out`."""
    settings = {key: str(value) for key, value in asdict(options).items()}
    settings["weights"] = pretrained_weights(options.backbone, options.weights).origin.sha256
    settings["test images"] = _digest(test, splits[0].test)
    settings |= {f"training images of {split.name}": _digest(train, split.train) for split in splits}
    path = out / _SETTINGS
    if not path.exists() and any(not inside.name.startswith(".") and inside.name != _DATA for inside in out.iterdir()):
        raise UsageError(f"{out}: is not empty, and contains no benchmark; choose another --out")
    before: dict[str, str] = {}
    if path.exists():
        try:
            before = {str(key): str(value) for key, value in json.loads(path.read_text(encoding="utf-8")).items()}
        except (OSError, ValueError, AttributeError) as error:
            raise KitError(f"{path}: cannot be read ({error}); choose another --out, or delete {out}") from error
    if "precision" in before:  # msc-edge 0.1.0
        before["dtype"] = before.pop("precision")
    if different := [key for key in settings if before.get(key, settings[key]) != settings[key]]:
        raise UsageError(
            f"{out}: contains results with other {different[0]} ({before[different[0]]}, now "
            f"{settings[different[0]]}); choose another --out"
        )
    with writing(out), written_whole(path) as partial:
        partial.write_text(json.dumps(before | settings, indent=2) + "\n", encoding="utf-8")


def _digest(folder: Path, names: Sequence[str]) -> str:
    try:
        lines = "\n".join(f"{sha256_of(folder / name)} {name}" for name in names)
    except OSError as error:
        raise SourceError(f"{error.filename}: cannot be read: {error.strerror}; check the permissions") from error
    return hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()


def download_dataset(name: str, folder: Path, *, report: Report = silent) -> tuple[Path, Path]:
    """Download a torchvision data set and write its images, one folder per class. Does nothing the second time.

    Returns the folders of training and test images. Raises UsageError if the download fails.
    """
    made = []
    for part in ("train", "test"):
        target = folder / name / part
        made.append(target)
        if target.is_dir():
            continue
        try:
            split = {"split": part} if name == "svhn" else {"train": part == "train"}
            data = _DATASETS[name](str(folder / "downloads"), download=True, **split)
        except (OSError, RuntimeError) as error:
            raise UsageError(
                f"--dataset {name}: cannot be downloaded ({error}); download it on another machine, write one folder "
                "per class, and pass --train and --test"
            ) from error
        names = getattr(data, "classes", [str(label) for label in range(10)])
        with folder_written_whole(target) as whole:
            for number, (image, label) in enumerate(data):
                place = whole / names[label].replace("/", "-")
                place.mkdir(exist_ok=True)
                image.convert("RGB").save(place / f"{number:06d}.png")
                report(f"writing {part} images", number + 1, len(data))
    return made[0], made[1]
