from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from msc_edge.errors import OutputError, UsageError
from msc_edge.map_file import read_map, write_map

MAP = np.random.default_rng(0).gamma(2, 1, (37, 53)).astype(np.float32)


@pytest.mark.parametrize(("factor", "limit"), [(1.0, 2.5), (1e-3, 5.0), (1e4, 1.0), (0.0, 1.0)])
def test_a_map_is_read_as_it_was_written(tmp_path: Path, factor: float, limit: float) -> None:
    written = MAP * np.float32(factor)
    write_map(tmp_path / "a.png", written, limit=limit)
    found, found_limit = read_map(tmp_path / "a.png")
    scale = max(float(written.max()), limit) / 65535
    assert found == pytest.approx(written, abs=0.51 * scale)
    assert found_limit == limit


def test_other_programs_read_pixels_and_metadata(tmp_path: Path) -> None:
    write_map(tmp_path / "a.png", MAP, limit=2.5)
    with Image.open(tmp_path / "a.png") as image:
        image.verify()  # every checksum
    with Image.open(tmp_path / "a.png") as image:
        image.load()
        assert np.asarray(image) * float(image.info["scale"]) == pytest.approx(MAP, abs=1e-3)
        assert image.info["limit"] == "2.5"


def test_another_file_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((5, 5), np.uint8)).save(tmp_path / "plain.png")
    (tmp_path / "text.png").write_bytes(b"hello")
    for name in ("plain.png", "text.png", "missing.png"):
        with pytest.raises(UsageError, match="not an anomaly map"):
            read_map(tmp_path / name)


def test_a_place_that_cannot_be_written_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError):
        write_map(tmp_path / "file" / "a.png", MAP, limit=1.0)
