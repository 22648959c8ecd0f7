from pathlib import Path

import pytest

from msc_edge.runtime.station import default_station, state_folder


@pytest.mark.parametrize(
    ("host", "station"),
    [
        ("line3", "line3"),
        ("line 3.factory", "line-3.factory"),
        ("Größe_7", "Gr--e_7"),
        ("..hidden", "hidden"),
        ("--", "line"),
        ("", "line"),
        ("x" * 100, "x" * 63),
    ],
)
def test_the_station_has_the_name_of_the_pc_in_plain_characters(monkeypatch, host, station):
    monkeypatch.setattr("socket.gethostname", lambda: host)
    assert default_station() == station


class TestStateFolder:
    @pytest.fixture(autouse=True)
    def _user(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.delenv("STATE_DIRECTORY", raising=False)
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
        monkeypatch.setattr("socket.gethostname", lambda: "pc1")

    def test_a_configured_folder_comes_first(self, monkeypatch, tmp_path):
        monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/service")
        assert state_folder(tmp_path, station="line3") == tmp_path

    def test_the_folder_of_the_service_comes_second(self, monkeypatch, tmp_path):
        monkeypatch.setenv("STATE_DIRECTORY", f"{tmp_path}/a:{tmp_path}/b")
        assert state_folder(station="line3") == tmp_path / "a"
        monkeypatch.setenv("STATE_DIRECTORY", "")
        assert state_folder(station="line3").name == "line3"

    def test_each_station_of_a_user_has_its_own(self):
        assert state_folder(station="line3") != state_folder(station="line4")
        assert state_folder() == state_folder(station="pc1")
        assert state_folder().parent == state_folder(station="line3").parent
