"""Who may use the page, over HTTPS: log-in, roles, sessions that end, and wrong passwords."""

import base64
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from msc_edge.cli import app
from msc_edge.runtime.stream.control import request_reload
from msc_edge.runtime.web.users import add_user, remove_user

PASSWORD = "correct horse battery"


@pytest.fixture(scope="module")
def own_users(users: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copy(users, tmp_path_factory.mktemp("own") / "users.toml"))


@pytest.fixture(scope="module")
def guarded(stations, own_users: Path, certificate: Path):
    """A station that other PCs may reach."""
    files = {"tls_cert": str(certificate / "cert.pem"), "tls_key": str(certificate / "key.pem")}
    with stations() as start:
        station = start(host="0.0.0.0", users=str(own_users), **files)
        station.log_in("operator")
        station.inspect("part", 200, "stain")
        yield station


@pytest.fixture
def visitor(guarded):
    guarded.cookies.clear()
    return guarded


def basic(name: str, password: str) -> str:
    return f"Basic {base64.b64encode(f'{name}:{password}'.encode()).decode()}"


@pytest.mark.parametrize("path", ["/", "/parts", "/parts/1", "/parts/1/frame.jpg", "/live", "/counts?since=0", "/none"])
def test_a_visitor_sees_nothing(visitor, path: str) -> None:
    found = visitor.get(path)
    assert found.status == 303
    assert found.headers["location"].startswith("/login?to=%2F")
    assert visitor.send("GET", path).status == 401
    assert visitor.send("POST", path.partition("?")[0], "{}").status == 401


def test_the_log_in_leads_to_the_page_that_was_wanted_and_to_no_other_server(visitor) -> None:
    page = visitor.get("/login?to=%2Fparts%3Fmark%3Dnone").text
    assert 'action="/login?to=/parts%3Fmark%3Dnone"' in page
    for target in ("//evil.example", "https://evil.example", "/\\evil.example", "evil"):
        assert 'action="/login?to=/"' in visitor.get(f"/login?to={target}").text


def test_a_session_is_a_cookie_that_scripts_and_other_sites_cannot_use(visitor) -> None:
    found = visitor.log_in("viewer")
    assert (found.status, found.headers["location"]) == (303, "/")
    cookie = found.headers["set-cookie"].lower()
    for flag in ("httponly", "samesite=strict", "secure", "max-age=43200"):
        assert flag in cookie
    assert visitor.get("/").status == 200


def test_a_viewer_looks_and_does_not_mark(visitor) -> None:
    visitor.log_in("viewer")
    page = visitor.get("/parts/1").text
    assert "needs the role operator" in page
    assert "data-mark=" not in page
    found = visitor.mark(1, "false_alarm")
    assert found.status == 403
    assert "needs the role operator, and viewer is a viewer" in found.json["error"]


def test_an_operator_marks_and_the_audit_log_says_who(visitor) -> None:
    visitor.log_in("operator")
    assert visitor.mark(1, "false_alarm", token="").status == 403
    assert visitor.mark(1, "false_alarm").status == 200
    assert "operator: false alarm" in visitor.get("/parts/1").text
    entry = visitor.audit()[-1]
    assert (entry["action"], entry["who"], entry["role"]) == ("mark_false_alarm", "operator", "operator")


def test_after_logging_out_the_session_is_over(visitor) -> None:
    visitor.log_in("engineer")
    token, cookies = visitor.token(), dict(visitor.cookies)
    assert visitor.send("POST", "/logout").status == 403
    assert visitor.send("POST", "/logout", X_Token=token).status == 303
    visitor.cookies = cookies
    assert visitor.get("/").status == 303
    assert [entry["action"] for entry in visitor.audit()[-2:]] == ["log_in", "log_out"]


def test_a_token_of_another_session_is_wrong(visitor) -> None:
    visitor.log_in("engineer")
    token = visitor.token()
    visitor.log_in("operator")
    assert visitor.mark(1, "false_alarm", token=token).status == 403


def test_health_is_open_and_metrics_need_a_password(visitor) -> None:
    assert visitor.send("GET", "/healthz").status == 200
    for path in ("/metrics", "/readyz"):
        found = visitor.send("GET", path)
        assert found.status == 401
        assert found.headers["www-authenticate"].startswith("Basic")
        assert visitor.send("GET", path, Authorization=basic("viewer", PASSWORD)).status == 200
        assert visitor.send("GET", path, Authorization="Basic %%%").status == 401
    assert visitor.send("GET", "/", Authorization=basic("viewer", PASSWORD)).status == 401


def test_a_change_of_the_users_file_counts_at_once(visitor, own_users: Path) -> None:
    add_user(own_users, "anna", role="operator", password=PASSWORD)
    visitor.log_in("anna")
    assert visitor.get("/").status == 200
    add_user(own_users, "anna", role="viewer", password=PASSWORD)
    assert visitor.get("/").status == 303
    visitor.log_in("anna")
    assert "(viewer)" in visitor.get("/").text
    remove_user(own_users, "anna")
    assert visitor.get("/").status == 303
    assert visitor.log_in("anna").status == 401


def test_without_a_readable_users_file_nobody_gets_in(visitor, own_users: Path) -> None:
    visitor.log_in("viewer")
    content = own_users.read_bytes()
    try:
        own_users.write_text("[users]\nviewer = 1\n")
        for path, headers in (("/", {}), ("/readyz", {"Authorization": "Basic dmlld2VyOng="})):
            found = visitor.send("GET", path, **headers)
            assert found.status == 503
            assert found.json["error"] == "the users of this page cannot be read; the log of the stream says why"
        assert "expected `role` and `password`" in visitor.log.read_text()
    finally:
        own_users.write_bytes(content)
    assert visitor.get("/").status == 200


def test_a_users_file_that_is_missing_is_said_at_the_start(patch_kit: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    config = tmp_path / "line.toml"
    config.write_text('[web]\nport = 8931\nusers = "missing.toml"\n')
    command = ["stream", str(patch_kit), str(tmp_path / "in"), "--config", str(config), "--state", str(tmp_path / "s")]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 2
    assert "missing.toml" in done.stderr


def test_wrong_passwords_have_to_wait_and_are_recorded(start_station, users: Path) -> None:
    station = start_station(users=str(users))
    wrong = [station.log_in("viewer", "wrong password") for _ in range(4)]
    assert [found.status for found in wrong] == [401, 401, 401, 429]
    assert "Name or password is wrong" in wrong[0].text
    assert "too many wrong passwords. Try again in" in wrong[3].text
    found = station.log_in("viewer")  # too early, though it is the right one
    if found.status != 303:
        assert found.status == 429
        station.until(lambda: station.log_in("viewer").status == 303, "the wait is over")
    entries = station.audit()
    assert [entry["action"] for entry in entries] == 3 * ["log_in_failed"] + ["log_in"]
    assert {entry["who"] for entry in entries} == {"viewer"}
    for text in (station.log.read_text(), (station.state / "audit.jsonl").read_text()):
        assert "wrong password" not in text
        assert PASSWORD not in text


def test_a_session_ends_by_itself(start_station, users: Path) -> None:
    station = start_station(users=str(users), session_hours=2 / 3600)
    station.log_in("viewer")
    started = time.monotonic()
    station.until(lambda: station.get("/").status == 303, "the session has ended")
    assert time.monotonic() - started >= 1.5


def test_a_session_survives_a_reload_and_ends_with_the_page(start_station, users: Path) -> None:
    """A cookie that was stolen must not outlive what an engineer does against it: a restart of the stream."""
    station = start_station(users=str(users))
    station.log_in("operator")
    token = station.token()
    assert "is active" in request_reload(station.state, timeout=60)
    assert station.get("/").status == 200
    assert station.token() == token
    os.kill(station.page_process(), signal.SIGKILL)
    station.until(lambda: _status(station) == 303, "the page is started again, and the session has ended")
    station.log_in("operator")
    assert station.get("/").status == 200
    cookies = dict(station.cookies)
    assert station.stop() == 0
    again = start_station(state=station.state, users=str(users))
    again.cookies = cookies
    assert again.get("/").status == 303
    assert again.send("POST", "/parts/1/mark", "{}", X_Token=token).status == 401


def _status(station) -> int | None:
    try:
        return station.get("/").status
    except OSError:  # while the process of the page is started again
        return None


def test_the_form_is_bounded(visitor) -> None:
    found = visitor.send("POST", "/login", "name=" + 20_000 * "x", Content_Type="application/x-www-form-urlencoded")
    assert found.status == 413


def test_a_station_of_this_pc_only_needs_no_log_in(station) -> None:
    assert station.get("/login").status == 303
    assert station.get("/").status == 200
    assert "Log out" not in station.get("/").text
