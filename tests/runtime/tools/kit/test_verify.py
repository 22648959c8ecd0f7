import pytest

from msc_edge.errors import KitError
from msc_edge.kit.layout import INDEX, MANIFEST
from msc_edge.kit.manifest import parse_manifest
from msc_edge.kit.opening import Kit, seal
from msc_edge.preprocessing import Region
from msc_edge.runtime.tools.verify import verify


def changed(kit, **changes):
    seal(kit, parse_manifest((kit / MANIFEST).read_bytes()).model_copy(update=changes))
    return kit


def test_a_good_kit_is_opened_in_all_its_parts(toy_kit):
    with Kit.open(toy_kit) as kit:
        assert verify(kit) == [
            "the model opens",
            "the bank holds 12 x 192",
            "the index opens",
            "thumbnails/00000.jpg was scored",
        ]


def test_the_index_is_opened_even_where_the_kit_prefers_exact_search(kit):
    with Kit.open(kit) as opened:
        assert opened.manifest.bank.search == "exact"
    index = (kit / INDEX).read_bytes()
    (kit / INDEX).write_bytes(index[:100] + index[200:])
    changed(kit)
    with Kit.open(kit) as opened, pytest.raises(KitError, match=r"bank\.hnsw"):
        verify(opened)


def test_a_kit_without_index_and_thumbnails_has_nothing_to_say_of_them(kit):
    for path in (kit / INDEX, *(kit / "thumbnails").iterdir()):
        path.unlink()
    bank = parse_manifest((kit / MANIFEST).read_bytes()).bank.model_copy(update={"index": None})
    with Kit.open(changed(kit, bank=bank)) as opened:
        assert verify(opened) == ["the model opens", "the bank holds 12 x 192"]


def test_a_thumbnail_smaller_than_the_region_is_no_defect_of_the_kit(kit):
    preprocessing = parse_manifest((kit / MANIFEST).read_bytes()).preprocessing
    region = Region(x=100, y=0, width=640, height=480)
    changed(kit, preprocessing=preprocessing.model_copy(update={"region": region}))
    with Kit.open(kit) as opened:
        assert verify(opened)[-1].startswith("no image was scored, for the image is 64x48")
