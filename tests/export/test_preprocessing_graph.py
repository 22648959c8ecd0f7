"""The graph compared with the torch module, in grey levels."""

from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx.helper import make_model, make_opsetid

from msc_edge.export.onnx_model import OPSET
from msc_edge.export.preprocessing_graph import INPUT, OUTPUT, images_of, preprocessing_graph
from msc_edge.ignore_mask import IgnoreMask
from msc_edge.images import DecodePolicy, read_image
from msc_edge.preprocessing import Preprocessing, PresetName, Region, Tiles, preset
from msc_edge.train.preprocess import Preprocess

PRESETS = {
    "whole-frame": preset("whole-frame"),
    "paper": preset("paper"),
    "bands that do not fill": preset("whole-frame", image_size=45),
    "fewer pixels than a band": Preprocessing(preset="whole-frame", image_size=3, resize="stretch", resize_to=3),
    "one pixel": Preprocessing(preset="whole-frame", image_size=1, resize="stretch", resize_to=1),
    "stretch and crop, odd excess": Preprocessing(preset="paper", image_size=32, resize="stretch", resize_to=39),
    "margin": preset("whole-frame", margin=8),
    "large": preset("paper", image_size=300),
}
TOLERANCE = 0.001  # grey levels
DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


def session(spec: Preprocessing, *, tiles: bool = False) -> ort.InferenceSession:
    graph = preprocessing_graph(spec, opset=OPSET, tiles=tiles)
    model = make_model(graph, opset_imports=[make_opsetid("", OPSET)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def difference(graph: ort.InferenceSession, spec: Preprocessing, image: np.ndarray) -> float:
    ours = torch.from_numpy(graph.run([OUTPUT], {INPUT: image[None]})[0])
    module = Preprocess(spec)
    theirs = module(torch.from_numpy(image)[None])
    assert ours.shape == theirs.shape
    return float(((ours - theirs) * module.std).abs().max())


@pytest.mark.parametrize("spec", PRESETS.values(), ids=PRESETS)
def test_random_images_of_any_size_are_resized_as_torch_does(spec: Preprocessing) -> None:
    rng = np.random.default_rng(5)
    graph = session(spec)
    sizes = [(1, 1), (1, 40), (40, 1), (2, 3), (224, 224), (225, 223), (1080, 1920)]
    sizes += [tuple(int(each) for each in 2 ** rng.uniform(5, 10, 2)) for _ in range(6)]
    for height, width in sizes:
        image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        assert difference(graph, spec, image) < TOLERANCE, (height, width)


@pytest.mark.skipif(not DATA.is_dir(), reason="the images of ../shared/data are not here")
@pytest.mark.parametrize("name", ["whole-frame", "paper"])
def test_real_images_and_video_frames_are_resized_as_torch_does(name: PresetName) -> None:
    spec = preset(name)
    graph = session(spec)
    files = sorted((DATA / "magnetic_tile/test").rglob("*.jpg"))[::120]
    files += sorted((DATA / "paper").rglob("*.bmp"))[::300]
    assert len(files) > 5
    images = [read_image(path, DecodePolicy()) for path in files]
    video = cv2.VideoCapture(str(DATA / "video/bottle-detection.mp4"))
    frame = video.read()[1]
    images += [frame, cv2.resize(frame, (3840, 2160), interpolation=cv2.INTER_CUBIC)]
    assert max(difference(graph, spec, image) for image in images) < TOLERANCE


def test_a_constant_image_stays_constant() -> None:
    spec = preset("whole-frame")
    image = np.full((1080, 1920, 3), (3, 128, 255), np.uint8)
    pixels = np.asarray(session(spec).run([OUTPUT], {INPUT: image[None]})[0])[0]
    expected = (np.array([3, 128, 255]) / 255 - spec.mean) / spec.std
    np.testing.assert_allclose(pixels, np.broadcast_to(expected[:, None, None], pixels.shape), atol=1e-5)


def test_pixels_outside_the_region_do_not_matter() -> None:
    region = Region(x=31, y=7, width=300, height=200)
    graph = session(preset("whole-frame", region=region))
    image = np.random.default_rng(0).integers(0, 256, (400, 500, 3), dtype=np.uint8)
    other = 255 - image
    inside = np.s_[7:207, 31:331]
    other[inside] = image[inside]
    first, second = (graph.run([OUTPUT], {INPUT: each[None]})[0] for each in (image, other))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("shape", ["1x3", "2x2"])
@pytest.mark.parametrize("with_mask", [False, True])
def test_tiles_and_ignored_pixels_are_those_of_torch(shape: str, with_mask: bool) -> None:
    rng = np.random.default_rng(6)
    spec = preset("whole-frame", image_size=96, tiles=Tiles.parse(shape, image_size=96), margin=8)
    if with_mask:
        spec = spec.model_copy(update={"ignore": IgnoreMask.of(rng.random(spec.canvas) < 0.4)})
    graph, module = session(spec, tiles=True), Preprocess(spec)
    for height, width in ((96, 96), (240, 1000), (77, 41)):
        image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        ours = torch.from_numpy(graph.run([OUTPUT], {INPUT: image[None]})[0])
        theirs = module.with_tiles(torch.from_numpy(image)[None])
        assert ours.shape == theirs.shape == (images_of(spec), 3, 112, 112)
        assert float(((ours - theirs) * module.std).abs().max()) < TOLERANCE
        assert torch.equal(theirs[:1], module(torch.from_numpy(image)[None]))
