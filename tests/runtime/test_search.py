import pytest

from msc_edge.errors import UsageError
from msc_edge.kit.layout import INDEX_FILES, MANIFEST
from msc_edge.kit.manifest import parse_manifest
from msc_edge.kit.writing import seal
from msc_edge.runtime import Detector


def test_both_searches_give_identical_results(toy, toy_kit):
    exact, hnsw = (Detector.load(toy_kit, search=search) for search in ("exact", "hnsw"))
    assert (exact.bank.search.name, hnsw.bank.search.name) == ("exact", "hnsw")
    for seed in range(100, 140):
        image = toy.draw(seed, [None, "scratch", "stain", "empty"][seed % 4])
        assert exact.score(image) == hnsw.score(image)


def test_a_kit_without_index_is_searched_exactly_and_refuses_hnsw(kit, toy, detector):
    manifest = parse_manifest((kit / MANIFEST).read_bytes())
    model = manifest.models["fp32"]
    bank = model.banks.images.model_copy(update={"index": None})
    model = model.model_copy(update={"banks": model.banks.model_copy(update={"images": bank})})
    (kit / INDEX_FILES["fp32"]).unlink()
    seal(kit, manifest.model_copy(update={"models": {"fp32": model}}))
    image = toy.draw(100)
    assert Detector.load(kit).score(image).nearest_images == detector.score(image).nearest_images
    with pytest.raises(UsageError, match="no HNSW index"):
        Detector.load(kit, search="hnsw")


def test_an_unknown_search_is_refused(toy_kit):
    with pytest.raises(UsageError, match="exact"):
        Detector.load(toy_kit, search="fast")  # pyright: ignore[reportArgumentType]
