"""The whole benchmark: every class, method and seed, each kept as soon as it is finished."""

import hashlib
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torchvision

from msc_edge.errors import UsageError, writing
from msc_edge.files import folder_written_whole, written_whole
from msc_edge.progress import Report, silent
from msc_edge.train.one_vs_rest.protocol import (
    Job,
    Method,
    ProtocolOptions,
    Split,
    read_job,
    run_job,
    splits_of,
    write_job,
)
from msc_edge.train.one_vs_rest.tables import write_tables

_SETTINGS = "settings.json"
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
    splits = splits_of(train, test, classes, pictures=options.pictures)
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    _claim(out, options, splits)
    jobs: list[Job] = []
    for split in splits:
        for method in methods:
            # The frozen network is the same for all seeds.
            for seed in range(1 if method == "dn2" else seeds):
                job = read_job(out, split.name, method, seed)
                if job is None:
                    with tempfile.TemporaryDirectory(prefix="msc-edge-benchmark-") as scratch:
                        job = run_job(
                            split, method, seed, options, train=train, test=test, folder=Path(scratch), report=report
                        )
                    write_job(out, job)
                jobs.append(job)
                write_tables(out, jobs)
    return write_tables(out, jobs)


def _claim(out: Path, options: ProtocolOptions, splits: Sequence[Split]) -> None:
    """Write down the settings, or see that they are those of the jobs that are there."""
    test = hashlib.sha256("\n".join(splits[0].test).encode("utf-8", "surrogateescape")).hexdigest()
    settings = {key: str(value) for key, value in asdict(options).items()} | {"test_pictures": test}
    path = out / _SETTINGS
    if not path.exists():
        with written_whole(path) as partial:
            partial.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        return
    before = json.loads(path.read_text(encoding="utf-8"))
    if different := [key for key in settings if before.get(key) != settings[key]]:
        raise UsageError(
            f"{out}: holds results of another {different[0]} ({before.get(different[0])}, and now "
            f"{settings[different[0]]}); give another --out"
        )


def fetched(name: str, folder: Path, *, report: Report = silent) -> tuple[Path, Path]:
    """A data set of torchvision's as pictures, a folder for each class: (train, test). Fetched once.

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
                report(f"writing {part} pictures", number + 1, len(data))
    return made[0], made[1]
