import os
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest

from msc_edge.errors import SourceError, UsageError
from msc_edge.runtime.tools.evaluate.labelled import LabelledDataset, labelled_dataset, labelled_folders


def labels(found: LabelledDataset) -> dict[str, str]:
    return {image.name: image.label for image in found.images}


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


class TestMvtecLayout:
    def test_each_folder_of_test_is_a_defect_type_and_training_images_are_left_out(self, dataset):
        found = labelled_dataset(dataset)
        assert Counter(image.label for image in found.images) == {
            "good": 12,
            "empty": 4,
            "scratch": 4,
            "stain": 4,
        }
        assert {image.label for image in found.images if not image.is_anomalous} == {"good"}

    def test_names_are_paths_within_the_data_set_wherever_it_is(self, dataset, monkeypatch):
        assert labels(labelled_dataset(dataset))["test/stain/002.png"] == "stain"
        monkeypatch.chdir(dataset.parent)
        assert labels(labelled_dataset(Path("parts"))) == labels(labelled_dataset(dataset))
        assert labels(labelled_dataset(Path("..") / dataset.parent.name / "parts")) == labels(labelled_dataset(dataset))

    def test_the_folder_test_itself_is_accepted(self, dataset):
        assert labels(labelled_dataset(dataset / "test"))["stain/002.png"] == "stain"

    def test_a_defect_type_may_be_named_test(self, tmp_path):
        touch(tmp_path / "good" / "a.png", tmp_path / "test" / "b.png")
        assert labels(labelled_dataset(tmp_path)) == {"good/a.png": "good", "test/b.png": "test"}

    def test_subfolders_belong_to_their_defect_type(self, tmp_path):
        touch(tmp_path / "test" / "good" / "monday" / "a.png", tmp_path / "test" / "dent" / "good" / "b.png")
        assert labels(labelled_dataset(tmp_path)) == {"test/good/monday/a.png": "good", "test/dent/good/b.png": "dent"}

    def test_masks_are_not_a_defect_type(self, tmp_path):
        test = tmp_path / "test"
        touch(
            test / "good" / "a.png", test / "dent" / "b.png", test / "Masks" / "b.png", test / "ground_truth" / "b.png"
        )
        touch(test / "mask wear" / "c.png")
        found = labelled_dataset(tmp_path)
        assert {image.label for image in found.images} == {"good", "dent", "mask wear"}
        assert found.ignored_folders == ("Masks", "ground_truth")

    def test_masks_alone_are_not_a_data_set(self, tmp_path):
        touch(tmp_path / "good" / "a.png", tmp_path / "mask" / "b.png")
        with pytest.raises(SourceError, match="expected test/good and test/<defect type>"):
            labelled_dataset(tmp_path)

    def test_other_files_are_counted(self, tmp_path):
        test = tmp_path / "test"
        touch(test / "good" / "a.png", test / "good" / "notes.txt", test / "dent" / "b.png", test / "overview.png")
        touch(test / "Thumbs.db", test / ".hidden" / "c.png")
        found = labelled_dataset(tmp_path)
        assert (len(found.images), found.other_files) == (2, 2)

    @pytest.mark.parametrize(
        ("files", "reason"),
        [
            ([], "expected test/good"),
            (["test/dent/a.png"], "expected test/good"),
            (["test/good/a.png"], "expected test/good and test/<defect type>"),
            (["train/good/a.png"], "expected test/good"),
            (["test/good/a.txt", "test/dent/a.png"], "good: no images found"),
            (["test/good/a.png", "test/dent/a.txt"], "dent: no images found"),
        ],
    )
    def test_another_layout_is_refused_in_one_line(self, tmp_path, files, reason):
        touch(*(tmp_path / file for file in files))
        with pytest.raises(SourceError, match=reason) as error:
            labelled_dataset(tmp_path)
        assert str(tmp_path) in str(error.value)
        assert "\n" not in str(error.value)

    def test_a_path_that_is_not_a_folder_is_named(self, tmp_path):
        touch(tmp_path / "file")
        with pytest.raises(SourceError, match="file: is a file, where a folder is expected"):
            labelled_dataset(tmp_path / "file")
        with pytest.raises(SourceError, match="none: No such file or directory; check the path"):
            labelled_dataset(tmp_path / "none")


class TestNamedFolders:
    def test_the_name_of_each_abnormal_folder_is_a_defect_type(self, dataset):
        test = dataset / "test"
        found = labelled_folders([test / "good"], [test / "stain", test / "scratch"])
        assert Counter(image.label for image in found.images) == {"good": 12, "stain": 4, "scratch": 4}
        assert labels(found)["stain/002.png"] == "stain"

    def test_names_are_paths_within_the_common_folder(self, tmp_path, monkeypatch):
        touch(tmp_path / "a" / "ok" / "1.png", tmp_path / "b" / "dent" / "1.png")
        expected = {"a/ok/1.png": "good", "b/dent/1.png": "dent"}
        assert labels(labelled_folders([tmp_path / "a" / "ok"], [tmp_path / "b" / "dent"])) == expected
        monkeypatch.chdir(tmp_path / "a")
        assert labels(labelled_folders([Path("ok")], [Path("..") / "b" / "dent"])) == expected
        monkeypatch.chdir(tmp_path / "b" / "dent")
        assert labels(labelled_folders([Path("../../a/ok")], [Path()])) == expected

    def test_several_normal_folders_are_one_label(self, tmp_path):
        touch(tmp_path / "monday" / "a.png", tmp_path / "tuesday" / "a.png", tmp_path / "dent" / "a.png")
        found = labelled_folders([tmp_path / "monday", tmp_path / "tuesday"], [tmp_path / "dent"])
        assert labels(found) == {"monday/a.png": "good", "tuesday/a.png": "good", "dent/a.png": "dent"}

    @pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="needs a second folder below the root: /dev/shm")
    def test_names_are_not_absolute_where_only_the_disk_is_common(self, tmp_path):
        with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
            touch(tmp_path / "ok" / "a.png", Path(folder) / "dent" / "b.png")
            found = labelled_folders([tmp_path / "ok"], [Path(folder) / "dent"])
        assert labels(found) == {f"{tmp_path}/ok/a.png"[1:]: "good", f"{folder}/dent/b.png"[1:]: "dent"}

    @pytest.mark.parametrize(
        ("normal", "abnormal", "reason"),
        [
            (["ok"], [], "pass both --normal DIR and --abnormal DIR"),
            ([], ["dent"], "pass both --normal DIR and --abnormal DIR"),
            (["ok"], ["dent", "other/dent"], "two folders are named dent"),
            (["ok"], ["other/good"], "a folder is named good"),
            (["ok"], ["ok"], "would be both good and ok"),
            (["."], ["dent"], "would be both good and dent"),
            (["ok"], ["dent", "dent/deep"], "would be both dent and deep"),
        ],
    )
    def test_names_that_contradict_each_other_are_refused(self, tmp_path, monkeypatch, normal, abnormal, reason):
        for folder in ("ok", "dent", "dent/deep", "other/dent", "other/good"):
            touch(tmp_path / folder / "a.png")
        monkeypatch.chdir(tmp_path)
        with pytest.raises(UsageError, match=reason):
            labelled_folders([Path(each) for each in normal], [Path(each) for each in abnormal])

    def test_a_missing_or_empty_folder_is_named(self, tmp_path):
        touch(tmp_path / "ok" / "a.png")
        (tmp_path / "empty").mkdir()
        for name in ("empty", "none", "ok/a.png"):
            with pytest.raises(SourceError, match=f"{name}: "):
                labelled_folders([tmp_path / "ok"], [tmp_path / name])


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")
class TestLinks:
    def test_a_linked_file_counts_once_under_its_first_name(self, tmp_path):
        touch(tmp_path / "test" / "good" / "a.png", tmp_path / "test" / "dent" / "b.png")
        (tmp_path / "test" / "good" / "c.png").symlink_to("a.png")
        assert labels(labelled_dataset(tmp_path)) == {"test/good/a.png": "good", "test/dent/b.png": "dent"}

    def test_a_linked_folder_has_the_name_of_its_link(self, tmp_path):
        touch(tmp_path / "set" / "test" / "good" / "a.png", tmp_path / "elsewhere" / "b.png")
        (tmp_path / "set" / "test" / "dent").symlink_to(tmp_path / "elsewhere")
        assert labels(labelled_dataset(tmp_path / "set"))["test/dent/b.png"] == "dent"

    def test_a_file_cannot_have_two_labels(self, tmp_path):
        touch(tmp_path / "test" / "good" / "a.png", tmp_path / "test" / "dent" / "b.png")
        (tmp_path / "test" / "dent" / "c.png").symlink_to("../good/a.png")
        with pytest.raises(UsageError, match=r"c\.png: is the same file as .*a\.png and would be both good and dent"):
            labelled_dataset(tmp_path)

    def test_broken_and_circular_links_are_kept_as_images(self, tmp_path):
        touch(tmp_path / "test" / "good" / "a.png", tmp_path / "test" / "dent" / "b.png")
        (tmp_path / "test" / "good" / "nowhere.png").symlink_to("none.png")
        (tmp_path / "test" / "good" / "circle.png").symlink_to("circle.png")
        (tmp_path / "test" / "good" / "round").symlink_to(".")
        assert {"test/good/nowhere.png", "test/good/circle.png"} <= set(labels(labelled_dataset(tmp_path)))


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="file names there are text")
def test_names_that_are_not_valid_text_become_valid(tmp_path):
    touch(
        tmp_path / "test" / "good" / os.fsdecode(b"n\xfcchtern.png"),
        tmp_path / "test" / os.fsdecode(b"b\xf6s") / "x.png",
    )
    found = labelled_dataset(tmp_path)
    assert labels(found) == {"test/good/n\\xfcchtern.png": "good", "test/b\\xf6s/x.png": "b\\xf6s"}
    assert all(image.path.exists() for image in found.images)


def test_a_folder_that_cannot_be_listed_is_named(tmp_path, monkeypatch):
    touch(tmp_path / "test" / "good" / "a.png")

    def iterdir(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", iterdir)
    with pytest.raises(SourceError, match="test: cannot be listed: Permission denied; check the permissions"):
        labelled_dataset(tmp_path)
