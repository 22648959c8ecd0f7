import io
import shutil

import pytest
from rich.console import Console

from msc_edge.kit.layout import MANIFEST
from msc_edge.kit.manifest import parse_manifest
from msc_edge.kit.opening import Kit
from msc_edge.kit.writing import seal
from msc_edge.preprocessing import Region
from msc_edge.runtime.tools.kit.describe import describe_kit, describe_size, show_kit
from msc_edge.terminal import console


def facts_of(kit):
    with Kit.open(kit) as opened:
        return dict(describe_kit(opened))


def shown(kit, *, terminal: bool = False) -> str:
    to = console(stderr=False)
    to.file = output = io.StringIO()
    if terminal:
        to = Console(file=output, force_terminal=True, color_system=None, width=70, markup=False, highlight=False)
    show_kit(to, kit)
    return output.getvalue()


def test_the_facts_of_the_toy_kit(toy_kit):
    facts = facts_of(toy_kit)
    assert facts["kit"] == str(toy_kit)
    assert facts["SHA-256"] == (toy_kit / "manifest.sha256").read_text().split()[0]
    assert facts["backbone"] == "toy_pixels"
    assert facts["model"] == "model.onnx, embeddings of 192 values, opset 20"
    assert facts["memory bank"] == "12 normal images; image score: mean cosine distance to the 2 nearest"
    assert "recall 1.0000 over 12 queries" in facts["search"]
    assert facts["calibration"].startswith("12 calibration images, scores ")
    assert facts["calibrated"].endswith("held out of the training images; no earlier calibration")
    assert facts["parity"].startswith("24 images: scores differ from training by at most 2.3e-07")
    for name in ("warn", "reject"):
        assert facts[name].startswith("score above ")
    assert facts["caution"].startswith("reject: the expected false-alarm rate is 7.7 %, above the target of 1 %")


def test_a_kit_that_was_renamed_has_its_name_beside_the_path(kit):
    assert facts_of(kit)["kit"] == f"toy, {kit}"


def test_each_model_of_a_kit_has_its_own_facts(int8_kit):
    facts = facts_of(int8_kit)
    for precision in ("fp32", "int8"):
        assert facts[f"{precision} memory bank"].startswith("12 normal images")
        assert facts[f"{precision} reject"].startswith("score above ")
    assert facts["fp32 reject"] != facts["int8 reject"]
    assert facts["int8 model"].startswith("model.int8.onnx")
    assert facts["int8 quantization"] == (
        "for x86-vnni; 0 of 1 layer in float, rank correlation with fp32 1.0000, AUROC on synthetic anomalies 0.9000 "
        "(fp32 0.9000)"
    )
    assert facts["default model"] == (
        "fp32 scores: what int8 loses was not measured, which needs at least 64 images held out of training"
    )


def test_an_older_kit_is_described_by_its_calibration_history(written_by_0_1_0):
    facts = facts_of(written_by_0_1_0 / "format-1.kit")
    assert "earlier calibration, the last " in facts["fp32 calibrated"]
    assert "reject above " in facts["fp32 calibrated"]


def test_a_file_gets_one_line_for_each_fact(toy_kit):
    with Kit.open(toy_kit) as kit:
        assert shown(kit).splitlines() == [f"{name}: {value}" for name, value in describe_kit(kit)]


def test_a_narrow_terminal_gets_every_word(toy_kit):
    with Kit.open(toy_kit) as kit:
        words = "".join(f"{name}{value}" for name, value in describe_kit(kit))
        assert "".join(shown(kit, terminal=True).split()) == "".join(words.split())


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"region": Region(x=1, y=2, width=30, height=20)}, "30x20 pixels at (1, 2), stretched to 8x8"),
        ({"resize": "short-side", "resize_to": 9, "preset": "paper"}, "shorter side to 9, centre 8x8"),
    ],
)
def test_the_preprocessing_is_described(kit, change, expected):
    manifest = parse_manifest((kit / MANIFEST).read_bytes())
    preprocessing = manifest.preprocessing.model_copy(update=change)
    seal(kit, manifest.model_copy(update={"preprocessing": preprocessing}))
    assert expected in facts_of(kit)["images"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"bit_depth": 12}, "files with 8 bits a channel, or 16 that hold 12"),
        ({"jpeg_keep": 300}, "JPEG files at a reduced size, shorter side at least 300 pixels"),
    ],
)
def test_the_decoding_is_described(kit, change, expected):
    manifest = parse_manifest((kit / MANIFEST).read_bytes())
    seal(kit, manifest.model_copy(update={"decode": manifest.decode.model_copy(update=change)}))
    assert expected in facts_of(kit)["images"]


def test_a_model_without_parity_is_marked(kit):
    manifest = parse_manifest((kit / MANIFEST).read_bytes())
    fp32 = manifest.models["fp32"].model_copy(update={"parity": None})
    seal(kit, manifest.model_copy(update={"models": {"fp32": fp32}}))
    assert facts_of(kit)["parity"] == "NOT measured"


def test_the_size_of_a_zip_is_given_too(toy_kit, tmp_path):
    zipped = shutil.make_archive(str(tmp_path / "kit"), "zip", toy_kit)
    with Kit.open(zipped) as kit:
        assert describe_size(kit).startswith("16 files and the manifest, ")
        assert describe_size(kit).endswith(" zipped")


def test_a_kit_with_patches_says_so(patch_kit):
    facts = facts_of(patch_kit)
    assert facts["score"].startswith("the larger of image score and patch score")
    assert facts["patch bank"] == "64 patches of 3 values, compared with 8x8 patches of an image"
    assert facts["regions"].startswith("map above ")
    assert "any region: target 10 %, expected 7.7 %" in facts["regions"]
