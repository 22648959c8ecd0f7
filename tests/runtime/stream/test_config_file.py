import re
import textwrap
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
from msc_edge.runtime.stream.config_file import read_config
from msc_edge.runtime.stream.config_toml import config_as_toml

EXAMPLE = Path(__file__).parents[3] / "deploy" / "line.example.toml"
SECRET = "hunter2"
LEAST = 'kit = "bottles.kit"\n[[source]]\naddress = "0"\n'

# Each option, with a value other than its default, without secrets. The two limits exclude each other.
EVERYTHING: dict[str, Any] = {
    "kit": "/srv/kits/bottles.zip",
    "station": "line-3",
    "state": "/var/lib/msc-edge/line3",
    "threads": 2,
    "precision": "int8",
    "backend": "onnxruntime",
    "trusted_key": "/etc/msc-edge/keys",
    "show": True,
    "source": [
        {
            "address": "rtsp://192.168.1.20:554/stream1",
            "name": "camera_1",
            "max_fps": 12.5,
            "trigger_delay": 0.25,
            "lost_after": 7.0,
            "frozen_after": 0.0,
            "open_timeout": 2.5,
            "read_timeout": 3.5,
            "width": 1280,
            "height": 720,
            "fps": 29.97,
            "settle": 0.25,
            "username": "viewer",
            "ca_file": "/etc/ssl/camera.pem",
            "insecure": True,
            "not_scored_after": 8.0,
            "kit": "/kits/caps.kit",
            "roi": {"x": 1, "y": 2, "width": 640, "height": 480},
            "limits": {"threshold": 0.25},
            "alarm": {"after": "3-of-4", "cooldown": 1.0},
        },
        {"address": "0", "name": "second.one"},
    ],
    "limits": {"threshold": 0.125, "false_alarm_rate": 0.01},
    "alarm": {"after": "2-of-3", "cooldown": 4.5},
    "results": {"jsonl": '/data/größe "a".jsonl', "csv": "/data/rows.csv", "rotate_mb": 0.5, "keep": 3},
    "images": {
        "folder": "/data/images",
        "every": 1000,
        "warnings": True,
        "overlays": False,
        "format": "png",
        "max_mb": 12.5,
        "max_days": 0.5,
    },
    "drift": {"watch": False, "every": 2.5},
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
    "line": {"host": "192.168.1.5", "modbus_port": 502, "opcua_port": 4840},
    "trigger": {"by": "modbus", "timeout": 1.5, "host": "0.0.0.0", "port": 9121},
    "http": {"port": 9110, "host": "0.0.0.0", "ready_within": 12.0},
    "web": {
        "port": 8443,
        "host": "0.0.0.0",
        "users": "/etc/msc-edge/users.toml",
        "tls_cert": "/etc/msc-edge/station.pem",
        "tls_key": "/etc/msc-edge/station.key",
        "insecure": True,
        "session_hours": 8.0,
    },
    "log": {"format": "json", "status_every": 5.0},
}
SECRETS = {
    ("source", "password"),
    ("mqtt", "password"),
    ("trigger", "token"),
    ("webhook", "url"),
    ("webhook", "secret"),
}


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (list, Union, types.UnionType):
        for each in get_args(annotation):
            yield from models_in(each)


def options() -> list[tuple[str, str]]:
    """(section, option) of all options; the section is "" for the top level of the file."""
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


def printed(path: Path) -> dict[str, Any]:
    return tomllib.loads(config_as_toml(read_config(path, {})))


# -- printed and read again


def test_the_options_above_are_complete() -> None:
    """A new option must be tested too."""
    for section, option in options():
        assert (option in section_of(EVERYTHING, section)) != ((section, option) in SECRETS), (section, option)


@pytest.mark.parametrize("other_limit", ["threshold", "false_alarm_rate"])
def test_every_option_is_the_same_after_it_was_printed_and_read(line, other_limit: str) -> None:
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


def test_defaults_are_the_same_after_they_were_printed_and_read(line) -> None:
    config = read_config(line(LEAST), {})
    assert read_config(line(config_as_toml(config)), {}) == config


def test_defaults_are_printed(line) -> None:
    shown = printed(line(LEAST))
    assert shown["alarm"] == {"after": "1-of-1", "cooldown": 0}
    assert shown["http"]["host"] == "127.0.0.1"
    assert "port" not in shown["http"], "an option that is not set has no line"
    assert shown["source"][0]["lost_after"] == 20


@pytest.mark.parametrize(
    "address", ["3", "/dev/video97", "rtsp://10.0.0.5:554/stream1", "https://cam.local/video", "/share/not-mounted"]
)
def test_an_address_without_a_password_is_printed_unchanged(line, address: str) -> None:
    """Also for a camera that is not plugged in, and a folder on a share that is not mounted."""
    shown = printed(line({"kit": "/k", "source": [{"address": address}]}))
    assert shown["source"][0]["address"] == address


# -- refused options


@pytest.mark.parametrize(("section", "option"), options())
def test_a_misspelt_option_is_refused_with_the_most_similar_name(line, section: str, option: str) -> None:
    document = tomllib.loads(tomli_w.dumps(without(EVERYTHING, "limits", "threshold")))
    section_of(document, section)[f"{option}{option[-1]}"] = 1
    path = line(document)
    place = "source.1." if section == "source" else f"{section}." if section else ""
    with pytest.raises(UsageError, match=rf"{path}: {place}{option}{option[-1]}: .*did you mean {option}") as caught:
        read_config(path, {})
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('kitt = "k"\n[[source]]\naddress = "0"\n', "kitt: .*did you mean kit"),
        ('kit = "k"\n[[sources]]\naddress = "0"\n', "sources: .*did you mean source"),
        ('kit = "k"\n[[source]]\nadress = "0"\n', "source.1.adress: .*did you mean address"),
    ],
)
def test_a_misspelt_required_option_is_not_reported_as_missing(line, text: str, message: str) -> None:
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
def test_without_a_similar_name_the_known_ones_are_listed(line, text: str, known: list[str]) -> None:
    with pytest.raises(UsageError, match="zzzz: unknown option; known options") as caught:
        read_config(line(text), {})
    assert set(known) <= set(re.findall(r"\w+", str(caught.value).partition("known options")[2]))


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
        (LEAST + 'roi = "1,2,3"\n', "source.1.roi:"),
        (LEAST + 'roi = "0,0,0,4"\n', "source.1.roi.width:"),
        (LEAST + "[source.alarm]\nafter = 2\n", "source.1.alarm.after:"),
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
def test_a_wrong_value_is_refused_with_its_place(line, text: str, place: str) -> None:
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
        ("", "source: is missing"),
    ],
)
def test_a_file_that_is_not_toml_is_refused_with_the_line(line, content: str | bytes, message: str) -> None:
    path = line(content)
    with pytest.raises(UsageError, match=message) as caught:
        read_config(path, {})
    assert str(path) in str(caught.value)


def test_a_file_that_cannot_be_read_is_reported_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=rf"{tmp_path}/none.toml: cannot be read: No such file"):
        read_config(tmp_path / "none.toml", {})
    with pytest.raises(UsageError, match=rf"{tmp_path}: cannot be read: .*irectory"):
        read_config(tmp_path, {})


def test_windows_line_ends_and_comments_are_toml(line) -> None:
    assert read_config(line(LEAST.replace("\n", "  # so\r\n")), {}).source[0].address.get_secret_value() == "0"


# -- paths


def path_options() -> list[tuple[str, str]]:
    """All options that are paths."""

    def is_path(model: type[BaseModel], option: str) -> bool:
        annotation = model.model_fields[option].annotation
        return annotation is Path or Path in get_args(annotation)

    models = {"": StreamConfig} | {
        section: model for section, field in StreamConfig.model_fields.items() for model in models_in(field.annotation)
    }
    return [(section, option) for section, option in options() if is_path(models[section], option)]


@pytest.mark.parametrize(("section", "option"), path_options())
def test_a_relative_path_is_relative_to_the_folder_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, section: str, option: str
) -> None:
    (tmp_path / "etc" / "deep").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)

    def read(value: str) -> Path:
        document = tomllib.loads(LEAST)
        parent = document if section == "" else document.setdefault(section, {})
        (parent[0] if isinstance(parent, list) else parent)[option] = value
        (tmp_path / "etc" / "line.toml").write_text(tomli_w.dumps(document))
        config = read_config(Path("etc/line.toml"), {})
        found = config if section == "" else getattr(config, section)
        return getattr(found[0] if isinstance(found, list) else found, option)

    name = f"x.{option}"  # row files must have the suffix of their format
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
def test_a_relative_source_too_unless_it_is_a_camera_or_a_stream(
    line, monkeypatch: pytest.MonkeyPatch, given: str, expected: str
) -> None:
    path = line({"kit": "k", "source": [{"address": "1"}, {"address": given}]})
    monkeypatch.chdir("/")
    found = read_config(path, {}).source[1].address.get_secret_value()
    assert found == expected.replace("FOLDER", str(path.parent))


# -- deprecated names


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        (LEAST, None),
        ('engine = "openvino"\n' + LEAST, "engine is deprecated, use backend"),
        (LEAST + "[pictures]\nevery = 5\n", "pictures is deprecated, use images"),
        (
            'engine = "openvino"\n' + LEAST + "[pictures]\nevery = 5\n",
            "pictures is deprecated, use images; engine is deprecated, use backend",
        ),
    ],
)
def test_names_of_0_1_0_are_accepted_with_one_warning_that_names_the_file(line, text: str, warning: str | None) -> None:
    path, warnings = line(text), []
    config = read_config(path, {}, on_warning=warnings.append)
    assert warnings == ([f"--config {path}: {warning}"] if warning else [])
    assert config.backend == ("openvino" if "engine" in text else "auto")
    assert config.images.every == (5 if "pictures" in text else None)


def test_precision_auto_is_accepted_with_a_warning_and_means_the_default_model(line) -> None:
    path, warnings = line('precision = "auto"\n' + LEAST), []
    assert read_config(path, {}, on_warning=warnings.append).precision is None
    assert warnings == [
        f'--config {path}: precision = "auto" is deprecated: the kit says which model scores; leave it out'
    ]
    # On the command line it replaces the precision of the file.
    assert read_config(line('precision = "int8"\n' + LEAST), {"precision": "auto"}).precision is None


def test_a_path_in_a_section_with_an_old_name_is_relative_to_the_file(line) -> None:
    path = line(LEAST + '[pictures]\nfolder = "saved"\n')
    assert read_config(path, {}).images.folder == path.parent / "saved"


def test_an_old_name_beside_the_new_one_is_refused(line) -> None:
    with pytest.raises(
        UsageError, match="pictures is the deprecated name of images, and both are given; remove pictures"
    ):
        read_config(line(LEAST + "[images]\nevery = 5\n[pictures]\nevery = 5\n"), {})


# -- overrides


@pytest.mark.parametrize(
    ("in_file", "given", "expected"),
    [
        ({"threshold": 0.5}, {"threshold": 0.25}, {"threshold": 0.25}),
        ({"threshold": 0.5}, {}, {"threshold": 0.5}),
        ({"threshold": 0.5}, {"false_alarm_rate": 0.25}, {"false_alarm_rate": 0.25}),
        ({"false_alarm_rate": 0.5}, {"threshold": 0.25}, {"threshold": 0.25}),
    ],
)
def test_a_limit_overrides_the_other_limit_too(
    line, in_file: dict[str, float], given: dict[str, float], expected: dict[str, float]
) -> None:
    """The two exclude each other: with both the stream would not start."""
    path = line({"kit": "k", "source": [{"address": "0"}], "limits": in_file})
    config = read_config(path, {"limits": given} if given else {})
    assert tomllib.loads(config_as_toml(config))["limits"] == expected


# -- secrets


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
def test_a_wrong_value_that_may_be_a_secret_is_not_repeated(line, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.delenv("MSC_NOT_THERE", raising=False)
    with pytest.raises(UsageError) as caught:
        read_config(line(text.replace("SECRET", SECRET)), {})
    assert SECRET not in str(caught.value)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_every_option_that_may_be_a_secret_has_the_type_of_one() -> None:
    """No log, traceback or print of the configuration then shows it by accident."""
    assert "SecretStr" in str(SourceConfig.model_fields["address"].annotation)
    for section, option in SECRETS:
        (model,) = models_in(StreamConfig.model_fields[section].annotation)
        assert "SecretStr" in str(model.model_fields[option].annotation), (section, option)


def test_the_configuration_in_the_documentation_is_valid(line, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (EXAMPLE.parents[1] / "docs" / "operate.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```toml\n(.*?)```", page, flags=re.DOTALL)
    monkeypatch.setenv("CAMERA_PASSWORD", SECRET)
    warnings: list[str] = []
    config = read_config(line(textwrap.dedent(block)), {}, on_warning=warnings.append)
    assert config.images.folder is not None
    assert warnings == []
