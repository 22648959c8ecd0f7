"""A damaged kit is one KitError, whatever the damage: never a crash, never a score."""

import hashlib
import json
import random
import re
import shutil
import stat
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import hnswlib
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.helper import make_node

from msc_edge.errors import KitError
from msc_edge.kit.layout import (
    BANK_FILES,
    INDEX_FILES,
    MANIFEST,
    MANIFEST_DIGEST,
    MODEL_FILES,
    NORMAL_IMAGES,
    thumbnail_file,
)
from msc_edge.kit.manifest import parse_manifest
from msc_edge.kit.writing import seal
from msc_edge.preprocessing import Region
from msc_edge.runtime import Detector

MODEL, BANK, INDEX = MODEL_FILES["fp32"], BANK_FILES["fp32"], INDEX_FILES["fp32"]
FILES = [MODEL, BANK, INDEX, NORMAL_IMAGES, MANIFEST, MANIFEST_DIGEST, thumbnail_file(3)]
CHANGED_BYTES = 300

# Runs in a process of its own, so that a crash of native code fails the test.
CHANGE_AND_LOAD = """
import random, sys
from pathlib import Path
from msc_edge.errors import KitError
from msc_edge.runtime import Detector

kit, seed, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
random.seed(seed)
files = sorted(path for path in kit.rglob("*") if path.is_file())
for _ in range(count):
    path = random.choices(files, [each.stat().st_size for each in files])[0]
    whole = path.read_bytes()
    place = random.randrange(len(whole))
    changed = bytearray(whole)
    changed[place] ^= random.randrange(1, 256)
    path.write_bytes(changed)
    try:
        Detector.load(kit, search="hnsw")
    except KitError as error:
        print("refused", str(error).count(chr(10)))
    else:
        print("ACCEPTED", path.name, place)
    path.write_bytes(whole)
Detector.load(kit, search="hnsw")
"""


def test_every_changed_byte_is_found(kit):
    done = subprocess.run(
        [sys.executable, "-c", CHANGE_AND_LOAD, str(kit), "0", str(CHANGED_BYTES)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["refused 0"] * CHANGED_BYTES


def refused(kit: Path, reason: str) -> None:
    with pytest.raises(KitError, match=reason):
        Detector.load(kit, search="hnsw")


class TestFiles:
    @pytest.mark.parametrize("name", FILES)
    def test_each_file_must_exist(self, kit, name):
        (kit / name).unlink()
        refused(kit, f"{name} is missing")

    @pytest.mark.parametrize("name", FILES)
    @pytest.mark.parametrize("keep", [0, 0.5, 2])
    def test_each_file_must_have_its_length(self, kit, name, keep):
        data = (kit / name).read_bytes()
        (kit / name).write_bytes((data * 2)[: int(keep * len(data))])
        refused(kit, name)

    def test_an_additional_file_is_named(self, kit):
        (kit / "thumbnails" / "extra.jpg").write_bytes(b"x")
        refused(kit, "thumbnails/extra.jpg is not listed")

    @pytest.mark.parametrize("name", [".DS_Store", "thumbnails/Thumbs.db", "desktop.ini"])
    def test_files_of_operating_systems_are_ignored(self, kit, name, toy, detector):
        (kit / name).write_bytes(b"x")
        assert Detector.load(kit, threads=1).score(toy.draw(100)) == detector.score(toy.draw(100))

    def test_a_renamed_index_is_missing_by_its_name(self, kit):
        (kit / INDEX).rename(kit / "index.hnsw")
        refused(kit, "bank.hnsw is missing")

    def test_two_exchanged_files_are_found(self, kit):
        first, second = (kit / "thumbnails" / name for name in ("00000.jpg", "00001.jpg"))
        data = first.read_bytes()
        first.write_bytes(second.read_bytes())
        second.write_bytes(data)
        refused(kit, "thumbnails/0000[01].jpg")

    def test_a_file_of_another_kit_is_found(self, kit):
        np.save(kit / BANK, np.load(kit / BANK)[::-1].copy())
        refused(kit, "bank.npy: SHA-256 differs")

    def test_a_linked_file_is_verified_like_any_other(self, kit, tmp_path):
        moved = shutil.move(kit / MODEL, tmp_path / "elsewhere.onnx")
        try:
            (kit / MODEL).symlink_to(moved)
        except OSError:
            pytest.skip("links cannot be made here")
        Detector.load(kit)
        Path(moved).write_bytes(b"something else")
        refused(kit, MODEL)

    @pytest.mark.parametrize("path", ["nowhere", "a\0b", "x" * 5000, ""])
    def test_a_missing_kit(self, path, tmp_path):
        refused(tmp_path / path, ".")

    def test_an_empty_folder_is_not_a_kit(self, tmp_path):
        refused(tmp_path, "manifest.json is missing")


def resealed(kit: Path, **changes: object) -> None:
    """A kit that was built wrongly or with bad intent: all its hashes agree."""
    manifest = parse_manifest((kit / MANIFEST).read_bytes())
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # pydantic's, about values of other types
        seal(kit, manifest.model_copy(update=changes))


def model_of(kit: Path) -> onnx.ModelProto:
    return onnx.load(kit / MODEL)


class TestSealedWrongly:
    @pytest.mark.parametrize("version", [0, 3, 99, "1", None, 1.5, [1], True])
    def test_another_format_version_is_refused_by_its_number(self, kit, version):
        resealed(kit, format_version=version)
        refused(kit, "format 3|format 99" if version in (3, 99) else "format_version is ")

    def test_a_model_with_data_in_other_files_is_refused_before_onnxruntime_opens_it(self, kit, tmp_path):
        (tmp_path / "secret").write_bytes(bytes(12))
        model = model_of(kit)
        mean = next(each for each in model.graph.initializer if each.name == "mean")
        mean.ClearField("raw_data")
        mean.data_location = TensorProto.EXTERNAL
        mean.external_data.add(key="location", value="../secret")
        (kit / MODEL).write_bytes(model.SerializeToString())
        resealed(kit)
        refused(kit, "external data")

    def test_a_model_that_needs_more_memory_than_any_machine_has(self, kit):
        model = model_of(kit)
        model.graph.node[-1].output[0] = "found"
        times = np.array([1, 1 << 20, 1 << 20, 1], np.int64)  # 128 x 96 x 2**40 x 3 x 4 bytes
        model.graph.initializer.append(numpy_helper.from_array(times, "times"))
        model.graph.node.extend(
            [
                make_node("Shape", ["image"], ["shape"]),
                make_node("Mul", ["shape", "times"], ["large"]),
                make_node("ConstantOfShape", ["large"], ["zeros"]),
                make_node("ReduceMax", ["zeros"], ["zero"], keepdims=0),
                make_node("Add", ["found", "zero"], ["embedding"]),
            ]
        )
        (kit / MODEL).write_bytes(model.SerializeToString())
        resealed(kit)
        refused(kit, rf"{re.escape(str(kit))}: there is not enough memory to open it and to score its check image")

    @pytest.mark.parametrize(
        "damage", ["empty", "text", "halved", "no operators", "a loop", "other output", "two outputs"]
    )
    def test_a_file_that_is_not_a_model(self, kit, damage):
        model = model_of(kit)
        if damage == "a loop":
            body = helper.make_graph([], "body", [], [])
            model.graph.node.append(make_node("Loop", ["", ""], [], body=body))
        if damage == "no operators":
            del model.graph.node[:]
        if damage == "other output":
            model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 191
        if damage == "two outputs":
            model.graph.output.append(helper.make_tensor_value_info("flat", TensorProto.FLOAT, [1, 192]))
        data = model.SerializeToString()
        data = {"empty": b"", "text": b"hello, world", "halved": data[: len(data) // 2]}.get(damage, data)
        (kit / MODEL).write_bytes(data)
        resealed(kit)
        refused(kit, "model.onnx")

    @pytest.mark.parametrize(
        "bank",
        [
            np.zeros((12, 192), np.float32),
            np.full((12, 192), np.nan, np.float32),
            np.eye(12, 192, dtype=np.float64),
            np.eye(11, 192, dtype=np.float32),
            np.eye(12, 191, dtype=np.float32),
            np.eye(12, 192, dtype=np.float32)[None],
        ],
        ids=["zeros", "nan", "float64", "one row less", "one column less", "one dimension more"],
    )
    def test_an_array_that_is_not_a_memory_bank(self, kit, bank):
        np.save(kit / BANK, bank)
        resealed(kit)
        refused(kit, "bank.npy")

    def test_a_pickle_in_place_of_the_memory_bank_is_not_opened(self, kit):
        np.save(kit / BANK, np.array([{"a": 1}], dtype=object), allow_pickle=True)
        resealed(kit)
        refused(kit, "bank.npy")

    def test_an_index_over_other_vectors_is_refused(self, kit):
        vectors = np.random.default_rng(1).normal(size=(12, 192)).astype(np.float32)
        index = hnswlib.Index(space="cosine", dim=192)
        index.init_index(12, M=8, ef_construction=100)
        index.add_items(vectors)
        index.save_index(str(kit / INDEX))
        resealed(kit)
        refused(kit, "bank.hnsw: not an index over this memory bank")

    @pytest.mark.parametrize(
        ("node", "reason"),
        [
            (make_node("Mul", ["flat", "no"], ["embedding"]), "has length nan, not 1"),
            (make_node("Identity", ["flat"], ["embedding"]), "has length [0-9.]*, not 1"),
            (
                make_node("Compress", ["flat", "some"], ["embedding"], axis=1),
                r"embedding is float32 \(1, 7\), expected",
            ),
        ],
        ids=["nan", "no unit length", "another shape than the file declares"],
    )
    def test_a_model_whose_embedding_of_the_check_image_is_wrong(self, kit, node, reason):
        model = model_of(kit)
        model.graph.node.pop()
        for name, value in (("no", np.array(np.nan, np.float32)), ("some", np.ones(7, bool))):
            model.graph.initializer.append(numpy_helper.from_array(value, name))
        model.graph.node.append(node)
        (kit / MODEL).write_bytes(model.SerializeToString())
        resealed(kit)
        refused(kit, reason)

    def test_patch_distances_that_are_nan_are_not_hidden_by_the_image_score(self, patch_kit, tmp_path):
        kit = shutil.copytree(patch_kit, tmp_path / "nan.kit")
        model = model_of(kit)
        model.graph.node[-1].output[0] = "found"
        model.graph.initializer.append(numpy_helper.from_array(np.array(np.nan, np.float32), "no"))
        model.graph.node.append(make_node("Mul", ["found", "no"], ["patch_distances"]))
        (kit / MODEL).write_bytes(model.SerializeToString())
        resealed(kit)
        refused(kit, "the output for this image is not finite")

    def test_a_region_of_interest_that_no_image_contains(self, kit):
        region = Region(x=0, y=0, width=60_000, height=60_000)
        preprocessing = parse_manifest((kit / MANIFEST).read_bytes()).preprocessing
        resealed(kit, preprocessing=preprocessing.model_copy(update={"region": region}))
        refused(kit, "no image contains its region of interest: larger than 100 megapixels")

    @pytest.mark.parametrize("names", ["[]", '["one"]', '{"a": 1}', "not json", ""])
    def test_names_that_do_not_fit_the_memory_bank(self, kit, names):
        (kit / NORMAL_IMAGES).write_text(names)
        resealed(kit)
        refused(kit, "normal_images.json")

    @pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/b/c", "C:\\x", ".hidden", "a\\b"])
    def test_a_manifest_that_names_files_elsewhere_is_refused(self, kit, name):
        document = json.loads((kit / MANIFEST).read_bytes())
        document["files"][name] = {"sha256": "0" * 64, "bytes": 1}
        write_manifest(kit, json.dumps(document).encode())
        refused(kit, "files")

    @pytest.mark.parametrize(
        "text",
        [b"", b"[]", b"null", b"{", b"\xff\xfe", b"[" * 100_000, b'{"format_version": 1}', b'{"format_version": 2}'],
    )
    def test_a_file_that_is_not_a_manifest(self, kit, text):
        write_manifest(kit, text)
        refused(kit, "manifest.json")


def write_manifest(kit: Path, text: bytes) -> None:
    (kit / MANIFEST).write_bytes(text)
    (kit / MANIFEST_DIGEST).write_text(f"{hashlib.sha256(text).hexdigest()}  {MANIFEST}\n")


def zip_of(folder: Path, target: Path, *, top: str = "", compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(target, "w", compression) as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, top + path.relative_to(folder).as_posix())
    return target


class TestZip:
    @pytest.mark.parametrize("top", ["", "toy.kit/", "Kit für Linie 3/"])
    @pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
    def test_a_zip_has_the_results_of_its_folder(self, toy, toy_kit, detector, tmp_path, top, compression):
        zipped = Detector.load(zip_of(toy_kit, tmp_path / "kit.zip", top=top, compression=compression), search="hnsw")
        for seed in range(100, 104):
            assert zipped.score(toy.draw(seed)) == detector.score(toy.draw(seed))

    def test_the_unpacked_files_are_removed(self, toy_kit, tmp_path, monkeypatch):
        temporary = tmp_path / "temporary"
        temporary.mkdir()
        monkeypatch.setattr("tempfile.tempdir", str(temporary))
        path = zip_of(toy_kit, tmp_path / "kit.zip")
        Detector.load(path)
        assert not list(temporary.iterdir())
        path.write_bytes(path.read_bytes()[:20_000])
        refused(path, "zip")
        assert not list(temporary.iterdir())

    @pytest.mark.parametrize("name", ["../evil", "thumbnails/../../evil", "/evil", "a\\..\\evil", "C:/evil"])
    def test_a_path_outside_the_kit_is_refused(self, toy_kit, tmp_path, name):
        path = zip_of(toy_kit, tmp_path / "kit.zip")
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(name, b"evil")
        refused(path, "a path outside the kit|not listed")
        assert not list(tmp_path.rglob("*evil*"))

    def test_more_files_than_any_manifest_lists_are_refused(self, tmp_path):
        path, count = tmp_path / "kit.zip", (1 << 17) + 1
        entry = b"PK\1\2" + bytes(24) + (1).to_bytes(2, "little") + bytes(16) + b"a"
        size, most = (count * len(entry)).to_bytes(8, "little"), bytes([255])
        end = b"PK\6\6" + (44).to_bytes(8, "little") + bytes(12) + 2 * count.to_bytes(8, "little") + size + bytes(8)
        where = b"PK\6\7" + bytes(4) + (count * len(entry)).to_bytes(8, "little") + b"\1\0\0\0"
        path.write_bytes(count * entry + end + where + b"PK\5\6" + bytes(4) + 12 * most + bytes(2))
        refused(path, f"the zip holds {count} files, which no kit does")

    def test_a_link_is_refused(self, toy_kit, tmp_path):
        path = tmp_path / "kit.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for file in toy_kit.rglob("*"):
                if file.name != MODEL:
                    archive.write(file, file.relative_to(toy_kit).as_posix())
            link = zipfile.ZipInfo(MODEL)
            link.create_system = 3
            link.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(link, "/etc/passwd")
        refused(path, "link")

    def test_a_duplicate_name_is_refused(self, toy_kit, tmp_path):
        path = zip_of(toy_kit, tmp_path / "kit.zip")
        with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr(MODEL, b"another")
        refused(path, "twice")

    def test_a_zip_bomb_is_not_unpacked(self, kit, tmp_path):
        (kit / "thumbnails" / "00000.jpg").write_bytes(bytes(40 << 20))
        path = zip_of(kit, tmp_path / "kit.zip")
        assert path.stat().st_size < 200_000
        refused(path, "thumbnails/00000.jpg: more bytes")

    @pytest.mark.parametrize("data", [b"", b"PK", b"PK\x05\x06" + bytes(18), b"PK\x05\x06" + bytes(5)])
    def test_a_file_that_is_not_an_archive(self, tmp_path, data):
        path = tmp_path / "kit.zip"
        path.write_bytes(data)
        refused(path, "zip|manifest.json is missing")

    def test_random_bytes_are_not_an_archive(self, tmp_path):
        path = tmp_path / "kit.zip"
        for seed in range(50):
            data = random.Random(seed).randbytes(500 * seed)
            path.write_bytes(b"PK\x03\x04" * (seed % 2) + data)
            refused(path, "not a zip, or a damaged one")

    def test_a_truncated_zip_is_refused(self, toy_kit, tmp_path):
        path = zip_of(toy_kit, tmp_path / "kit.zip")
        whole = path.read_bytes()
        for length in range(0, len(whole), 997):
            path.write_bytes(whole[:length])
            refused(path, "zip")

    def test_a_changed_byte_is_refused_or_changes_nothing(self, toy, toy_kit, detector, tmp_path):
        """Some bytes of an archive, such as time stamps, do not belong to the kit."""
        path = zip_of(toy_kit, tmp_path / "kit.zip")
        whole, rng = path.read_bytes(), random.Random(0)
        image = toy.draw(100)
        expected, outcomes = detector.score(image), set()
        for _ in range(100):
            changed = bytearray(whole)
            changed[rng.randrange(len(whole))] ^= rng.randrange(1, 256)
            path.write_bytes(changed)
            try:
                assert Detector.load(path, threads=1).score(image) == expected
                outcomes.add("nothing")
            except KitError:
                outcomes.add("refused")
        assert outcomes == {"nothing", "refused"}
