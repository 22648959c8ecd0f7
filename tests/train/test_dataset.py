import re
import shutil
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from msc_edge.errors import KitError, SourceError, UsageError
from msc_edge.groups import numbered
from msc_edge.train.dataset import (
    NormalImage,
    Role,
    find_normal_images,
    fingerprint,
    groups_of,
    hold_out,
    normal_folder,
    read_image_table,
    write_image_table,
)


def create(folder: Path, *names: str) -> Path:
    """Create files with different content. Finding images does not decode them."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


def table(count: int) -> list[NormalImage]:
    return [NormalImage(f"{i:04d}.png", sha256(str(i).encode()).hexdigest(), "bank") for i in range(count)]


def hold(images: list[NormalImage], *, holdout: float, group_by: str | None = None) -> list[NormalImage]:
    """Hold out groups of the paths."""
    usable = [image.path for image in images if image.role in ("bank", "calibration")]
    return hold_out(images, holdout=holdout, groups=groups_of(usable, group_by).tolist(), group_by=group_by)


def held_out_places(images: list[NormalImage]) -> list[int]:
    return [i for i, image in enumerate(images) if image.role == "calibration"]


@pytest.mark.parametrize(
    ("files", "found"),
    [
        (["a.png", "b.png"], "."),
        (["train/good/a.png", "test/good/b.png", "test/crack/c.png", "ground_truth/crack/c.png"], "train/good"),
        (["train/normal/a.png", "test/crack/c.png"], "train/normal"),
        (["monday/line 1/a.png", "tuesday/b.png"], "."),
        (["good/a.png"], "."),
        (["good/a.png", "good/deep/er/b.png", "readme.txt"], "."),
        (["good/a.png", ".cache/x.png"], "."),  # hidden folders are not searched
        (["train/crack/a.png"], "."),
    ],
)
def test_normal_images_are_found_in_the_known_layouts(files: list[str], found: str, tmp_path: Path) -> None:
    assert normal_folder(create(tmp_path, *files)) == tmp_path / found


@pytest.mark.parametrize(
    ("files", "good"),
    [
        (["good/a.png", "defect/b.png", "mask/c.png"], "good"),
        (["test/crack/a.png", "good/b.png"], "good"),
        (["normal/a.png", "abnormal/b.png"], "normal"),
    ],
)
def test_a_good_folder_with_sibling_folders_is_refused(files: list[str], good: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="would be used as normal images") as refused:
        normal_folder(create(tmp_path, *files))
    assert f"pass --normal {tmp_path / good}" in str(refused.value)


def test_a_missing_folder_and_a_file_are_refused(tmp_path: Path) -> None:
    create(tmp_path, "a.png")
    for path, reason in (("nowhere", "No such file or directory"), ("a.png", "it is not a folder")):
        with pytest.raises(SourceError, match=f"--normal .*{path}: {reason}; check the path"):
            normal_folder(tmp_path / path)


def test_an_empty_path_is_not_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(create(tmp_path, "a.png"))
    with pytest.raises(SourceError, match="the path is empty"):
        normal_folder("")
    assert normal_folder(".") == Path()


def test_images_in_subfolders_are_listed_in_order_with_forward_slashes(tmp_path: Path) -> None:
    create(tmp_path, "b.png", "a/z.JPG", "a/b/c/d.tiff", "ü/ö.bmp", "notes.txt", ".hidden.png")
    images = find_normal_images(tmp_path)
    assert [image.path for image in images] == ["a/b/c/d.tiff", "a/z.JPG", "b.png", "ü/ö.bmp"]
    assert images[2].sha256 == sha256(b"b.png").hexdigest()
    assert all(image.role == "bank" for image in images)


def test_all_identical_files_but_the_first_are_duplicates(tmp_path: Path) -> None:
    create(tmp_path, "a.png", "c.png")
    for copy in ("b.png", "z/again.jpg"):
        (tmp_path / copy).parent.mkdir(exist_ok=True)
        (tmp_path / copy).write_bytes((tmp_path / "a.png").read_bytes())
    roles = {image.path: image.role for image in find_normal_images(tmp_path)}
    assert roles == {"a.png": "bank", "b.png": "duplicate", "c.png": "bank", "z/again.jpg": "duplicate"}


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no images found"):
        find_normal_images(create(tmp_path, "notes.txt"))


@pytest.mark.parametrize("count", [0, 1, 2])
def test_fewer_than_three_images_are_refused(count: int) -> None:
    with pytest.raises(SourceError, match=f", {count} are readable and not duplicates; at least 3"):
        hold(table(count), holdout=0.2)


def test_duplicates_and_unreadable_files_do_not_count_as_images() -> None:
    images = [*table(2), NormalImage("copy.png", "0" * 64, "duplicate"), NormalImage("bad.png", "1" * 64, "unreadable")]
    with pytest.raises(SourceError, match=r"^of 4 images found, 2 are readable"):
        hold(images, holdout=0.2)


@given(st.integers(3, 400), st.floats(0.01, 0.9))
def test_the_share_is_held_out_and_at_least_two_images_stay(count: int, holdout: float) -> None:
    images = hold(table(count), holdout=holdout)
    held = held_out_places(images)
    assert len(held) >= 1
    assert count - len(held) >= 2
    assert abs(len(held) - holdout * count) <= 1 or len(held) in (1, count - 2)
    assert [image.path for image in images] == [image.path for image in table(count)]


@pytest.mark.parametrize(("count", "holdout"), [(3, 0.2), (37, 0.2), (100, 0.2), (761, 0.2), (761, 0.9), (5000, 0.1)])
def test_held_out_images_form_at_most_ten_blocks_spread_over_the_order(count: int, holdout: float) -> None:
    held = held_out_places(hold(table(count), holdout=holdout))
    starts = [place for place in held if place - 1 not in held]
    assert len(starts) <= 10
    if len(held) >= 10 and holdout < 0.5:
        assert len(starts) == 10
        ends = [place for place in held if place + 1 not in held]
        # Ten parts of the order, one block in the middle of each.
        for part, (start, end) in enumerate(zip(starts, ends, strict=True)):
            assert (start + end) / 2 / count == pytest.approx((part + 0.5) / 10, abs=2.1 / count)
        sizes = [end - start + 1 for start, end in zip(starts, ends, strict=True)]
        assert max(sizes) - min(sizes) <= 1


def test_blocks_skip_images_that_are_not_used() -> None:
    images = table(40)
    for place in range(0, 40, 3):
        images[place] = NormalImage(images[place].path, images[place].sha256, "duplicate")
    held = hold(images, holdout=0.2)
    assert [i for i, image in enumerate(held) if image.role == "duplicate"] == list(range(0, 40, 3))
    assert len(held_out_places(held)) == round(0.2 * 26)


def test_holding_out_again_gives_the_same_split() -> None:
    once = hold(table(50), holdout=0.2)
    assert hold(once, holdout=0.2) == once


def images_at(*paths: str) -> list[NormalImage]:
    return [NormalImage(path, sha256(path.encode()).hexdigest(), "bank") for path in paths]


@pytest.mark.parametrize(
    ("group_by", "groups"),
    [
        ("folder", [0, 1, 2, 2]),
        (r"part_(\d+)", [0, 0, 1, 2]),
        (r"(?:^|/)part_(\d)", [0, 0, 1, 1]),
        (r"^(.*?)part", [0, 1, 2, 2]),
        (None, [0, 1, 2, 3]),
    ],
)
def test_the_group_of_a_path(group_by: str | None, groups: list[int]) -> None:
    paths = ["part_1.png", "a/part_1.png", "a/b/part_2.png", "a/b/part_22.png"]
    assert groups_of(paths, group_by).tolist() == groups


@given(
    st.lists(st.integers(0, 30), min_size=3, max_size=200).filter(lambda groups: len(set(groups)) > 1),
    st.floats(0.01, 0.9),
)
def test_groups_are_not_split_and_no_other_group_is_nearer_to_the_share(groups: list[int], holdout: float) -> None:
    images = images_at(*(f"{place:03d}_part{group}.png" for place, group in enumerate(groups)))
    count = len(groups)
    wanted = min(count - 2, max(1, round(holdout * count)))
    sizes = {group: groups.count(group) for group in set(groups)}
    try:
        held = hold(images, holdout=holdout, group_by=r"part(\d+)")
    except UsageError as refused:
        smallest = min(sizes.values())
        assert smallest >= 2 * wanted
        share = re.search(r"--holdout ([0-9.]+)", str(refused))
        assert share
        assert held_out_places(hold(images, holdout=float(share[1]), group_by=r"part(\d+)"))
        return
    out = {groups[place] for place in held_out_places(held)}
    in_bank = {group for group, image in zip(groups, held, strict=True) if image.role == "bank"}
    assert out
    assert not out & in_bank
    number = len(held_out_places(held))
    assert count - number >= 2
    for group in in_bank:
        if count - number - sizes[group] >= 2:
            assert abs(number + sizes[group] - wanted) >= abs(number - wanted)
    assert hold(held, holdout=holdout, group_by=r"part(\d+)") == held  # the same result again


@pytest.mark.parametrize("parts", [20, 50, 128, 700])
def test_held_out_groups_are_spread_over_the_order(parts: int) -> None:
    images = images_at(*(f"{part:04d}/{view}.png" for part in range(parts) for view in "abc"))
    places = held_out_places(hold(images, holdout=0.2, group_by="folder"))
    assert len(places) == pytest.approx(0.2 * 3 * parts, abs=1.5)
    held = {place // 3 for place in places}
    tenths = [sum(place * parts // 10 <= group < (place + 1) * parts // 10 for group in held) for place in range(10)]
    assert max(tenths) - min(tenths) <= 2


@given(st.lists(st.integers(0, 8), min_size=3, max_size=60), st.floats(0.05, 0.9))
@example([0, 0, 1, 1, 2, 2], 0.125)
@example([0, 0, 0, 1, 1, 1], 0.05)
def test_groups_without_a_pattern_always_have_a_split(groups: list[int], holdout: float) -> None:
    """All images may be alike: then a part of the one group is held out."""
    numbers = numbered(np.array(groups)).tolist()
    held = hold_out(table(len(groups)), holdout=holdout, groups=numbers)
    assert [image.group for image in held] == numbers
    out, in_bank = ({image.group for image in held if image.role == role} for role in ("calibration", "bank"))
    assert held_out_places(held)
    assert sum(image.role == "bank" for image in held) >= 2
    assert not out & in_bank or len(set(groups)) == 1


def test_duplicates_are_in_no_group() -> None:
    images = [*images_at("a/1.png", "a/2.png", "b/1.png", "b/2.png"), NormalImage("nowhere", "0" * 64, "duplicate")]
    held = hold(images, holdout=0.5, group_by=r"^(\w)/")
    assert [image.role for image in held] == ["bank"] * 2 + ["calibration"] * 2 + ["duplicate"]


@pytest.mark.parametrize(
    ("group_by", "message"),
    [
        ("part", r"has 0 groups in parentheses, expected 1"),
        ("(a)(b)", r"has 2 groups in parentheses, expected 1"),
        ("(", r"not a valid regular expression \(missing \)"),
        (r"a/(\d)", r"does not match 2 of 4 paths, such as b/3\.png; widen the pattern"),
        (r"(x)?\.png", r"does not match 4 of 4 paths, such as a/1\.png"),
        (r"(png)", r"all 4 images are in one group, so none can be held out"),
        ("folder", r"1 of 4 images should be held out, but the smallest of the 2 groups has 2; pass --holdout 0\.5"),
    ],
)
def test_a_pattern_without_a_valid_split_is_refused(group_by: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as refused:
        hold(images_at("a/1.png", "a/2.png", "b/3.png", "b/4.png"), holdout=0.2, group_by=group_by)
    assert str(refused.value).startswith(f"--group-by {group_by}: ")


ROLES: list[Role] = ["bank", "calibration", "duplicate", "unreadable"]
NAMES = [
    "a.png",
    "ü/日本 語.png",
    'quo"te, comma.png',
    "new\nline.png",
    "return\rcarriage.png",
    "both\r\n.png",
    " .png",
]


def test_an_image_table_is_read_back_exactly(tmp_path: Path) -> None:
    images = [
        NormalImage(name, sha256(name.encode()).hexdigest(), ROLES[i % len(ROLES)], i if i % 4 < 2 else None)
        for i, name in enumerate(NAMES)
    ]
    write_image_table(tmp_path / "images.csv", images)
    assert read_image_table(tmp_path / "images.csv") == images


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), max_size=5))
def test_an_image_table_can_contain_any_name(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    path = tmp_path_factory.getbasetemp() / "any-name.csv"
    images = [NormalImage(name, "0" * 64, "bank") for name in names]
    write_image_table(path, images)
    assert read_image_table(path) == images


@pytest.mark.skipif(sys.platform != "linux", reason="other file systems accept valid text only")
def test_an_image_table_can_contain_names_that_are_not_text(tmp_path: Path) -> None:
    name = b"caf\xe9.png"
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name.decode("utf-8", "surrogateescape")).write_bytes(b"x")
    images = find_normal_images(tmp_path / "in")
    write_image_table(tmp_path / "images.csv", images)
    assert read_image_table(tmp_path / "images.csv") == images
    assert name in (tmp_path / "images.csv").read_bytes()
    assert fingerprint(images) != fingerprint(table(1))


def test_a_file_that_is_not_an_image_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "images.csv").write_text("step,loss\n1,0.5\n")
    with pytest.raises(KitError, match="not an image table"):
        read_image_table(tmp_path / "images.csv")


def test_the_image_table_of_0_1_0_is_read(tmp_path: Path) -> None:
    digest = "0" * 64
    rows = f'"path","sha256","role"\n"a.png","{digest}","bank"\n"b.png","{digest}","copy"\n'
    (tmp_path / "pictures.csv").write_text(rows)
    assert read_image_table(tmp_path / "images.csv") == [
        NormalImage("a.png", digest, "bank"),
        NormalImage("b.png", digest, "duplicate"),
    ]


def test_the_fingerprint_can_be_reproduced_in_any_location(tmp_path: Path, normal_images: Path) -> None:
    moved = shutil.copytree(normal_images, tmp_path / "moved ü" / "again")
    lines = [
        f"{sha256(path.read_bytes()).hexdigest()}  {path.relative_to(moved).as_posix()}\n" for path in moved.iterdir()
    ]
    expected = sha256("".join(sorted(lines)).encode()).hexdigest()
    assert fingerprint(find_normal_images(normal_images)) == fingerprint(find_normal_images(moved)) == expected


@pytest.mark.parametrize("change", ["byte", "name", "missing", "added"])
def test_the_fingerprint_changes_with_any_byte_name_or_file(
    change: str, tmp_path: Path, normal_images: Path, change_byte: Callable
) -> None:
    moved = shutil.copytree(normal_images, tmp_path / "moved")
    first = min(moved.iterdir())
    if change == "byte":
        change_byte(first, 100)
    elif change == "name":
        first.rename(moved / "zzz.png")
    elif change == "missing":
        first.unlink()
    else:
        (moved / "zzz.png").write_bytes(b"new")
    assert fingerprint(find_normal_images(moved)) != fingerprint(find_normal_images(normal_images))
