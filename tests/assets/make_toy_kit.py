"""Makes tests/assets/toy.kit: a whole kit of some 50 kB, drawn and packed without torch and without real weights.

    python tests/assets/make_toy_kit.py [FOLDER]

The "backbone" is the image itself, shrunk to 8x8 pixels; everything around it is as in a real kit. The images
are drawn with a fixed seed, so that a second run gives the same bytes where numpy, OpenCV and hnswlib are the same.
"""

import hashlib
import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import msc_edge  # noqa: F401  (first: it turns off the telemetry of onnxruntime)

# isort: split
import cv2
import hnswlib
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from msc_edge import __version__
from msc_edge.anomaly_map import patch_score
from msc_edge.bank import Bank, open_hnsw
from msc_edge.calibration import Calibration
from msc_edge.files import folder_written_whole, sha256_of
from msc_edge.images import DecodePolicy
from msc_edge.kit.layout import BANK_FILES, INDEX_FILES, MODEL_FILES, NORMAL_IMAGES, THUMBNAILS, thumbnail_file
from msc_edge.kit.manifest import Manifest, Network, NormalImages, Provenance, Weights
from msc_edge.kit.model_entry import (
    Banks,
    CalibrationInfo,
    EmbeddingOutput,
    HnswIndex,
    MemoryBank,
    Model,
    Outputs,
    Parity,
    PatchBank,
    PatchDistancesOutput,
    PatchEmbeddingsOutput,
    RegionCalibration,
)
from msc_edge.kit.writing import seal
from msc_edge.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from msc_edge.runtime.backends.interface import EMBEDDING, INPUT, PATCH_DISTANCES, PATCH_EMBEDDINGS
from msc_edge.runtime.backends.onnxruntime_backend import OnnxRuntimeBackend
from msc_edge.scoring import MapSettings, Scoring, Standard, calibration_scores

KIT = Path(__file__).parent / "toy.kit"
SIDE = 8
DIM = 3 * SIDE * SIDE
MAP = MapSettings(smoothing=0.5, least_area=1)
K = 2
OPSET = 20
HEIGHT, WIDTH = 48, 64
NORMALS_DRAWN = 24  # every second one goes to the bank, the others are held out

Defect = Literal["scratch", "stain", "empty"]


def draw(seed: int, defect: Defect | None = None) -> np.ndarray:
    """A drawn part, uint8 RGB (48, 64, 3): a ring on brushed metal, never twice at the very same place or light."""
    random = np.random.default_rng(seed)
    image = np.full((HEIGHT, WIDTH, 3), (122, 126, 132), dtype=np.float64) + random.normal(0, 4, (HEIGHT, 1, 1))
    if defect != "empty":
        # Fixed-point coordinates, in sixteenths of a pixel.
        centre = (int(16 * (31.5 + random.uniform(-0.7, 0.7))), int(16 * (23.5 + random.uniform(-0.7, 0.7))))
        cv2.circle(image, centre, 16 * 15, (188, 170, 92), -1, cv2.LINE_AA, 4)
        cv2.circle(image, centre, 16 * 6, (64, 62, 60), -1, cv2.LINE_AA, 4)
    if defect == "scratch":
        cv2.line(image, (20, 8), (46, 40), (250, 250, 250), 3, cv2.LINE_8)
    if defect == "stain":
        cv2.circle(image, (50, 12), 8, (70, 30, 20), -1, cv2.LINE_8)
    image += random.uniform(-5, 5) + random.normal(0, 3, image.shape)
    return image.clip(0, 255).astype(np.uint8)


def make(folder: Path, *, patches: bool = False) -> Manifest:
    """Write the toy kit as `folder`, in place of what was there, and return its manifest.

    With `patches` its score is made of both parts. A patch is one of the 8x8 pixels, and its distance is that of its
    colour to the nearest of 64 colours of normal images.
    """
    names = [f"part_{seed:02d}.png" for seed in range(NORMALS_DRAWN)]
    images = [draw(seed) for seed in range(NORMALS_DRAWN)]
    with folder_written_whole(folder, replace=True) as root:
        colours = _colours(images[::2]) if patches else None
        onnx.save(_model(colours), root / MODEL_FILES["fp32"])
        grid = PatchDistancesOutput(rows=SIDE, columns=SIDE, stride=1) if patches else None
        outputs = Outputs(
            embedding=EmbeddingOutput(dim=DIM),
            patch_distances=grid,
            patch_embeddings=PatchEmbeddingsOutput(dim=3) if patches else None,
        )
        embedding_model = OnnxRuntimeBackend(root / MODEL_FILES["fp32"], outputs=outputs, threads=1)
        found = [embedding_model.run(image) for image in images]
        embeddings = np.stack([each.embedding for each in found])
        stored, held_out = embeddings[::2], embeddings[1::2]

        np.save(root / BANK_FILES["fp32"], stored)
        (root / NORMAL_IMAGES).write_bytes(json.dumps(names[::2], indent=2).encode() + b"\n")
        (root / THUMBNAILS).mkdir()
        for row, image in enumerate(images[::2]):
            jpeg = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])[1]
            (root / thumbnail_file(row)).write_bytes(jpeg.tobytes())
        index = _write_index(root / INDEX_FILES["fp32"], stored, held_out)

        bank = Bank(stored, k=K)
        image_scores = np.array([bank.score(embedding) for embedding in held_out])
        distances = [each.patch_distances for each in found[1::2] if each.patch_distances is not None]
        patch_scores = np.array([patch_score(each, smoothing=MAP.smoothing) for each in distances]) if patches else None
        standard = None if patch_scores is None else Standard.of_images(image_scores, patch_scores)
        scoring = Scoring() if standard is None else Scoring.fitted("both", standard, MAP)
        calibration = Calibration(calibration_scores(scoring.kind, image_scores, patch_scores, standard, scoring.map))
        warn_rate, reject_rate = 0.2, 0.01  # twelve held-out images can promise the first and not the second
        return seal(
            root,
            Manifest(
                format_version=2,
                name="toy",
                msc_edge_version=__version__,
                decode=DecodePolicy(),
                preprocessing=Preprocessing(
                    preset="whole-frame", image_size=SIDE, resize="stretch", resize_to=SIDE, region=None
                ),
                network=Network(backbone="toy_pixels", stop_at=None),
                normal_images=NormalImages(file=NORMAL_IMAGES, count=len(stored)),
                models={
                    "fp32": Model(
                        file=MODEL_FILES["fp32"],
                        opset=OPSET,
                        outputs=outputs,
                        banks=Banks(
                            images=MemoryBank(
                                file=BANK_FILES["fp32"], count=len(stored), k=K, search="exact", index=index
                            ),
                            patches=None
                            if colours is None
                            else PatchBank(count=len(colours), dim=3, median_distance=float(np.median(distances))),
                        ),
                        scoring=scoring,
                        calibration=CalibrationInfo(
                            scores=calibration.scores.tolist(),
                            warn_rate=warn_rate,
                            reject_rate=reject_rate,
                            limits=calibration.limits(warn_rate=warn_rate, reject_rate=reject_rate),
                            regions=None
                            if patch_scores is None
                            else RegionCalibration.of(Calibration(patch_scores), rate=0.1),
                        ),
                        parity=_parity(images, embeddings, bank),
                    )
                },
                default_model="fp32",
                provenance=Provenance(
                    created="2026-01-01T00:00:00Z",
                    recipe={"recipe": "none", "steps": 0},
                    weights=Weights(
                        source="none: the pixels", sha256=sha256_of(root / MODEL_FILES["fp32"]), licence="Apache-2.0"
                    ),
                    seed=0,
                    images=NORMALS_DRAWN,
                    data_fingerprint=_fingerprint(names, images),
                    versions={
                        "hnswlib": version("hnswlib"),
                        "numpy": np.__version__,
                        "onnx": onnx.__version__,
                        "onnxruntime": onnxruntime.__version__,
                        "opencv": cv2.__version__,
                    },
                ),
                files={},
            ),
        )


def _colours(images: list[np.ndarray]) -> np.ndarray:
    """64 colours of the pixels of normal images, float32 (64, 3), normalised: each the farthest from those before."""
    pixels = np.concatenate([_normalised(image).reshape(3, -1).T for image in images])
    chosen = [0]
    nearest = np.full(len(pixels), np.inf)
    while len(chosen) < 64:
        nearest = np.minimum(nearest, np.linalg.norm(pixels - pixels[chosen[-1]], axis=1))
        chosen.append(int(nearest.argmax()))
    return pixels[chosen].astype(np.float32)


def _model(colours: np.ndarray | None = None) -> onnx.ModelProto:
    """The contract of model.onnx: uint8 (1, height, width, 3) RGB in, a unit embedding (1, 192) out.

    With colours also patch distances, (1, 8, 8), and what they are distances of, (1, 8, 8, 3).
    """
    constants = {
        "size": np.array([1, 3, SIDE, SIDE], dtype=np.int64),
        "mean": 255 * np.array(IMAGENET_MEAN, dtype=np.float32).reshape(1, 3, 1, 1),
        "std": 255 * np.array(IMAGENET_STD, dtype=np.float32).reshape(1, 3, 1, 1),
    }
    nodes = [
        helper.make_node("Cast", [INPUT], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node(
            "Resize", ["planes", "", "", "size"], ["small"], mode="linear", antialias=1, exclude_outside=1
        ),
        helper.make_node("Sub", ["small", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "std"], ["normalised"]),
        helper.make_node("Flatten", ["normalised"], ["flat"]),
        helper.make_node("LpNormalization", ["flat"], [EMBEDDING], axis=1, p=2),
    ]
    outputs = [helper.make_tensor_value_info(EMBEDDING, TensorProto.FLOAT, [1, DIM])]
    if colours is not None:
        constants |= {"colours": colours.reshape(1, 1, 1, -1, 3), "last": np.array([-1]), "third": np.array([3])}
        nodes += [
            helper.make_node("Transpose", ["normalised"], [PATCH_EMBEDDINGS], perm=[0, 2, 3, 1]),
            helper.make_node("Unsqueeze", [PATCH_EMBEDDINGS, "third"], ["each"]),
            helper.make_node("Sub", ["each", "colours"], ["apart"]),
            helper.make_node("ReduceL2", ["apart", "last"], ["distances"], keepdims=0),
            helper.make_node("ReduceMin", ["distances", "last"], [PATCH_DISTANCES], keepdims=0),
        ]
        outputs.append(helper.make_tensor_value_info(PATCH_DISTANCES, TensorProto.FLOAT, [1, SIDE, SIDE]))
        outputs.append(helper.make_tensor_value_info(PATCH_EMBEDDINGS, TensorProto.FLOAT, [1, SIDE, SIDE, 3]))
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info(INPUT, TensorProto.UINT8, [1, "height", "width", 3])],
        outputs,
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    # IR version 9 came with opset 20: the oldest onnxruntime that knows the operators opens the file.
    return helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", OPSET)])


def _write_index(path: Path, stored: np.ndarray, queries: np.ndarray) -> HnswIndex:
    m, ef_construction, ef = 8, 100, 50
    index = hnswlib.Index(space="cosine", dim=DIM)
    index.init_index(len(stored), M=m, ef_construction=ef_construction, random_seed=0)
    index.add_items(stored, num_threads=1)
    index.save_index(str(path))
    search, exact = open_hnsw(path, stored, ef=ef), Bank(stored, k=K)
    found = Bank(stored, search=search, k=K)
    hits = sum(len(set(found.nearest(each).rows) & set(exact.nearest(each).rows)) for each in queries)
    return HnswIndex(
        file=path.name,
        m=m,
        ef_construction=ef_construction,
        ef=ef,
        recall=hits / (K * len(queries)),
        queries=len(queries),
    )


def _parity(images: list[np.ndarray], embeddings: np.ndarray, bank: Bank) -> Parity:
    """Against the same model written in numpy, in the place of torch."""
    expected = np.stack([reference_embedding(image) for image in images])
    scores = [(bank.score(one), bank.score(other)) for one, other in zip(embeddings, expected, strict=True)]
    return Parity(
        images=len(images),
        max_score_difference=max(abs(one - other) for one, other in scores),
        max_embedding_difference=float(np.abs(embeddings - expected).max()),
        changed_verdicts=0,
    )


def reference_embedding(image: np.ndarray) -> np.ndarray:
    """What the toy model must give for an image of at least 8x8 pixels: float32 (192,), unit length."""
    normalised = _normalised(image)
    return (normalised / np.linalg.norm(normalised)).ravel().astype(np.float32)


def _normalised(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    small = np.einsum("ih,jw,hwc->cij", _antialiased(height), _antialiased(width), image.astype(np.float64))
    return (small / 255 - np.reshape(IMAGENET_MEAN, (3, 1, 1))) / np.reshape(IMAGENET_STD, (3, 1, 1))


def _antialiased(length: int) -> np.ndarray:
    """Weights (8, length) of a bilinear resize whose triangle is as wide as the shrinking asks."""
    scale = length / SIDE
    centres = (np.arange(SIDE) + 0.5) * scale - 0.5
    weights = np.maximum(0, 1 - np.abs(np.arange(length) - centres[:, None]) / scale)
    return weights / weights.sum(axis=1, keepdims=True)


def _fingerprint(names: list[str], images: list[np.ndarray]) -> str:
    lines = sorted(
        f"{hashlib.sha256(image.tobytes()).hexdigest()}  {name}" for name, image in zip(names, images, strict=True)
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


if __name__ == "__main__":
    make(Path(sys.argv[1]) if len(sys.argv) > 1 else KIT)
