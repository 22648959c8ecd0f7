"""What patches cost: one frame in memory with whole images only, with both scores, and with the heatmap too.

    python benchmarks/patches.py RUN [--rounds 150]

RUN is a run with patches. It is exported twice, with `--scores image` and as trained, and frames of random pixels are
scored in turns on one thread, with the fp32 model.
"""

import tempfile
from pathlib import Path

from common import parser_of, random_frame, run_msc_edge
from timing import medians

from msc_edge.runtime import Detector

SIZES = ((224, 224), (1280, 720))


def main() -> None:
    """Export, measure, and print a Markdown table."""
    parser = parser_of(__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--rounds", type=int, default=150, help="default: %(default)s")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        kits = {name: Path(work, name) for name in ("image", "both")}
        for name, kit in kits.items():
            run_msc_edge("export", options.run, "--out", kit, "--scores", name, "--precision", "fp32")
        image, both = (Detector.load(kit, threads=1) for kit in kits.values())
    print("| frame | whole images | both scores | with heatmap |\n|---|---|---|---|")
    for width, height in SIZES:
        frame = random_frame(width, height)
        actions = {
            "whole": lambda frame=frame: image.score(frame),
            "both": lambda frame=frame: both.score(frame),
            "heatmap": lambda frame=frame: both.score(frame, heatmap=True),
        }
        found = medians(actions, rounds=options.rounds, warm_up=5)
        ratios = (f"{found[name]:.1f} ms, {found[name] / found['whole']:.2f} times" for name in ("both", "heatmap"))
        print(f"| {width} x {height} | {found['whole']:.1f} ms | {' | '.join(ratios)} |", flush=True)


if __name__ == "__main__":
    main()
