"""The tools that read the files of deploy/ accept them, and the files agree with the code."""

import re
import shutil
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from configparser import RawConfigParser
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel
from ruamel.yaml import YAML

from msc_edge.errors import UsageError
from msc_edge.runtime.stream.config import StreamConfig
from msc_edge.runtime.stream.config_file import read_config

REPOSITORY = Path(__file__).resolve().parents[2]
DEPLOY = REPOSITORY / "deploy"
UNIT = DEPLOY / "msc-edge@.service"
EXAMPLE = DEPLOY / "line.example.toml"
DOCKERFILE = DEPLOY / "Dockerfile"
COMPOSE = DEPLOY / "compose.yaml"
FILES = sorted(path for path in DEPLOY.rglob("*") if path.is_file())

OPTION = re.compile(r"^#(?=\w+ = |\[\[)", re.MULTILINE)  # an option that is not set


def program(name: str) -> str:
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def run(*command: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False, timeout=120
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_file_is_clean_text(path: Path) -> None:
    data = path.read_bytes()
    assert b"\r" not in data
    assert b"\t" not in data
    assert data.endswith(b"\n")
    assert not re.search(rb"[ ]$", data, flags=re.MULTILINE)
    data.decode("utf-8")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_file_contains_no_registry_and_no_password(path: Path) -> None:
    """A plant has its own mirror, and a password of an example would be used."""
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"docker\.io|ghcr\.io|quay\.io|pypi\.org|files\.pythonhosted|registry\.", text)
    given = re.findall(r"(?:password|secret)\w*\"?\s*[=:]\s*\"([^\"]+)\"", text, flags=re.IGNORECASE)
    assert [value for value in given if not re.fullmatch(r"\$?\$\{\w+\}", value)] == []
    credentials = re.findall(r"\w+://[^\s/:@]+:([^\s@]+)@", text)
    assert [value for value in credentials if not re.fullmatch(r"\$\{\w+\}", value)] == []


def test_the_readme_links_every_file() -> None:
    page = (DEPLOY / "README.md").read_text(encoding="utf-8")
    linked = {target for target in re.findall(r"\]\(([^)]+)\)", page) if "://" not in target}
    own = {path.relative_to(DEPLOY).as_posix() for path in FILES} | {"fleet"}
    assert linked == own - {"README.md", "Dockerfile.dockerignore"}


class TestUnit:
    @pytest.fixture
    def unit(self) -> RawConfigParser:
        parser = RawConfigParser(strict=True)
        parser.optionxform = str  # pyright: ignore[reportAttributeAccessIssue]
        parser.read(UNIT, encoding="utf-8")
        return parser

    def test_systemd_accepts_it(self, tmp_path: Path) -> None:
        analyze = program("systemd-analyze")
        version = int(run(analyze, "--version").stdout.split()[1])
        text = UNIT.read_text(encoding="utf-8")
        runnable = text.replace("ExecStart=/opt/msc-edge/bin/msc-edge ", f"ExecStart={sys.executable} ")
        assert runnable != text
        (tmp_path / UNIT.name).write_text(runnable, encoding="utf-8")
        done = run(analyze, "verify", tmp_path / "msc-edge@line3.service")
        # It also loads the units of the machine, and reports on them.
        messages = [line for line in (done.stdout + done.stderr).splitlines() if "msc-edge@" in line]
        if version < 254:
            messages = [line for line in messages if not re.search(r"RestartSteps|RestartMaxDelaySec", line)]
        assert messages == []
        assert done.returncode == 0

    @pytest.mark.parametrize(
        ("section", "key", "value"),
        [
            ("Service", "Type", "notify"),
            ("Service", "NotifyAccess", "main"),
            ("Service", "WatchdogSec", "60"),
            ("Service", "ExecStart", "/opt/msc-edge/bin/msc-edge stream --config /etc/msc-edge/%i.toml"),
            ("Service", "ExecReload", "/bin/kill -HUP $MAINPID"),
            ("Service", "Restart", "always"),
            ("Service", "StateDirectory", "msc-edge/%i"),
            ("Service", "SupplementaryGroups", "video"),
            # A crash loop ends visibly; pauses grow to a minute, so ten starts take some five minutes.
            ("Unit", "StartLimitIntervalSec", "1800"),
            ("Unit", "StartLimitBurst", "10"),
            ("Service", "LimitCORE", "0"),
            ("Service", "MemoryMax", "2G"),
            ("Service", "UMask", "0077"),
            ("Service", "StateDirectoryMode", "0700"),
            ("Service", "Environment", "ORT_DISABLE_TELEMETRY=1"),
            ("Install", "WantedBy", "multi-user.target"),
        ],
    )
    def test_it_runs_unattended_and_within_bounds(
        self, unit: RawConfigParser, section: str, key: str, value: str
    ) -> None:
        assert unit[section][key] == value

    def test_no_option_hides_the_cameras(self, unit: RawConfigParser) -> None:
        """Each of these hides /dev/video*; ProtectClock implies an allow-list of devices."""
        assert {"PrivateDevices", "DevicePolicy", "DeviceAllow", "ProtectClock"} & set(unit["Service"]) == set()

    def test_no_option_is_given_twice(self, unit: RawConfigParser) -> None:
        """systemd would use the last one. RawConfigParser(strict=True) refuses a second one."""
        assert unit.sections() == ["Unit", "Service", "Install"]


def section_models() -> dict[str, type[BaseModel]]:
    """The sections of the file and their models; "" is the top level."""
    models: dict[str, type[BaseModel]] = {"": StreamConfig}
    for name, field in StreamConfig.model_fields.items():
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                models[name] = kind
    return models


def set_all(text: str) -> str:
    """The example with every option set, except for the rate, which excludes the threshold."""
    return OPTION.sub("", re.sub(r"^#(false_alarm_rate = )", r"# \1", text, flags=re.MULTILINE))


class TestExample:
    @pytest.fixture
    def text(self) -> str:
        return EXAMPLE.read_text(encoding="utf-8")

    @pytest.fixture
    def passwords(self, text: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        names = re.findall(r"\$\{([A-Z_]+)\}", text)
        for name in names:
            monkeypatch.setenv(name, f"value-of-{name}")
        return names

    def test_it_is_valid(self) -> None:
        assert read_config(EXAMPLE, {}).source[0].address.get_secret_value() == "/dev/video0"

    @pytest.mark.usefixtures("passwords")
    def test_it_is_valid_with_every_option_set(self, text: str, tmp_path: Path) -> None:
        (tmp_path / "line.toml").write_text(set_all(text), encoding="utf-8")
        config = read_config(tmp_path / "line.toml", {})
        assert [source.name for source in config.source] == ["camera-1", "camera-2", "manual-check"]
        assert config.mqtt.password
        assert config.mqtt.password.get_secret_value() == "value-of-MQTT_PASSWORD"
        assert config.source[1].password
        assert config.source[1].password.get_secret_value() == "value-of-CAMERA_PASSWORD"

    def test_a_missing_password_is_reported(self, text: str, tmp_path: Path) -> None:
        (tmp_path / "line.toml").write_text(set_all(text), encoding="utf-8")
        with pytest.raises(UsageError, match="_PASSWORD"):
            read_config(tmp_path / "line.toml", {})

    def test_it_names_every_option_and_no_other(self, text: str) -> None:
        document: dict[str, Any] = tomllib.loads(OPTION.sub("", text))
        for name, model in section_models().items():
            value = document if name == "" else document[name]
            section = value[0] if isinstance(value, list) else value
            assert set(section) == set(model.model_fields), name or "the top level"

    def test_an_option_that_is_set_has_its_default(self, text: str) -> None:
        """Except for options without a default: the kit and the address of the source."""
        document: dict[str, Any] = tomllib.loads(text)
        config = read_config(EXAMPLE, {})
        for name, model in section_models().items():
            value = document if name == "" else document[name]
            section = value[0] if isinstance(value, list) else value
            got: Any = config if name == "" else getattr(config, name)
            got = got[0] if isinstance(got, list) else got
            for option in section:
                field = model.model_fields[option]
                if not isinstance(section[option], dict | list) and not field.is_required() and option != "kit":
                    assert getattr(got, option) == field.get_default(), (name, option)

    def test_an_option_that_is_not_set_has_no_default(self, text: str) -> None:
        """An option with a default is written with it."""
        document: dict[str, Any] = tomllib.loads(text)
        for name, model in section_models().items():
            value = document if name == "" else document[name]
            section = value[0] if isinstance(value, list) else value
            for option, field in model.model_fields.items():
                if option not in section:
                    assert field.default is None or field.default_factory is not None, (name, option)

    def test_the_example_writes_to_the_state_folder_of_the_service(self, text: str) -> None:
        """ProtectSystem=strict forbids the service to write elsewhere."""
        document = tomllib.loads(set_all(text))
        places = [document["results"]["jsonl"], document["results"]["csv"], document["images"]["folder"]]
        assert all(place.startswith("/var/lib/msc-edge/") for place in [*places, document["state"]])


class TestContainer:
    @pytest.fixture
    def compose(self) -> dict[str, Any]:
        return YAML(typ="safe").load(COMPOSE.read_text(encoding="utf-8"))

    def test_hadolint_accepts_the_dockerfile(self) -> None:
        done = run(program("hadolint"), "--no-color", DOCKERFILE)
        assert (done.returncode, done.stdout + done.stderr) == (0, "")

    def test_the_compose_file_follows_its_specification(self) -> None:
        done = run(program("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", COMPOSE)
        assert done.returncode == 0, done.stdout + done.stderr

    def test_what_the_image_copies_exists_and_is_not_ignored(self) -> None:
        """`.dockerignore` excludes everything that it does not name."""
        included = re.findall(r"^!(.+)$", (DEPLOY / "Dockerfile.dockerignore").read_text(), flags=re.MULTILINE)
        copied = [
            name
            for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE.read_text(), flags=re.MULTILINE)
            for name in line.split()[:-1]
        ]
        assert sorted(copied) == sorted(included)
        assert [name for name in copied if not (REPOSITORY / name).exists()] == []

    def test_the_image_runs_without_a_shell_and_not_as_root(self) -> None:
        text = DOCKERFILE.read_text(encoding="utf-8")
        assert 'ENTRYPOINT ["msc-edge"]' in text
        assert re.findall(r"^USER (\S+)$", text, flags=re.MULTILINE) == ["10001"]

    def test_every_foreign_image_is_pinned_by_its_digest(self, compose: dict[str, Any]) -> None:
        """A tag may be another image tomorrow."""
        named = re.findall(r"^FROM (\S+)", DOCKERFILE.read_text(encoding="utf-8"), flags=re.MULTILINE)
        named += [service["image"] for service in compose["services"].values() if "build" not in service]
        assert len(named) == 4
        assert [image for image in named if not re.fullmatch(r"[\w/.-]+:[\w.-]+@sha256:[0-9a-f]{64}", image)] == []
        assert len({image for image in named if image.startswith("python:")}) == 1

    def test_no_container_sends_telemetry_dumps_core_or_takes_all_memory(self, compose: dict[str, Any]) -> None:
        assert "ORT_DISABLE_TELEMETRY=1" in DOCKERFILE.read_text(encoding="utf-8")
        service = compose["services"]["msc-edge"]
        assert (service["environment"]["ORT_DISABLE_TELEMETRY"], service["ulimits"]["core"]) == ("1", 0)
        assert service["mem_limit"] == "2g"

    def test_its_configuration_is_valid(self, compose: dict[str, Any], tmp_path: Path) -> None:
        content = compose["configs"]["line"]["content"].replace("$$", "$")
        (tmp_path / "line.toml").write_text(content, encoding="utf-8")
        config = read_config(tmp_path / "line.toml", {})
        assert config.mqtt.host in compose["services"]
        assert config.source[0].address.get_secret_value() == "rtsp://camera:8554/clip"
        ports = compose["services"]["msc-edge"]["ports"]
        assert ports == [f"127.0.0.1:{config.http.port}:{config.http.port}"]
        assert f"http://127.0.0.1:{config.http.port}/healthz" in DOCKERFILE.read_text(encoding="utf-8")

    def test_the_mounted_file_exists(self, compose: dict[str, Any]) -> None:
        mounts = [mount for service in compose["services"].values() for mount in service.get("volumes", [])]
        local = [mount["source"] for mount in mounts if isinstance(mount, dict) and mount["source"].startswith(".")]
        assert local == ["./mosquitto.conf"]
        assert all((DEPLOY / source).is_file() for source in local)

    def test_mosquitto_starts_with_its_configuration(self, tmp_path: Path, free_port: Callable[[], int]) -> None:
        broker, port = program("mosquitto"), free_port()
        text = (DEPLOY / "mosquitto.conf").read_text(encoding="utf-8")
        local = text.replace("listener 1883", f"listener {port} 127.0.0.1").replace("/mosquitto/data/", f"{tmp_path}/")
        (tmp_path / "mosquitto.conf").write_text(f"{local}user root\n", encoding="utf-8")
        with subprocess.Popen(
            [broker, "-c", str(tmp_path / "mosquitto.conf")],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            try:
                answered = eventually(lambda: connected(port), process)
            finally:
                process.terminate()
            output = process.communicate(timeout=30)[0]
        assert answered, output
        assert "Error" not in output


def connected(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as broker:
            broker.sendall(bytes.fromhex("101000044d5154540402003c0004") + b"test")  # CONNECT of MQTT 3.1.1
            return broker.recv(4) == bytes.fromhex("20020000")  # CONNACK: accepted
    except OSError:
        return False


def eventually(condition: Callable[[], bool], process: subprocess.Popen[str]) -> bool:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        if condition():
            return True
        time.sleep(0.05)
    return False
