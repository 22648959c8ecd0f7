"""What patches cost: one frame in memory with whole images only, with both scores, and with the heatmap too.

    python benchmarks/patches.py RUN [--rounds 150]

RUN is a run with patches and a backbone with default weights. The kit of whole images is trained on the same folder
with `--scores image --steps 0`, without the margin that patches need. Frames of random pixels are scored in turns on
one thread, with each model that both kits have. Almost all of such a frame is one region, which costs more than the
regions of a normal image.
"""

import tempfile
from contextlib import suppress
from pathlib import Path

from common import parser_of, random_frame, run_msc_edge
from timing import medians

from msc_edge.errors import UsageError
from msc_edge.kit.layout import Precision
from msc_edge.runtime import Detector
from msc_edge.train.run_record import read_record

SIZES = ((224, 224), (1280, 720))


def main() -> None:
    """Export, measure, and print a Markdown table."""
    parser = parser_of(__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--rounds", type=int, default=150, help="default: %(default)s")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        kits = {name: Path(work, name) for name in ("image", "both")}
        record, whole = read_record(options.run), Path(work, "run")
        network = ("--backbone", record.backbone, "--steps", 0, "--scores", "image")
        run_msc_edge("train", "--normal", record.folder, "--out", whole, *network)
        for kit, run in zip(kits.values(), (whole, options.run), strict=True):
            run_msc_edge("export", run, "--out", kit)
        detectors: dict[Precision, list[Detector]] = {}
        for precision in Detector.load(kits["both"]).manifest.precisions:
            with suppress(UsageError):  # the image kit may have no int8 model
                detectors[precision] = [Detector.load(kit, threads=1, precision=precision) for kit in kits.values()]
    print("| model | frame | whole images | both scores | with heatmap |\n|---|---|---|---|---|")
    for precision, (image, both) in detectors.items():
        for width, height in SIZES:
            frame = random_frame(width, height)
            actions = {
                "whole": lambda frame=frame, image=image: image.score(frame),
                "both": lambda frame=frame, both=both: both.score(frame),
                "heatmap": lambda frame=frame, both=both: both.score(frame, heatmap=True),
            }
            found = medians(actions, rounds=options.rounds, warm_up=5)
            ratios = (f"{found[name]:.1f} ms, {found[name] / found['whole']:.2f} times" for name in ("both", "heatmap"))
            print(f"| {precision} | {width} x {height} | {found['whole']:.1f} ms | {' | '.join(ratios)} |", flush=True)


if __name__ == "__main__":
    main()
