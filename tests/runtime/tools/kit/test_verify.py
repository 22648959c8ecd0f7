import shutil
import sys

import pytest

from msc_edge.errors import KitError
from msc_edge.kit.layout import INDEX_FILES, MANIFEST
from msc_edge.kit.manifest import parse_manifest
from msc_edge.kit.opening import Kit
from msc_edge.kit.writing import seal
from msc_edge.preprocessing import Region
from msc_edge.runtime.tools.kit.verify import verify

OPENS = "model {} opens, with a memory bank of 12 x 192, and scores the check image"
INDEX = INDEX_FILES["fp32"]


def changed(kit, **changes):
    seal(kit, parse_manifest((kit / MANIFEST).read_bytes()).model_copy(update=changes))
    return kit


def checks_of(kit):
    with Kit.open(kit) as opened:
        return verify(opened)


def test_every_part_of_a_kit_is_opened(toy_kit):
    assert checks_of(toy_kit) == [OPENS.format("fp32"), "the index opens", "thumbnails/00000.jpg was scored"]


def test_every_model_of_a_kit_is_opened(int8_kit):
    assert checks_of(int8_kit) == [
        OPENS.format("fp32"),
        OPENS.format("int8"),
        "the index opens",
        "thumbnails/00000.jpg was scored",
    ]


def test_a_model_that_this_processor_must_not_use_is_named(int8_kit, tmp_path):
    kit = shutil.copytree(int8_kit, tmp_path / "other.kit")
    models = parse_manifest((kit / MANIFEST).read_bytes()).models
    quantization = models["int8"].quantization
    assert quantization
    quantization = quantization.model_copy(update={"check_embedding": [1.0]})
    changed(kit, models={**models, "int8": models["int8"].model_copy(update={"quantization": quantization})})
    opens = OPENS.format("int8").removesuffix(", and scores the check image")
    assert f"{opens}, but this processor must NOT use it (other embeddings)" in checks_of(kit)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_each_index_is_opened_although_the_kit_uses_exact_search(int8_kit, tmp_path, precision):
    kit = shutil.copytree(int8_kit, tmp_path / "damaged.kit")
    with Kit.open(kit) as opened:
        assert opened.model(precision).banks.images.search == "exact"
    index = (kit / INDEX_FILES[precision]).read_bytes()
    (kit / INDEX_FILES[precision]).write_bytes(index[:100] + index[200:])
    changed(kit)
    with pytest.raises(KitError, match=INDEX_FILES[precision].replace(".", r"\.")):
        checks_of(kit)


def test_without_hnswlib_the_index_is_not_opened(toy_kit, monkeypatch):
    monkeypatch.setitem(sys.modules, "hnswlib", None)
    assert "the index was NOT opened: hnswlib is not installed" in checks_of(toy_kit)


def test_a_kit_without_index_and_thumbnails_has_no_checks_of_them(kit):
    for path in (kit / INDEX, *(kit / "thumbnails").iterdir()):
        path.unlink()
    fp32 = parse_manifest((kit / MANIFEST).read_bytes()).models["fp32"]
    bank = fp32.banks.images.model_copy(update={"index": None})
    fp32 = fp32.model_copy(update={"banks": fp32.banks.model_copy(update={"images": bank})})
    assert checks_of(changed(kit, models={"fp32": fp32})) == [OPENS.format("fp32")]


def test_a_thumbnail_smaller_than_the_region_of_interest_is_no_defect(kit):
    preprocessing = parse_manifest((kit / MANIFEST).read_bytes()).preprocessing
    region = Region(x=100, y=0, width=640, height=480)
    changed(kit, preprocessing=preprocessing.model_copy(update={"region": region}))
    assert checks_of(kit)[-1].startswith("thumbnails/00000.jpg was not scored: the image has 64x48 pixels")
