import pytest

from msc_edge.errors import OutputError, UsageError
from msc_edge.runtime.tools.report.report_path import check_report_path, check_writable


@pytest.mark.parametrize("name", ["r.txt", "r", "r.html.gz"])
def test_another_suffix_is_refused(tmp_path, name):
    with pytest.raises(UsageError, match=r"expected a name that ends in \.html"):
        check_report_path(tmp_path / name, overwrite=True)


def test_an_existing_file_needs_overwrite(tmp_path):
    (tmp_path / "r.html").write_text("precious")
    with pytest.raises(UsageError, match="exists already; choose another name, or pass --overwrite"):
        check_report_path(tmp_path / "r.html", overwrite=False)
    check_report_path(tmp_path / "r.html", overwrite=True)
    assert (tmp_path / "r.html").read_text() == "precious"


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_is_refused(tmp_path, overwrite):
    (tmp_path / "r.html").mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        check_report_path(tmp_path / "r.html", overwrite=overwrite)


def test_a_folder_that_cannot_be_written_is_an_output_error(tmp_path):
    (tmp_path / "file").touch()
    for check in (
        lambda: check_report_path(tmp_path / "file" / "r.html", overwrite=False),
        lambda: check_writable(tmp_path / "file", target=tmp_path / "file" / "r.html"),
    ):
        with pytest.raises(OutputError, match=r"cannot write .*r\.html"):
            check()


def test_the_folder_of_a_report_is_created_and_stays_empty(tmp_path):
    check_report_path(tmp_path / "a" / "b" / "r.HTM", overwrite=False)
    assert list((tmp_path / "a" / "b").iterdir()) == []
