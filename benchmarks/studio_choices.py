"""Time of an image for each choice of the studio, relative to `fast`: in turns, on one thread, with drawn parts.

python benchmarks/studio_choices.py
"""

import tempfile
from functools import partial
from pathlib import Path

from timing import medians

from msc_edge.demo.drawn_images import Sizes, draw_data_set
from msc_edge.export.pack import export
from msc_edge.runtime import Detector
from msc_edge.studio.tasks import CHOICES
from msc_edge.train.options import TrainingOptions
from msc_edge.train.training import train

ROUNDS = 41


def main() -> None:
    """Train without steps, export, and score one image again and again."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        draw_data_set(place / "data", seed=1, sizes=Sizes(train=8, test=1, each_defect=1))
        image = next((place / "data" / "test" / "good").iterdir())
        calls = {}
        for name, chosen in CHOICES.items():
            train(place / "data", place / name, TrainingOptions(steps=0, **chosen))
            export(place / name, place / f"{name}-kit", precision="fp32")
            calls[name] = partial(Detector.load(place / f"{name}-kit", threads=1).score_file, image)
        found = medians(calls, rounds=ROUNDS)
    for name, milliseconds in found.items():
        print(f"{name}: {milliseconds:.1f} ms, {milliseconds / found['fast']:.1f} x fast")


if __name__ == "__main__":
    main()
