"""The part of peers.py that trains a model of anomalib, in anomalib's own environment.

    python peers_train.py padim|patchcore|mh_patchcore IMAGES WEIGHTS OUT ROWS all|onnx

IMAGES is a folder of normal images; a fifth of them is held out for anomalib's threshold. ROWS: the largest memory bank
of patchcore. OUT gets `weights/`, the exports as a user of anomalib makes them; `raw/weights/`, the same without
normalised scores, and the model for PyTorch; and `trained`, a line of text. With `onnx` only `raw/weights/onnx`.
"""

import shutil
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from peers_inside import SIDE

VALIDATION = 0.2
STRIDE = 8  # of layer2, whose grid is that of the patches
_CLASSES = {"padim": "Padim", "patchcore": "Patchcore", "mh_patchcore": "MHPatchcore"}
_LAYERS = {"padim": ["layer1", "layer2", "layer3"]}  # the defaults of each class
_LAYERS_OF_OTHERS = ["layer2", "layer3"]


def build(kind: str, weights: Path, count: int, rows: int) -> Any:
    """A model with the defaults of anomalib, besides backbone, size of images, and size of the memory bank.

    `count`: training images. A memory bank of patchcore has a tenth of all patches by default, which are too many to
    select from hundreds of images; it has at most `rows`.
    """
    models, pre_processing, safetensors = map(
        import_module, ("anomalib.models", "anomalib.pre_processing", "safetensors.torch")
    )
    transforms = import_module("torchvision.transforms.v2")
    whole_image = transforms.Compose(
        [
            transforms.Resize((SIDE, SIDE), antialias=True),
            transforms.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
        ]
    )
    patches = count * (SIDE // STRIDE) ** 2
    special = {"coreset_sampling_ratio": min(0.1, (rows + 0.5) / patches)} if kind == "patchcore" else {}
    model = getattr(models, _CLASSES[kind])(
        backbone="resnet18",
        layers=_LAYERS.get(kind, _LAYERS_OF_OTHERS),
        pre_trained=False,
        pre_processor=pre_processing.PreProcessor(transform=whole_image),
        evaluator=False,
        visualizer=False,
        **special,
    )
    extractor = model.model.feature_extractor.feature_extractor
    loaded = extractor.load_state_dict(safetensors.load_file(weights), strict=False)
    assert not loaded.unexpected_keys, loaded.unexpected_keys
    assert all(key.endswith("num_batches_tracked") for key in loaded.missing_keys), loaded.missing_keys
    return model


def select_faster() -> None:
    """Let PatchCore select the same patches in less time.

    Its loop copies the features of all patches for each row of the memory bank. The same distances, apart from
    rounding, follow from one product of a matrix and a vector.
    """
    sampler: Any = import_module("anomalib.models.components.sampling.k_center_greedy").KCenterGreedy

    def update_distances(self: Any, cluster_center: Any) -> None:
        if self.min_distances is None:
            self.squares = self.features.square().sum(dim=1, keepdim=True)
        center = self.features[cluster_center].squeeze()
        squared = self.squares + center.square().sum() - 2 * (self.features @ center)[:, None]
        distances = squared.clamp_(min=0).sqrt_()
        self.min_distances = distances if self.min_distances is None else self.min_distances.minimum(distances)

    sampler.update_distances = update_distances


def rows_of(model: Any) -> str:
    """The size of the memory bank, as text."""
    bank: Any = getattr(model.model, "memory_bank", None)
    rows: Any = getattr(bank, "bank", bank)  # MH-PatchCore has a module that contains it
    return f", {rows.shape[0]} rows of {rows.shape[1]} values in its memory bank" if hasattr(rows, "shape") else ""


def export(model: Any, exporter: Any, out: Path, *, everything: bool) -> None:
    """Export a trained model. `exporter`: the engine of anomalib that trained it."""
    torch, openvino, deploy = map(import_module, ("torch", "openvino", "anomalib.deploy"))
    # A batch of one image of any size. By default anomalib 2.7 exports a Patchcore that only accepts batches of two.
    sizes = ({2: torch.export.Dim("height"), 3: torch.export.Dim("width")},)

    def write(folder: Path) -> None:
        options = {"export_root": folder, "onnx_kwargs": {"dynamic_shapes": sizes}}
        exporter.export(model=model, export_type=deploy.ExportType.ONNX, **options)
        if everything:  # converted as anomalib does, which would export ONNX once more
            (to := folder / "weights/openvino").mkdir()
            converted = openvino.convert_model(folder / "weights/onnx/model.onnx")
            openvino.save_model(converted, to / "model.xml", compress_to_fp16=False)

    # Normalised scores are cut off at 1, so that different defects get the same score. Raw ones have a better AUROC.
    model.post_processor.enable_normalization = False
    if everything:
        exporter.export(model=model, export_type=deploy.ExportType.TORCH, export_root=out / "raw")
    write(out / "raw")
    if everything:
        model.post_processor.enable_normalization = True
        write(out)


def train(kind: str, images: Path, weights: Path, out: Path, rows: int, *, everything: bool) -> None:
    """See the docstring of the module."""
    torch, data, engine = map(import_module, ("torch", "anomalib.data", "anomalib.engine"))
    torch.manual_seed(0)
    select_faster()
    files = sum(1 for _ in images.iterdir())
    model = build(kind, weights, files - int(files * VALIDATION), rows)
    # Without validation images anomalib sets no threshold and gives no verdict.
    module = data.Folder(
        name="good",
        normal_dir=images.resolve(),
        test_split_mode="none",
        val_split_mode="from_train",
        val_split_ratio=VALIDATION,
        num_workers=0,
        seed=0,
    )
    trainer = engine.Engine(default_root_dir=out / "training", accelerator="cpu", devices=1, logger=False)
    trainer.fit(model=model, datamodule=module)
    export(model, trainer, out, everything=everything)
    shutil.rmtree(out / "training")
    (out / "trained").write_text(f"{len(module.train_data)} images{rows_of(model)}")


if __name__ == "__main__":
    kind, images, weights, out, rows, what = sys.argv[1:]
    train(kind, Path(images), Path(weights), Path(out), int(rows), everything=what == "all")
