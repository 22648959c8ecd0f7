import pytest

from msc_edge.studio.training import Training


@pytest.mark.parametrize(
    ("project", "kit", "file"),
    [
        ("caps", "caps-3", "caps-3"),
        ("Bottle caps", "Bottle-caps-3", "Bottle caps-3"),
        ("Räder", "Rader-3", "Räder-3"),
        ("部品", "kit-3", "部品-3"),
        ("x" * 60, "x" * 50 + "-3", "x" * 60 + "-3"),
    ],
)
def test_a_kit_is_named_by_project_and_training(tmp_path, project, kit, file):
    named = Training(tmp_path / project / "trainings" / "3")
    assert named.kit_name == kit
    assert named.file_name(named.kit_name) == file
    assert named.file_name("3") == file  # a kit of an older version
    assert named.file_name("line-4") == "line-4"  # as the user has named it
