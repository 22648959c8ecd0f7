"""The command line: its options, its errors, and what it does with a configuration file."""

import signal
import threading
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tomli_w
from typer.testing import CliRunner, Result

from msc_edge.cli import app
from msc_edge.runtime.stream.config_file import read_config
from msc_edge.runtime.stream.config_toml import config_as_toml
from msc_edge.runtime.stream.control import answer, take_requests

SECRET = "hunter2"


@pytest.fixture
def msc_edge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Result]]:
    """Run the command line in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "states"))
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    on_hangup = signal.getsignal(signal.SIGHUP)
    yield lambda *arguments: CliRunner().invoke(app, [str(each) for each in arguments])
    signal.signal(signal.SIGHUP, on_hangup)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nowhere.kit", "0"], 4, "cannot be opened (No such file or directory); check the path"),
        ([], 2, "source: is missing; name at least one source"),
        (["--running"], 2, "--running belongs to --print-config"),
        (["--running", "--print-config", "--state", "."], 2, "no stream answered"),
        (["KIT"], 2, "source: is missing; name at least one source"),
        (["KIT", "nothing-there"], 3, "no such file or folder; expected a webcam number"),
        (["KIT", "ftp://u:hunter2@host/x"], 3, "ftp:// is not supported"),
        (["KIT", "0", "--source", "/dev/video0"], 2, "the source /dev/video0 is given twice"),
        (["KIT", "0", "--alarm-after", "3-of-2"], 2, "--alarm-after: expected m-of-n"),
        (["KIT", "0", "--jsonl", "rows.txt"], 2, "ends in .jsonl"),
        (["KIT", "0", "--mqtt", "host:port"], 2, "--mqtt: port: "),
        (["KIT", "0", "--webhook", "ftp://u:hunter2@host"], 2, "http"),
        (["KIT", "0", "--false-alarm-rate", "2"], 2, "--false-alarm-rate: "),
        (["KIT", "0", "--max-fps", "0"], 2, "--max-fps: "),
        (["--max-fps", "5"], 2, "--max-fps applies to sources given here"),
        (["KIT", "0", "--every", "5"], 2, "--images"),
        (["KIT", "0", "--threshold", "0.1", "--false-alarm-rate", "0.1"], 2, "exclude each other"),
        (["KIT", "notes.txt"], 3, "not a video"),
        (["KIT", "99999999999"], 3, "expected 0 to 255"),
        (["KIT", ".", "--images", "saved"], 2, "saved images would be scored again"),
        (["--config", "nowhere.toml"], 2, "cannot be read"),
        (["KIT", "0", "--trigger", "mqtt"], 2, "--trigger mqtt needs `host` in [mqtt]"),
        (["KIT", ".", "--trigger", "http"], 2, "--trigger is for cameras and streams, and no source is one; remove it"),
        (["KIT", "0", "--trigger", "http", "--max-fps", "2"], 2, "--trigger: a frame is scored when it is asked for"),
        (["KIT", "0", "--trigger", "http", "--max-fps", "2"], 2, "; remove --max-fps"),
        (["--config", "trigger.toml"], 2, "[trigger] is for cameras and streams, and no source is one; remove it"),
    ],
)
def test_an_error_is_one_line_with_its_exit_code(
    msc_edge: Callable[..., Result], arguments: list[str], code: int, message: str, toy_kit: Path
) -> None:
    Path("notes.txt").write_text("not a video")
    Path("trigger.toml").write_text(f'kit = "{toy_kit}"\nsource = [{{address = "."}}]\ntrigger.by = "http"\n')
    done = msc_edge("stream", *(toy_kit if each == "KIT" else each for each in arguments))
    lines = done.stderr.splitlines()
    assert (done.exit_code, message in lines[-1], len(lines)) == (code, True, 1), done.stderr
    assert SECRET not in done.output


@pytest.mark.parametrize(
    "given", [":8931", "abc", "8931x", "[::1]", "::1:8931", "host:", "70000", "0.0.0.0:0", "a b:1", "host:8931:1"]
)
def test_the_address_of_the_page_is_a_port_or_a_host_and_a_port(msc_edge: Callable[..., Result], given: str) -> None:
    done = msc_edge("stream", "k", "0", "--web", given, "--print-config")
    assert done.exit_code == 2
    assert done.stderr.startswith(f"error: --web {given}: not a port from 1 to 65535, or a host and such a port; pass ")


@pytest.mark.parametrize(
    ("given", "host", "port"),
    [
        ("8931", "127.0.0.1", 8931),
        ("0.0.0.0:80", "0.0.0.0", 80),
        ("line-3:1", "line-3", 1),
        ("[::1]:8931", "::1", 8931),
    ],
)
def test_where_the_page_is_served(msc_edge: Callable[..., Result], given: str, host: str, port: int) -> None:
    done = msc_edge("stream", "k", "0", "--web", given, "--print-config")
    shown = tomllib.loads(done.stdout)["web"]
    assert (shown["host"], shown["port"]) == (host, port)


def test_a_wrong_value_is_reported_without_secrets(msc_edge: Callable[..., Result]) -> None:
    done = msc_edge(
        *("stream", "k", f"rtsp://viewer:{SECRET}@10.0.0.5/a", "--webhook", f"https://h/{SECRET}"),
        *("--mqtt", f"mqtt://robot:{SECRET}@broker", "--alarm-after", "3-of-2"),
    )
    assert done.exit_code == 2
    assert "m from 1 to n" in done.stderr or "mqtt" in done.stderr
    assert SECRET not in done.output


IN_FILE = {
    "kit": "/srv/kits/bottles.zip",
    "station": "line-3",
    "source": [{"address": "0", "name": "camera_1"}],
    "limits": {"false_alarm_rate": 0.01},
    "alarm": {"after": "2-of-3", "cooldown": 4.5},
    "images": {"folder": "/data/images", "every": 1000, "format": "png"},
    "mqtt": {"host": "broker.factory", "port": 8883, "username": "robot"},
    "http": {"port": 9110},
    "log": {"format": "json"},
}


def test_options_of_the_command_line_override_the_file(msc_edge: Callable[..., Result], tmp_path: Path) -> None:
    path = tmp_path / "etc" / "line.toml"
    path.parent.mkdir()
    path.write_text(tomli_w.dumps(IN_FILE))
    done = msc_edge(
        *("stream", "other.kit", "1", "--source", "2", "--config", path, "--print-config", "--jsonl", "rows.jsonl"),
        *("--images", "saved", "--every", "7", "--mqtt", "other.host:1234", "--http", "9999"),
        *("--alarm-after", "3-of-4", "--cooldown", "9", "--max-fps", "2", "--threshold", "0.5"),
        *("--station", "line-4", "--state", "kept", "--log-format", "text"),
    )
    assert done.exit_code == 0, done.stderr
    shown = tomllib.loads(done.stdout)
    expected = tomllib.loads(config_as_toml(read_config(path, {})))
    expected |= {"kit": "other.kit", "station": "line-4", "state": "kept"}
    expected["results"]["jsonl"] = "rows.jsonl"
    expected["images"] |= {"folder": "saved", "every": 7}
    expected["mqtt"] |= {"host": "other.host", "port": 1234}
    expected["http"]["port"] = 9999
    expected["alarm"] = {"after": "3-of-4", "cooldown": 9}
    expected["limits"] = {"threshold": 0.5}
    expected["log"]["format"] = "text"
    sources = shown.pop("source")
    del expected["source"]
    assert shown == expected
    assert [(source["address"], source["max_fps"]) for source in sources] == [("1", 2), ("2", 2)], "none of the file"
    assert [each.name for each in tmp_path.iterdir()] == ["etc"], "nothing is opened: neither the kit nor a file"


def test_the_old_name_of_images_works_with_a_warning(msc_edge: Callable[..., Result]) -> None:
    done = msc_edge("stream", "k", "0", "--pictures", "saved", "--every", "7", "--print-config")
    assert done.exit_code == 0
    assert done.stderr == "warning: --pictures is deprecated; use --images\n"
    images = tomllib.loads(done.stdout)["images"]
    assert (images["folder"], images["every"]) == ("saved", 7)
    assert "--pictures" not in msc_edge("stream", "--help").output


def test_old_names_in_the_file_are_one_line_of_warning(msc_edge: Callable[..., Result]) -> None:
    Path("line.toml").write_text(
        'kit = "k"\nengine = "onnxruntime"\n[[source]]\naddress = "0"\n[pictures]\nevery = 7\n'
    )
    done = msc_edge("stream", "--config", "line.toml", "--print-config")
    assert done.exit_code == 0
    assert len(done.stderr.splitlines()) == 1
    assert "line.toml" in done.stderr
    shown = tomllib.loads(done.stdout)
    assert (shown["backend"], shown["images"]["every"]) == ("onnxruntime", 7)


@pytest.mark.parametrize("identified_by", ["state", "config", "station"])
@pytest.mark.parametrize(("loaded", "code"), [(True, 0), (False, 4)])
def test_reload_gives_the_message_of_the_stream_and_its_result_as_exit_code(
    msc_edge: Callable[..., Result], tmp_path: Path, identified_by: str, loaded: bool, code: int
) -> None:
    folder = tmp_path / ("states/msc-edge/line3" if identified_by == "station" else "kept")
    folder.mkdir(parents=True)
    Path("line.toml").write_text('kit = "k"\nstate = "kept"\n[mqtt]\npassword = "${NOT_SET}"\n')
    options = {"state": folder, "config": "line.toml", "station": "line3"}
    stop = threading.Event()

    def serve() -> None:
        while not stop.wait(0.01):
            for request in take_requests(folder, "reload"):
                answer(folder, request, done=loaded, message="a message of the stream")

    stream = threading.Thread(target=serve, daemon=True)
    stream.start()
    done = msc_edge("reload", f"--{identified_by}", options[identified_by], "--timeout", "30")
    stop.set()
    stream.join()
    assert done.exit_code == code
    assert "a message of the stream" in (done.stdout if loaded else done.stderr)


def test_reload_without_a_stream_is_a_usage_error(msc_edge: Callable[..., Result], tmp_path: Path) -> None:
    done = msc_edge("reload", "--state", tmp_path, "--timeout", "0.2")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "no stream answered" in done.stderr
