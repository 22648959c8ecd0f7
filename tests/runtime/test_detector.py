"""What a detector finds in frames and files."""

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from msc_edge.errors import KitError, SourceError, UnreadableImageError
from msc_edge.images import DecodePolicy
from msc_edge.kit.layout import MANIFEST, MANIFEST_DIGEST
from msc_edge.kit.manifest import Precision, parse_manifest
from msc_edge.kit.opening import Kit
from msc_edge.kit.writing import seal
from msc_edge.preprocessing import Region
from msc_edge.runtime import Detector
from msc_edge.runtime.backends.interface import ModelOutput


def test_the_score_is_the_mean_cosine_distance_to_the_two_nearest_normal_images(toy, toy_kit, detector):
    bank = np.load(toy_kit / "bank.npy").astype(np.float64)
    for seed in range(100, 110):
        image = toy.draw(seed, "stain" if seed % 2 else None)
        distances = sorted((1 - float(row @ toy.reference_embedding(image)), n) for n, row in enumerate(bank))
        result = detector.score(image)
        assert result.score == pytest.approx((distances[0][0] + distances[1][0]) / 2, abs=2e-6)
        assert [each.row for each in result.nearest_images] == [n for _, n in distances[:2]]
        assert result.nearest_images[0].path == detector.normal_images[distances[0][1]]


def test_an_image_of_the_bank_is_its_own_nearest_image_at_distance_zero(toy, detector):
    nearest = detector.score(toy.draw(6)).nearest_images[0]
    assert nearest.path == "part_06.png"
    assert nearest.distance == pytest.approx(0, abs=1e-6)


def test_p_values_and_verdicts_follow_the_ranks_of_the_held_out_images(toy, detector):
    scores = sorted((detector.score(toy.draw(seed)).score for seed in range(1, 24, 2)), reverse=True)
    # Slightly above and below: another machine may round the embeddings differently than the kit's did.
    above, below = ([score + shift for score in scores] for shift in (1e-6, -1e-6))
    assert [detector.calibration.p_value(each) for each in above] == pytest.approx([n / 13 for n in range(1, 13)])
    assert [detector.calibration.p_value(each) for each in below] == pytest.approx([n / 13 for n in range(2, 14)])
    # The limits are the largest and the second largest of these very scores.
    assert [detector.limits.verdict(each) for each in above] == ["reject", "warn"] + ["normal"] * 10
    assert [detector.limits.verdict(each) for each in below] == ["warn"] + ["normal"] * 11


def test_a_bgr_frame_scores_as_the_same_image_in_rgb(toy, detector):
    image = toy.draw(100, "stain")
    assert detector.score(image[..., ::-1], order="BGR") == detector.score(image)
    assert detector.score(image, order="BGR") != detector.score(image)


@pytest.mark.parametrize("view", [np.s_[::2, ::2], np.s_[::-1], np.s_[:, 5:40], np.s_[:, ::-1, ::-1]])
def test_views_into_a_frame_score_as_their_copies(toy, detector, view):
    image = toy.draw(100)
    assert detector.score(image[view]) == detector.score(image[view].copy())


@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_a_grey_frame_scores_as_the_grey_file_and_as_its_repeated_channel(detector, toy, tmp_path, order):
    grey = toy.draw(100, "stain")[..., 1]
    expected = detector.score(np.repeat(grey[..., None], 3, axis=2))
    (tmp_path / "grey.png").write_bytes(cv2.imencode(".png", grey)[1].tobytes())
    assert detector.score_file(tmp_path / "grey.png") == expected
    for frame in (grey, grey[..., None], np.asfortranarray(grey)):
        assert detector.score(frame, order=order) == expected


def test_the_alpha_of_a_file_is_dropped_and_an_array_with_it_is_refused(detector, toy):
    image = toy.draw(100, "stain")
    hidden = np.dstack([image[..., ::-1], np.zeros(image.shape[:2], np.uint8)])  # as OpenCV has it, all transparent
    assert detector.score_bytes(cv2.imencode(".png", hidden)[1].tobytes()) == detector.score(image)
    with pytest.raises(SourceError, match=r"remove alpha with frame\[\.\.\., :3\]"):
        detector.score(hidden, order="BGR")
    assert detector.score(hidden[..., :3], order="BGR") == detector.score(image)


@pytest.fixture(scope="module")
def deep(toy_kit: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Detector]:
    """The detector of the toy kit for files and frames with this number of bits."""

    def load(bits: int) -> Detector:
        folder = shutil.copytree(toy_kit, tmp_path_factory.mktemp("deep") / "deep.kit")
        manifest = parse_manifest((folder / MANIFEST).read_bytes())
        seal(folder, manifest.model_copy(update={"decode": DecodePolicy.model_validate({"bit_depth": bits})}))
        return Detector.load(folder, threads=1)

    return load


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_a_frame_of_16_bits_scores_as_the_file_with_its_pixels(deep, toy, bits):
    detector = deep(bits)
    noise = np.random.default_rng(bits).integers(0, 1 << (bits - 8), (48, 64, 3), dtype=np.uint16)
    colour = (toy.draw(200, "stain").astype(np.uint16) << (bits - 8)) + noise
    for pixels in (colour, colour[..., 0], colour[..., :1]):
        expected = detector.score(pixels, heatmap=True)
        stored = pixels[..., ::-1] if pixels.shape[-1] == 3 else pixels
        for suffix in (".png", ".tiff"):
            found = detector.score_bytes(cv2.imencode(suffix, stored)[1].tobytes(), heatmap=True)
            assert found == expected
            assert found.score == expected.score
        if pixels.shape[-1] == 3:
            assert detector.score(stored, order="BGR") == expected
    # A file with 8 bits a channel is scored as it is, whatever the depth of the kit. So is a frame.
    assert detector.score(toy.draw(200, "stain")) == detector.score((colour >> (bits - 8)).astype(np.uint8))


def test_a_frame_of_16_bits_needs_a_kit_that_states_their_number(detector, deep):
    frame = np.full((48, 64), 4095, np.uint16)
    with pytest.raises(UnreadableImageError, match=r"pass uint8, as at training, or train with .*--bit-depth 10\|12"):
        detector.score(frame)
    assert np.isfinite(deep(12).score(frame).score)
    with pytest.raises(UnreadableImageError, match="its largest value is 4096, more than 12 bits hold"):
        deep(12).score(frame + 1)


def test_a_list_of_frames_has_the_results_of_its_frames(detector, toy):
    frames = [toy.draw(100), toy.draw(200, "stain"), toy.draw(201)[:40, :30, 0]]
    expected = [detector.score(each) for each in frames]
    assert detector.score(frames) == detector.score(tuple(frames)) == expected
    assert detector.score([each[..., ::-1] for each in frames[:2]], order="BGR") == expected[:2]
    assert detector.score([]) == []


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 5000, 3), (5000, 1, 3), (7, 7, 3)])
def test_images_of_odd_sizes_are_scored(detector, shape):
    frame = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    assert np.isfinite(detector.score(frame).score)


def with_region(kit, region):
    manifest = parse_manifest((kit / MANIFEST).read_bytes())
    preprocessing = manifest.preprocessing.model_copy(update={"region": region})
    seal(kit, manifest.model_copy(update={"preprocessing": preprocessing}))


@pytest.mark.parametrize(
    ("height", "width", "fits"), [(48, 64, True), (50, 70, True), (47, 64, False), (48, 63, False), (1, 1, False)]
)
def test_a_frame_must_hold_the_whole_region_of_interest(kit, save, tmp_path, height, width, fits):
    with_region(kit, Region(x=4, y=8, width=60, height=40))
    detector = Detector.load(kit)
    frame = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    path = save(tmp_path / "frame.png", frame)
    if fits:
        assert detector.score_file(path) == detector.score(frame)
        return
    with pytest.raises(SourceError, match=rf"{width}x{height}.*60x40 pixels at \(4, 8\)"):
        detector.score(frame)
    with pytest.raises(UnreadableImageError, match="60x40"):
        detector.score_file(path)


def test_threads_within_an_image_do_not_change_its_score(toy, toy_kit):
    one, four = (Detector.load(toy_kit, threads=threads) for threads in (1, 4))
    images = [toy.draw(seed) for seed in range(100, 120)]
    assert [one.score(each) for each in images] == [four.score(each) for each in images]


def test_many_threads_on_one_detector_get_the_results_of_one_thread(toy, toy_kit):
    detector = Detector.load(toy_kit, threads=1, search="hnsw")
    images = [toy.draw(seed) for seed in range(100, 300)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(detector.score, images)) == [detector.score(each) for each in images]


def test_the_content_of_a_file_may_be_any_bytes(detector, photos):
    content = (photos / "warn.png").read_bytes()
    expected = detector.score_bytes(content)
    assert detector.score_bytes(bytearray(content)) == detector.score_bytes(memoryview(content)) == expected


def test_scoring_imports_no_package_of_training(toy_kit, photos):
    program = (
        "import sys\n"
        "from msc_edge.runtime import Detector\n"
        "Detector.load(sys.argv[1], search='hnsw').score_file(sys.argv[2])\n"
        "print([name for name in ('torch', 'torchvision', 'lightning', 'onnx', 'sklearn') if name in sys.modules])"
    )
    command = [sys.executable, "-c", program, str(toy_kit), str(photos / "good_100.png")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_result_carries_its_kit_model_and_limit(toy, toy_kit, int8_kit):
    image = toy.draw(100, "stain")
    models: list[tuple[Path, Precision]] = [(toy_kit, "fp32"), (int8_kit, "fp32"), (int8_kit, "int8")]
    for kit, precision in models:
        detector = Detector.load(kit, threads=1, precision=precision)
        result = detector.score(image)
        assert result.kit == detector.kit.sha256 == (kit / MANIFEST_DIGEST).read_text().split()[0]
        assert result.model == detector.model == precision
        assert result.limit == detector.limits.reject.score
        assert detector.kit.name == detector.manifest.name == "toy"


def test_a_file_its_bytes_and_its_pixels_have_one_result(detector, photos, toy):
    path = photos / "good_100.png"
    assert detector.score_file(path) == detector.score_bytes(path.read_bytes()) == detector.score(toy.draw(100))
    assert detector.score_bytes(np.fromfile(path, np.uint8)) == detector.score_decoded(toy.draw(100))


def test_an_embedding_has_the_result_of_its_image(detector, toy):
    output = detector.run(toy.draw(100))
    embedding = output.embedding
    assert (embedding.dtype, np.linalg.norm(embedding)) == (np.float32, pytest.approx(1, abs=1e-6))
    assert detector.score_output(output, toy.draw(100)) == detector.score(toy.draw(100))
    with pytest.raises(KitError, match="the output for this image is not finite"):
        detector.score_output(ModelOutput(np.full_like(embedding, np.nan), None), toy.draw(100))


def test_the_detector_works_after_its_kit_is_closed(toy_kit, toy, detector, tmp_path):
    path = tmp_path / "kit.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in toy_kit.rglob("*"):
            archive.write(file, file.relative_to(toy_kit).as_posix())
    with Kit.open(path) as opened:
        unpacked = Detector.of(opened, threads=1)
        place = opened.root
    assert not place.exists()
    assert unpacked.score(toy.draw(100)) == detector.score(toy.draw(100))


def test_a_detector_is_shown_in_one_short_line(detector):
    shown = repr(detector)
    assert len(shown) < 200
    assert "\n" not in shown
    assert all(part in shown for part in ("'toy'", detector.kit.sha256[:12], "'fp32'", "normal_images=12"))


class TestPatches:
    def test_a_normal_image_has_both_scores_and_no_region(self, patches, toy):
        result = patches.score(toy.draw(101))
        assert result.verdict == "normal"
        assert result.score == patches.scoring.score(result.image_score, result.patch_score)
        assert result.regions == ()
        assert result.anomaly_map is None

    def test_a_stain_is_rejected_where_it_is(self, patches, toy):
        result = patches.score(toy.draw(200, "stain"), heatmap=True)
        assert result.verdict == "reject"
        (region, *_) = result.regions
        # The stain is a circle of radius 8 around (50, 12).
        assert region.x <= 50 < region.x + region.width
        assert region.y <= 12 < region.y + region.height
        assert (abs(region.peak_x - 50) <= 8, abs(region.peak_y - 12) <= 8) == (True, True)
        assert region.peak == result.patch_score
        assert result.anomaly_map.shape == (48, 64)
        assert result.anomaly_map.dtype == np.float32
        assert result.anomaly_map[12, 50] > 2 * np.median(result.anomaly_map)

    def test_an_image_has_regions_exactly_if_its_patch_score_is_above_their_limit(self, patches, toy):
        limit = patches.manifest.models["fp32"].calibration.regions.limit.score
        results = [patches.score(toy.draw(seed)) for seed in range(300, 400)]
        assert all(bool(result.regions) == (result.patch_score > limit) for result in results)
        # The target is 10 %, of 12 calibration images: 1 of 13 is expected.
        assert 0 < sum(bool(result.regions) for result in results) < 40

    def test_a_heatmap_does_not_change_the_result(self, patches, toy):
        image = toy.draw(200, "scratch")
        assert patches.score(image) == patches.score(image, heatmap=True)

    def test_a_frame_in_bgr_has_the_same_map(self, patches, toy):
        image = toy.draw(200, "stain")
        flipped = patches.score(np.ascontiguousarray(image[..., ::-1]), order="BGR", heatmap=True)
        assert np.array_equal(flipped.anomaly_map, patches.score(image, heatmap=True).anomaly_map)

    def test_a_kit_of_whole_images_has_no_map(self, detector, toy):
        result = detector.score(toy.draw(200, "stain"), heatmap=True)
        assert (result.patch_score, result.anomaly_map, result.regions) == (None, None, ())
        assert result.score == result.image_score

    def test_other_limits_apply_to_the_combined_score(self, patches, toy):
        image = toy.draw(200, "stain")
        score = patches.score(image).score
        assert patches.with_limits(threshold=score).score(image).verdict != "reject"
        assert patches.with_limits(threshold=score - 1e-6).score(image).verdict == "reject"
