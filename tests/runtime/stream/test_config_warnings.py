"""Passwords that others could read are named, without showing them."""

from pathlib import Path
from typing import Any

import pytest

from msc_edge.runtime.stream.config_file import check_config, read_config
from msc_edge.runtime.stream.config_warnings import password_without_tls

SECRET = "hunter2"
CAMERA = '[[source]]\naddress = "rtsp://viewer:{}@10.0.0.5/s"\n'
MQTT = '[mqtt]\nhost = "broker"\npassword = "{}"\n'
WEBHOOK = '[webhook]\nurl = "https://mes/x"\nsecret = "{}"\n'
PLAIN = '[[source]]\naddress = "0"\n'


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (PLAIN + MQTT.format(SECRET), "mqtt.password"),
        (PLAIN + WEBHOOK.format(SECRET), "webhook.secret"),
        (CAMERA.format(SECRET), "source.1.address"),
        (PLAIN + CAMERA.format(SECRET) + MQTT.format(SECRET), "source.2.address, mqtt.password"),
        (PLAIN + '[webhook]\nurl = "https://robot:hunter2@mes/x"\n', "webhook.url"),
        ('[[source]]\naddress = "http://10.0.0.5/video?user=a&pwd=hunter2"\n', "source.1.address"),
        ('[[source]]\naddress = "rtsp://10.0.0.5/user=a_password=hunter2_channel=1"\n', "source.1.address"),
        ('[[source]]\naddress = "http://a:${PW}@10.0.0.5/video?token=hunter2"\n', "source.1.address"),
        ('[[source]]\naddress = "http://10.0.0.5/video?user=a&pwd=${PW}"\n', None),
        (CAMERA.format("${PW}") + MQTT.format("${PW}") + WEBHOOK.format("${PW}"), None),
        (PLAIN + '[webhook]\nurl = "https://mes/x"\n', None),
        (PLAIN, None),
    ],
)
@pytest.mark.parametrize("mode", [0o644, 0o604, 0o640, 0o600])
def test_a_password_in_plain_text_in_a_file_that_all_may_read_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, names: str | None, mode: int
) -> None:
    monkeypatch.setenv("PW", SECRET)
    path = tmp_path / "line.toml"
    path.write_text(f'kit = "k"\n{text}', encoding="utf-8")
    path.chmod(mode)
    warnings: list[str] = []
    read_config(path, {}, on_warning=warnings.append)
    if names is None or not mode & 0o004:
        assert warnings == []
    else:
        (warning,) = warnings
        assert f"{path}: {names}: a password in plain text" in warning
        assert SECRET not in warning


@pytest.mark.parametrize(
    ("mqtt", "expected"),
    [
        ({"host": "broker", "password": SECRET}, True),
        ({"host": "broker", "password": SECRET, "tls": True}, False),
        ({"host": "broker"}, False),
        ({"password": SECRET}, False),
        ({"host": "localhost", "password": SECRET}, False),
        ({"host": "127.0.0.1", "password": SECRET}, False),
        ({"host": "10.0.0.7", "password": SECRET}, True),
    ],
)
def test_a_password_without_tls_crosses_the_network(mqtt: dict[str, Any], expected: bool) -> None:
    config = check_config({"kit": "k", "source": [{"address": "0"}], "mqtt": mqtt})
    assert password_without_tls(config) is expected
