import os
import re
import subprocess
import sys
import tomllib
import traceback
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import pytest
import tomli_w
from pydantic import BaseModel

from msc_edge.errors import UsageError
from msc_edge.runtime.stream.config import SourceConfig, StreamConfig
from msc_edge.runtime.stream.config_file import config_as_toml, read_config

EXAMPLE = Path(__file__).parents[3] / "deploy" / "line.example.toml"
SECRET = "hunter2"
LEAST = 'kit = "bottles.kit"\n[[source]]\naddress = "0"\n'

# Each option, at another value than its default. Secrets are left out, and `limits` has one of the two.
EVERYTHING: dict[str, Any] = {
    "kit": "/srv/kits/bottles.zip",
    "station": "line-3",
    "state": "/var/lib/msc-edge/line3",
    "threads": 2,
    "precision": "int8",
    "backend": "onnxruntime",
    "show": True,
    "source": [
        {
            "address": "rtsp://192.168.1.20:554/stream1",
            "name": "camera_1",
            "max_fps": 12.5,
            "lost_after": 7.0,
            "frozen_after": 0.0,
            "open_timeout": 2.5,
            "read_timeout": 3.5,
            "width": 1280,
            "height": 720,
            "fps": 29.97,
            "settle": 0.25,
        },
        {"address": "0", "name": "second.one"},
    ],
    "limits": {"threshold": 0.125, "false_alarm_rate": 0.01},
    "alarm": {"after": "2-of-3", "cooldown": 4.5},
    "results": {"jsonl": '/data/größe "a".jsonl', "csv": "/data/rows.csv", "rotate_mb": 0.5, "keep": 3},
    "images": {"folder": "/data/images", "every": 1000, "format": "png", "max_mb": 12.5, "max_days": 0.5},
    "mqtt": {
        "host": "broker.factory",
        "port": 8883,
        "username": "robot",
        "tls": True,
        "ca_file": "/etc/msc-edge/ca.pem",
        "topic": "factory/hall-2",
        "style": "home-assistant",
        "timeout": 3.0,
    },
    "webhook": {"timeout": 4.0},
    "outbox": {"max_mb": 1.5, "max_days": 0.25},
    "http": {"port": 9110, "host": "0.0.0.0", "ready_within": 12.0},
    "log": {"format": "json", "status_every": 5.0},
}
SECRETS = {("mqtt", "password"), ("webhook", "url"), ("webhook", "secret")}


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (list, Union, types.UnionType):
        for each in get_args(annotation):
            yield from models_in(each)


def options() -> list[tuple[str, str]]:
    """(section, option) of all there are; the section is "" for the top of the file."""
    found = [("", name) for name in StreamConfig.model_fields]
    for section, field in StreamConfig.model_fields.items():
        for model in models_in(field.annotation):
            found += [(section, name) for name in model.model_fields]
    return found


def section_of(document: Any, section: str) -> Any:
    value = document if section == "" else document[section]
    return value[0] if isinstance(value, list) else value


def without(document: dict[str, Any], section: str, option: str) -> dict[str, Any]:
    return document | {section: {name: value for name, value in document[section].items() if name != option}}


@pytest.fixture
def line(tmp_path: Path):
    """Write a configuration file."""

    def write(content: str | bytes | dict[str, Any]) -> Path:
        path = tmp_path / "line.toml"
        if isinstance(content, dict):
            content = tomli_w.dumps(content)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def command(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "msc_edge", "stream", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env=os.environ | {"COLUMNS": "300"},
    )


def printed(path: Path) -> dict[str, Any]:
    return tomllib.loads(config_as_toml(read_config(path, {})))


# -- printed, and read again


def test_these_rows_have_every_option_that_there_is() -> None:
    """So that an option that comes later is tested too."""
    for section, option in options():
        assert (option in section_of(EVERYTHING, section)) != ((section, option) in SECRETS), (section, option)


@pytest.mark.parametrize("other_limit", ["threshold", "false_alarm_rate"])
def test_every_option_survives_being_printed_and_read_again(line, other_limit: str) -> None:
    given = without(EVERYTHING, "limits", other_limit)
    config = read_config(line(given), {})
    text = config_as_toml(config)
    shown = tomllib.loads(text)
    for section, option in options():
        if "source" not in (section, option) and option in section_of(given, section):
            assert section_of(shown, section)[option] == section_of(given, section)[option], (section, option)
    for number, source in enumerate(given["source"]):
        assert source.items() <= shown["source"][number].items()
    assert read_config(line(text), {}) == config


def test_defaults_are_the_same_once_more(line) -> None:
    config = read_config(line(LEAST), {})
    assert read_config(line(config_as_toml(config)), {}) == config


def test_defaults_are_printed_too(line) -> None:
    shown = printed(line(LEAST))
    assert shown["alarm"] == {"after": "1-of-1", "cooldown": 0}
    assert shown["http"]["host"] == "127.0.0.1"
    assert "port" not in shown["http"], "what is not set has no line"
    assert shown["source"][0]["lost_after"] == 20


@pytest.mark.parametrize(
    "address", ["3", "/dev/video97", "rtsp://10.0.0.5:554/stream1", "https://cam.local/video", "/share/not-mounted"]
)
def test_an_address_without_a_password_is_printed_as_it_is(line, address: str) -> None:
    """Also of a camera that is not plugged in now, and of a folder whose share is not mounted."""
    shown = printed(line({"kit": "/k", "source": [{"address": address}]}))
    assert shown["source"][0]["address"] == address


# -- what is refused


@pytest.mark.parametrize(("section", "option"), options())
def test_a_misspelt_option_is_refused_with_the_name_that_is_meant(line, section: str, option: str) -> None:
    document = tomllib.loads(tomli_w.dumps(without(EVERYTHING, "limits", "threshold")))
    section_of(document, section)[f"{option}{option[-1]}"] = 1
    path = line(document)
    place = "source.1." if section == "source" else f"{section}." if section else ""
    with pytest.raises(UsageError, match=rf"{path}: {place}{option}{option[-1]}: .*is {option} meant") as caught:
        read_config(path, {})
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('kitt = "k"\n[[source]]\naddress = "0"\n', "kitt: .*is kit meant"),
        ('kit = "k"\n[[sources]]\naddress = "0"\n', "sources: .*is source meant"),
        ('kit = "k"\n[[source]]\nadress = "0"\n', "source.1.adress: .*is address meant"),
    ],
)
def test_a_misspelt_option_that_is_needed_is_not_called_missing(line, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_config(line(text), {})


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("zzzz = 1\n" + LEAST, ["kit", "source", "webhook"]),
        (LEAST + "zzzz = 1\n", ["address", "max_fps", "settle"]),
        (LEAST + "[mqtt]\nzzzz = 1\n", ["host", "port", "style"]),
        (LEAST + "[alarm]\nafter = {m = 1, n = 2, zzzz = 3}\n", ["m", "n"]),
    ],
)
def test_where_no_name_is_near_the_known_ones_are_listed(line, text: str, known: list[str]) -> None:
    with pytest.raises(UsageError, match="zzzz: there is no such option; there are") as caught:
        read_config(line(text), {})
    assert set(known) <= set(re.findall(r"\w+", str(caught.value).partition("there are")[2]))


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('[[source]]\naddress = "0"\n', "kit: is missing; name a kit"),
        ('kit = "k"\n', "source: is missing; name at least one source"),
        ('kit = "k"\n[[source]]\n', "source.1.address: is missing"),
        ('kit = "k"\n[[source]]\naddress = "0"\n[[source]]\nname = "b"\n', "source.2.address: is missing"),
        ('kit = "k"\nsource = []\n', "source:"),
        ('kit = "k"\n[source]\naddress = "0"\n', "source:"),
        ('kit = 3\n[[source]]\naddress = "0"\n', "kit:"),
        ('kit = ["a"]\n[[source]]\naddress = "0"\n', "kit:"),
        ('kit = "k"\n[[source]]\naddress = 0\n', "source.1.address:"),
        ('kit = "k"\n[[source]]\naddress = ""\n', "source.1.address:"),
        ("threads = 0\n" + LEAST, "threads:"),
        ("threads = 1.5\n" + LEAST, "threads:"),
        ('threads = "many"\n' + LEAST, "threads:"),
        ("threads = true\n" + LEAST, "threads:"),
        ('show = "perhaps"\n' + LEAST, "show:"),
        ("show = 2\n" + LEAST, "show:"),
        ("station = 2026-01-01\n" + LEAST, "station:"),
        ("state = 1\n" + LEAST, "state:"),
        (LEAST + "max_fps = 0\n", "source.1.max_fps:"),
        (LEAST + "lost_after = -1\n", "source.1.lost_after:"),
        (LEAST + "lost_after = inf\n", "source.1.lost_after:"),
        (LEAST + "frozen_after = nan\n", "source.1.frozen_after:"),
        (LEAST + "width = 12.5\n", "source.1.width:"),
        (LEAST + "[limits]\nthreshold = inf\n", "limits.threshold:"),
        (LEAST + "[limits]\nfalse_alarm_rate = 0\n", "limits.false_alarm_rate:"),
        (LEAST + "[limits]\nfalse_alarm_rate = 1\n", "limits.false_alarm_rate:"),
        (LEAST + "[alarm]\ncooldown = -1\n", "alarm.cooldown:"),
        (LEAST + "[results]\njsonl = 5\n", "results.jsonl:"),
        (LEAST + "[results]\nkeep = 0\n", "results.keep:"),
        (LEAST + "[images]\nevery = 0\n", "images.every:"),
        (LEAST + '[images]\nformat = "bmp"\n', "images.format:"),
        (LEAST + "[outbox]\nmax_mb = true\n", "outbox.max_mb:"),
        (LEAST + '[mqtt]\nstyle = "Plain"\n', "mqtt.style:"),
        (LEAST + '[log]\nformat = "xml"\n', "log.format:"),
        ("log = 1\n" + LEAST, "log:"),
    ],
)
def test_a_value_of_another_kind_is_refused_at_its_place(line, text: str, place: str) -> None:
    path = line(text)
    with pytest.raises(UsageError) as caught:
        read_config(path, {})
    assert str(caught.value).startswith(f"--config {path}: {place}")


# -- the file itself


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("kit = bottles\n", "not TOML: .*line 1"),
        ("kit = 'a'\nkit = 'b'\n", "not TOML: .*line 2"),
        ("[[source]\n", "not TOML: .*line 1"),
        ("kit = 'größe'\n".encode("latin-1"), "not TOML: .*utf-8"),
        (b"\xff\xfe" + "kit = 'a'\n".encode("utf-16-le"), "not TOML: .*utf-8"),
        ("", "kit: is missing"),
    ],
)
def test_what_is_not_toml_is_told_with_its_place(line, content: str | bytes, message: str) -> None:
    path = line(content)
    with pytest.raises(UsageError, match=message) as caught:
        read_config(path, {})
    assert str(path) in str(caught.value)


def test_a_file_that_cannot_be_read_is_told_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=rf"{tmp_path}/none.toml: cannot be read: No such file"):
        read_config(tmp_path / "none.toml", {})
    with pytest.raises(UsageError, match=rf"{tmp_path}: cannot be read: .*irectory"):
        read_config(tmp_path, {})


def test_line_ends_of_windows_and_comments_are_toml(line) -> None:
    assert read_config(line(LEAST.replace("\n", "  # so\r\n")), {}).source[0].address.get_secret_value() == "0"


# -- paths


def path_options() -> list[tuple[str, str]]:
    """All options that are paths, by the model."""

    def is_path(model: type[BaseModel], option: str) -> bool:
        annotation = model.model_fields[option].annotation
        return annotation is Path or Path in get_args(annotation)

    models = {"": StreamConfig} | {
        section: model for section, field in StreamConfig.model_fields.items() for model in models_in(field.annotation)
    }
    return [(section, option) for section, option in options() if is_path(models[section], option)]


@pytest.mark.parametrize(("section", "option"), path_options())
def test_a_relative_path_is_taken_from_the_folder_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, section: str, option: str
) -> None:
    (tmp_path / "etc" / "deep").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)

    def read(value: str) -> Path:
        document = tomllib.loads(LEAST)
        (document if section == "" else document.setdefault(section, {}))[option] = value
        (tmp_path / "etc" / "line.toml").write_text(tomli_w.dumps(document))
        config = read_config(Path("etc/line.toml"), {})
        return getattr(config if section == "" else getattr(config, section), option)

    name = f"x.{option}"  # the files of rows have the suffix of their kind
    assert read(f"there/{name}") == tmp_path / "etc" / "there" / name
    assert read(f"/there/{name}") == Path(f"/there/{name}")
    assert read(f"../{name}").resolve() == tmp_path / name


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("incoming", "FOLDER/incoming"),
        ("./clip.mp4", "FOLDER/clip.mp4"),
        ("/srv/incoming", "/srv/incoming"),
        ("/dev/video0", "/dev/video0"),
        ("2", "2"),
        ("rtsp://10.0.0.5/stream1", "rtsp://10.0.0.5/stream1"),
    ],
)
def test_a_relative_source_too_and_cameras_and_streams_are_none(
    line, monkeypatch: pytest.MonkeyPatch, given: str, expected: str
) -> None:
    path = line({"kit": "k", "source": [{"address": "1"}, {"address": given}]})
    monkeypatch.chdir("/")
    found = read_config(path, {}).source[1].address.get_secret_value()
    assert found == expected.replace("FOLDER", str(path.parent))


# -- environment


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rtsp://u:${MSC_A}@h/${MSC_B}", "rtsp://u:p$4@h/${MSC_A}"),
        ("rtsp://h/${MSC_A}${MSC_A}", "rtsp://h/p$4p$4"),
        ("rtsp://h/$MSC_A", "rtsp://h/$MSC_A"),
        ("rtsp://h/${}", "rtsp://h/${}"),
        ("rtsp://h/${9A}", "rtsp://h/${9A}"),
        ("rtsp://h/$$", "rtsp://h/$$"),
        ("${MSC_EMPTY}7", "7"),
    ],
)
def test_a_variable_is_put_in_once_and_as_it_is(
    line, monkeypatch: pytest.MonkeyPatch, text: str, expected: str
) -> None:
    for name, value in (("MSC_A", "p$4"), ("MSC_B", "${MSC_A}"), ("MSC_EMPTY", "")):
        monkeypatch.setenv(name, value)
    config = read_config(line({"kit": "k", "source": [{"address": text}]}), {})
    assert config.source[0].address.get_secret_value() == expected


def test_a_variable_may_stand_for_a_number_and_for_a_path(line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MSC_PORT", "9110")
    monkeypatch.setenv("MSC_KIT", "bottles.kit")
    path = line('kit = "${MSC_KIT}"\n[[source]]\naddress = "0"\n[http]\nport = "${MSC_PORT}"\n')
    config = read_config(path, {})
    assert (config.http.port, config.kit) == (9110, path.parent / "bottles.kit")


@pytest.mark.parametrize(
    "text",
    [
        LEAST + '[mqtt]\npassword = "${MSC_NOT_THERE}"\n',
        'kit = "k"\n[[source]]\naddress = "rtsp://u:${MSC_NOT_THERE}@h"\n',
    ],
)
def test_a_variable_that_is_not_there_is_named(line, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.delenv("MSC_NOT_THERE", raising=False)
    path = line(text)
    with pytest.raises(UsageError, match=rf"{path}: \$\{{MSC_NOT_THERE\}}: there is no such environment variable"):
        read_config(path, {})


# -- the command line goes first


def test_the_command_line_goes_before_the_file(line, tmp_path: Path) -> None:
    path = line(without(EVERYTHING, "limits", "false_alarm_rate"))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = command(
        *("other.kit", "1", "--source", "2", "--config", path, "--print-config", "--jsonl", "rows.jsonl"),
        *("--images", "saved", "--every", "7", "--mqtt", "other.host:1234", "--http", "9999"),
        *("--alarm-after", "3-of-4", "--cooldown", "9", "--max-fps", "2", "--threshold", "0.5"),
        *("--station", "line-4", "--state", "kept", "--log-format", "text"),
        cwd=elsewhere,
    )
    assert done.returncode == 0, done.stderr
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
    assert [(source["address"], source["max_fps"]) for source in sources] == [("1", 2), ("2", 2)], (
        "and none of the file"
    )


@pytest.mark.parametrize(
    ("in_file", "given", "in_force"),
    [
        ({"threshold": 0.5}, {"threshold": 0.25}, {"threshold": 0.25}),
        ({"threshold": 0.5}, {}, {"threshold": 0.5}),
        ({"threshold": 0.5}, {"false_alarm_rate": 0.25}, {"false_alarm_rate": 0.25}),
        ({"false_alarm_rate": 0.5}, {"threshold": 0.25}, {"threshold": 0.25}),
    ],
)
def test_a_limit_that_is_given_takes_the_place_of_the_other_one(
    line, in_file: dict[str, float], given: dict[str, float], in_force: dict[str, float]
) -> None:
    """The two exclude each other: both together would let the stream refuse to start."""
    path = line({"kit": "k", "source": [{"address": "0"}], "limits": in_file})
    config = read_config(path, {"limits": given} if given else {})
    assert tomllib.loads(config_as_toml(config))["limits"] == in_force


def test_a_wrong_value_on_the_command_line_is_a_usage_error_without_its_secrets(tmp_path: Path) -> None:
    done = command(
        *("k", f"rtsp://viewer:{SECRET}@10.0.0.5/a", "--webhook", f"https://h/{SECRET}"),
        *("--mqtt", f"mqtt://robot:{SECRET}@broker"),
        *("--alarm-after", "3-of-2"),
        cwd=tmp_path,
    )
    assert done.returncode == 2
    assert "m from 1 to n" in done.stderr or "mqtt" in done.stderr
    assert SECRET not in done.stdout + done.stderr


# -- secrets

HIDDEN = [
    ('kit = "k"\n[[source]]\naddress = "rtsp://viewer:SECRET@10.0.0.5/a"\n', "hunter2"),
    ('kit = "k"\n[[source]]\naddress = "rtsp://viewer:SECRET@10.0.0.5/a"\n', "p@ss/w#rd?x"),
    ('kit = "k"\n[[source]]\naddress = "rtsp://viewer:SECRET@10.0.0.5/a"\n', "12345678"),
    ('kit = "k"\n[[source]]\naddress = "http://10.0.0.5/video?user=a&pwd=SECRET"\n', "hunter2"),
    *[
        (LEAST + f'[{section}]\n{option} = "SECRET"\n', secret)
        for section, option in (("mqtt", "password"), ("webhook", "secret"))
        for secret in ("hunter2", "12345678", "x://tail-of-it", "/usr/lib", "q" * 300, "whsec_aGVsbG8gaGVsbG8gaGVsbG8=")
    ],
    (LEAST + '[webhook]\nurl = "https://robot:SECRET@mes.factory/hook"\n', "hunter2"),
    (LEAST + '[webhook]\nurl = "https://mes.factory/hook?token=SECRET"\n', "hunter2"),
    (LEAST + '[webhook]\nurl = "https://hooks.factory/services/T0/SECRET"\n', "hunter2"),
]


@pytest.mark.parametrize(("text", "secret"), HIDDEN)
def test_a_secret_is_not_printed_and_it_shows_that_there_is_one(line, text: str, secret: str) -> None:
    """Whatever it looks like: a number, a path, a URL. The path of a webhook's URL is often all that guards it."""
    path = line(text.replace("SECRET", secret))
    shown = config_as_toml(read_config(path, {}))
    assert secret not in shown
    assert "***" in shown
    assert secret not in repr(read_config(path, {}))


@pytest.mark.parametrize(
    "text",
    [
        LEAST + '[mqtt]\npassword = ["SECRET"]\n',
        LEAST + '[mqtt]\npassword = {value = "SECRET"}\n',
        LEAST + "[mqtt]\npassword = SECRET\n",
        LEAST + "[mqtt]\npassword = 'SECRET\n",
        LEAST + '[mqtt]\npassword = "SECRET\\q"\n',
        LEAST + '[mqtt]\npassword = "SECRET"\npassword = "SECRET"\n',
        LEAST + '[mqtt]\npassword: "SECRET"\n',
        LEAST + '[mqtt]\npasswort = "SECRET"\n',
        LEAST + '[mqtt]\nport = "SECRET"\n',
        LEAST + '[mqtt]\ntls = "SECRET"\n',
        LEAST + '[mqtt]\nstyle = "SECRET"\n',
        LEAST + '[mqtt]\ntopic = "mqtt://u:SECRET@h/#"\n',
        'mqtt = "mqtt://u:SECRET@h"\n' + LEAST,
        LEAST + '[webhook]\nurl = ["https://u:SECRET@h"]\n',
        LEAST + '[webhook]\nurl = {url = "https://u:SECRET@h"}\n',
        LEAST + '[webhook]\nsecret = ["SECRET"]\n',
        LEAST + '[webhook]\nsecrt = "SECRET"\n',
        'webhook = "https://u:SECRET@h"\n' + LEAST,
        'kit = "k"\nsource = "rtsp://u:SECRET@h"\n',
        'kit = "k"\nsource = ["rtsp://u:SECRET@h"]\n',
        'kit = "k"\n[[source]]\naddress = ["rtsp://u:SECRET@h"]\n',
        'kit = "k"\n[[source]]\nadress = "rtsp://u:SECRET@h"\n',
        'kit = "k"\n[[source]]\naddress = rtsp://u:SECRET@h\n',
        'kit = "k"\n[[source]]\naddress = "0"\nname = "rtsp://u:SECRET@h"\n',
        'kit = "k"\n[[source]]\naddress = "rtsp://u:SECRET${MSC_NOT_THERE}@h"\n',
    ],
)
def test_a_wrong_value_in_the_place_of_a_secret_is_not_repeated(
    line, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.delenv("MSC_NOT_THERE", raising=False)
    with pytest.raises(UsageError) as caught:
        read_config(line(text.replace("SECRET", SECRET)), {})
    assert SECRET not in str(caught.value)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_the_example_shows_none_of_the_passwords_that_it_is_given(line, monkeypatch: pytest.MonkeyPatch) -> None:
    text = re.sub(r"^#(?!false_alarm)(\w+ *=|\[\[)", r"\1", EXAMPLE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    names = re.findall(r"\$\{([A-Z_]+)\}", text)
    assert len(names) >= 3
    for number, name in enumerate(names):
        monkeypatch.setenv(name, f"{SECRET}-{number}")
    config = read_config(line(text), {})
    assert SECRET in config.source[1].address.get_secret_value()
    assert config.mqtt.password is not None
    assert config.webhook.secret is not None
    assert SECRET not in config_as_toml(config) + repr(config)


def test_every_field_that_may_hold_a_secret_is_typed_so() -> None:
    """So that no log, no traceback and no print of the configuration shows it by accident."""
    assert "SecretStr" in str(SourceConfig.model_fields["address"].annotation)
    for section, option in SECRETS:
        (model,) = models_in(StreamConfig.model_fields[section].annotation)
        assert "SecretStr" in str(model.model_fields[option].annotation), (section, option)
