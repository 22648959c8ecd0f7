import numpy as np
import pytest
import torch

from msc_edge.anomaly_map import MAX_REGIONS, AnomalyMap, MapGeometry, smoothed
from msc_edge.preprocessing import Preprocessing, Region, View, preset
from msc_edge.train.preprocess import Preprocess


def map_of(
    grid: np.ndarray,
    spec: Preprocessing,
    *,
    height: int = 64,
    width: int = 64,
    stride: int = 8,
    limit: float = 1.0,
    least_area: int = 1,
) -> AnomalyMap:
    geometry = MapGeometry.of(spec, height=height, width=width, stride=stride)
    return AnomalyMap(grid, geometry, limit=limit, least_area=least_area)


SMALL = preset("whole-frame", image_size=64)


def peak(rows: int = 8, columns: int = 8, *, at: tuple[int, int] = (2, 5), value: float = 1.0) -> np.ndarray:
    grid = np.zeros((rows, columns), np.float32)
    grid[at] = value
    return grid


def test_smoothing_keeps_a_constant_map_and_the_sum_of_an_inner_peak() -> None:
    assert smoothed(np.full((9, 5), 3, np.float32), smoothing=1.0) == pytest.approx(3)
    smooth = smoothed(peak(21, 21, at=(10, 10)), smoothing=1.5)
    assert smooth.sum() == pytest.approx(1, abs=1e-5)
    row, column = np.mgrid[:21, :21] - 10
    expected = np.exp(-(row**2 + column**2) / (2 * 1.5**2))
    assert smooth[8:13, 8:13] == pytest.approx((expected / expected.sum())[8:13, 8:13], rel=0.01)


def test_no_smoothing_changes_nothing() -> None:
    assert np.array_equal(smoothed(peak(), smoothing=0), peak())


@pytest.mark.parametrize("at", [(0, 0), (2, 5), (7, 7)])
@pytest.mark.parametrize("margin", [0, 4])
def test_the_map_at_the_input_has_the_maximum_of_the_grid_at_its_position(at: tuple[int, int], margin: int) -> None:
    spec = SMALL.model_copy(update={"margin": margin})
    large = map_of(peak(at=at), spec, height=48, width=100).at_input()
    assert large.shape == (64, 64)
    assert large.max() == large[margin + 8 * at[0], margin + 8 * at[1]] == 1
    # Beyond the last positions the map has their value.
    repeated = [1 + (margin if place == 0 else 7 - margin if place == 7 else 0) for place in at]
    assert (large == 1).sum() == np.prod(repeated)


@pytest.mark.parametrize(
    ("spec", "height", "width"),
    [
        (preset("whole-frame", image_size=64), 48, 100),
        (preset("whole-frame", image_size=64, region=Region(x=30, y=10, width=50, height=40)), 60, 100),
        (preset("paper", image_size=64), 96, 150),
        (preset("paper", image_size=64), 211, 97),
        (preset("whole-frame", image_size=64, margin=2), 48, 100),
        (preset("paper", image_size=64, margin=2), 211, 97),
    ],
)
def test_a_mark_in_the_input_lies_where_it_was_in_the_frame(spec: Preprocessing, height: int, width: int) -> None:
    # A white mark goes through preprocessing. The grid of its brightness must lie on it again.
    view = spec.view(height=height, width=width)
    frame = np.zeros((height, width, 3), np.uint8)
    y, x = int(view.top + 0.6 * view.height), int(view.left + 0.3 * view.width)
    frame[y - 4 : y + 4, x - 4 : x + 4] = 255
    seen = Preprocess(spec)(torch.from_numpy(frame)[None])[0, 0].numpy()
    inner = seen[spec.margin : -spec.margin or None, spec.margin : -spec.margin or None]
    grid = (inner - inner.min())[spec.margin :: 4, spec.margin :: 4].astype(np.float32)
    large = map_of(grid, spec, height=height, width=width, stride=4).at_frame()
    rows, columns = np.mgrid[:height, :width]
    pixel = max(view.height, view.width) / spec.image_size  # of the input
    assert (rows * large).sum() / large.sum() == pytest.approx(y - 0.5, abs=pixel)
    assert (columns * large).sum() / large.sum() == pytest.approx(x - 0.5, abs=pixel)


def test_nothing_is_above_zero_where_the_network_sees_nothing() -> None:
    spec = preset("whole-frame", image_size=64, region=Region(x=30, y=10, width=50, height=40))
    large = map_of(np.ones((8, 8), np.float32), spec, height=60, width=100).at_frame()
    inside = np.zeros((60, 100), bool)
    inside[10:50, 30:80] = True
    assert np.array_equal(large, inside.astype(np.float32))


def test_a_resized_frame_has_the_resized_map() -> None:
    anomaly_map = map_of(peak(), preset("paper", image_size=64), height=96, width=150)
    full, half = anomaly_map.at_frame(), anomaly_map.at_frame(height=48, width=75)
    assert half.shape == (48, 75)
    means = full.reshape(48, 2, 75, 2).mean(axis=(1, 3))
    assert half[2:-2, 14:-14] == pytest.approx(means[2:-2, 14:-14], abs=0.05)


def test_regions_by_height_in_pixels_of_the_frame() -> None:
    view = View(left=10, top=20, width=128, height=64)
    layout = MapGeometry(100, 150, view, input_height=64, input_width=64, stride=8)
    grid = peak(at=(2, 5), value=2.0) + peak(at=(6, 1), value=4.0)
    high, low = AnomalyMap(grid, layout, limit=1.0, least_area=1).regions()
    assert (high.peak, low.peak) == (4.0, 2.0)
    # Grid (6, 1) is input (48, 8): frame x = 10 + 8.5 * 2, y = 20 + 48.5.
    assert (high.peak_x, high.peak_y) == (27, 68)
    assert (high.center_x, high.center_y) == (27, 68)
    assert high.x < 27 < high.x + high.width
    assert high.y < 68 < high.y + high.height
    # The pyramid of a single patch is above a quarter of its height up to six pixels away: |x| + |y| <= 6 or less.
    assert 0.5 * high.width * high.height < high.area < high.width * high.height


@pytest.mark.parametrize("image_size", [96, 200, 224, 225])
def test_regions_at_the_border_end_with_the_frame(image_size: int) -> None:
    spec = preset("whole-frame", image_size=image_size, margin=8)
    rows, columns = spec.grid(16)
    for side in range(60, 2000, 13):
        for height, width in ((side, 60), (60, side)):
            (region,) = map_of(np.full((rows, columns), 2, np.float32), spec, height=height, width=width).regions()
            assert (region.x, region.y, region.width, region.height) == (0, 0, width, height)


def test_regions_touch_no_pixel_below_the_limit() -> None:
    grid = np.random.default_rng(0).random((8, 8)).astype(np.float32)
    anomaly_map = map_of(grid, SMALL, limit=0.8)
    large, regions = anomaly_map.at_input(), anomaly_map.regions()
    assert sum(region.area for region in regions) == int((large > 0.8).sum())
    covered = np.zeros((64, 64), bool)
    for region in regions:
        covered[region.y : region.y + region.height, region.x : region.x + region.width] = True
    assert covered[large > 0.8].all()


@pytest.mark.parametrize(("limit", "least_area", "count"), [(1.0, 1, 0), (0.99, 1, 1), (0.5, 10_000, 0)])
def test_limit_and_least_area(limit: float, least_area: int, count: int) -> None:
    assert len(map_of(peak(), SMALL, limit=limit, least_area=least_area).regions()) == count


def test_only_the_highest_regions_are_kept() -> None:
    grid = np.zeros((40, 40), np.float32)
    grid[::3, ::3] = 1 + np.arange(196, dtype=np.float32).reshape(14, 14)
    regions = map_of(grid, preset("whole-frame", image_size=320), height=320, width=320, limit=0.5).regions()
    assert [region.peak for region in regions] == list(range(196, 196 - MAX_REGIONS, -1))
