"""A printed configuration shows no secrets."""

import re
from pathlib import Path

import pytest

from msc_edge.runtime.stream.config_file import read_config
from msc_edge.runtime.stream.config_toml import config_as_toml

EXAMPLE = Path(__file__).parents[3] / "deploy" / "line.example.toml"
SECRET = "hunter2"
LEAST = 'kit = "bottles.kit"\n[[source]]\naddress = "0"\n'

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
    # URLs that are none
    (LEAST + '[webhook]\nurl = "https://robot:SECRET@[mes/hook"\n', "hunter2"),
    (LEAST + '[webhook]\nurl = "https://robot:SECRET%40mes/hook"\n', "hunter2"),
    (LEAST + '[webhook]\nurl = "https:/robot:SECRET@mes/hook"\n', "hunter2"),
    ('kit = "k"\n[[source]]\naddress = "rtsp://viewer:SECRET%4010.0.0.5/a"\n', "hunter2"),
]


@pytest.mark.parametrize(("text", "secret"), HIDDEN)
def test_a_secret_is_printed_as_asterisks(line, text: str, secret: str) -> None:
    """Whatever it looks like: a number, a path, a URL. The path of a webhook is often its only secret."""
    path = line(text.replace("SECRET", secret))
    shown = config_as_toml(read_config(path, {}))
    assert secret not in shown
    assert "***" in shown
    assert secret not in repr(read_config(path, {}))


def test_no_password_of_the_example_is_printed(line, monkeypatch: pytest.MonkeyPatch) -> None:
    text = re.sub(r"^#(?!false_alarm)(\w+ *=|\[\[)", r"\1", EXAMPLE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    names = re.findall(r"\$\{([A-Z_]+)\}", text)
    assert len(names) >= 3
    for number, name in enumerate(names):
        monkeypatch.setenv(name, f"{SECRET}-{number}")
    config = read_config(line(text), {})
    assert config.source[1].password is not None
    assert config.mqtt.password is not None
    assert config.webhook.secret is not None
    assert SECRET not in config_as_toml(config) + repr(config)
