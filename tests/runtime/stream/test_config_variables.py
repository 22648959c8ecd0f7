"""Environment variables in the configuration file."""

import pytest

from msc_edge.errors import UsageError
from msc_edge.runtime.stream.config_file import read_config
from msc_edge.runtime.stream.config_toml import config_as_toml

LEAST = 'kit = "bottles.kit"\n[[source]]\naddress = "0"\n'


def test_an_empty_url_of_the_webhook_is_refused(line, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that is set and empty must not silence the alarms."""
    monkeypatch.setenv("MSC_EMPTY", "")
    with pytest.raises(UsageError, match=r"webhook.url"):
        read_config(line({"kit": "k", "source": [{"address": "0"}], "webhook": {"url": "${MSC_EMPTY}"}}), {})


@pytest.mark.parametrize("text", ["${}", "${9A}", "${MSC-PASSWORD}", "${MSC_A:-default}", "${MSC_A"])
def test_a_reference_of_another_form_is_refused(line, text: str) -> None:
    """It would be sent as the password."""
    source = {"address": "rtsp://h/live", "username": "viewer", "password": text}
    with pytest.raises(UsageError, match=r"no name of an environment variable; write \$\{NAME\}"):
        read_config(line({"kit": "k", "source": [source]}), {})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rtsp://u:a@h/${MSC_B}", "rtsp://u:a@h/${MSC_A}"),
        ("rtsp://h/${MSC_A}${MSC_A}", "rtsp://h/p$4p$4"),
        ("rtsp://h/$MSC_A", "rtsp://h/$MSC_A"),
        ("rtsp://h/$$", "rtsp://h/$$"),
        ("${MSC_EMPTY}7", "7"),
    ],
)
def test_a_variable_is_replaced_once_and_unchanged(
    line, monkeypatch: pytest.MonkeyPatch, text: str, expected: str
) -> None:
    for name, value in (("MSC_A", "p$4"), ("MSC_B", "${MSC_A}"), ("MSC_EMPTY", "")):
        monkeypatch.setenv(name, value)
    config = read_config(line({"kit": "k", "source": [{"address": text}]}), {})
    assert config.source[0].address.get_secret_value() == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://viewer:${MSC_A}@h/video", "http://viewer:p%40ss%23w%2Frd%3F1%20%2541%3A@h/video"),
        ("http://${MSC_USER}:x${MSC_A}@h", "http://a%3Ab:xp%40ss%23w%2Frd%3F1%20%2541%3A@h"),
        ("http://${MSC_USER}@h", "http://a:b@h"),
        ("http://h/video?user=a&pwd=${MSC_A}", "http://h/video?user=a&pwd=p%40ss%23w%2Frd%3F1%20%2541%3A"),
        ("rtsp://h/user=a_password=${MSC_A}_1", "rtsp://h/user=a_password=p%40ss%23w%2Frd%3F1%20%2541%3A_1"),
        ("rtsp://${MSC_HOST}/${MSC_PATH}", "rtsp://10.0.0.5:554/live/1"),
        ("${MSC_URL}", "rtsp://u:p@h/a"),
    ],
)
def test_in_the_login_and_in_values_of_a_url_a_variable_is_percent_encoded(
    line, monkeypatch: pytest.MonkeyPatch, text: str, expected: str
) -> None:
    for name, value in (
        ("MSC_A", "p@ss#w/rd?1 %41:"),
        ("MSC_USER", "a:b"),
        ("MSC_HOST", "10.0.0.5:554"),
        ("MSC_PATH", "live/1"),
        ("MSC_URL", "rtsp://u:p@h/a"),
    ):
        monkeypatch.setenv(name, value)
    config = read_config(line({"kit": "k", "source": [{"address": text}]}), {})
    assert config.source[0].address.get_secret_value() == expected


def test_a_password_beside_the_address_is_a_secret_and_needs_a_user(line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MSC_A", "p@ss#w/rd?1")
    source = {"address": "http://h/a", "username": "viewer", "password": "${MSC_A}"}
    config = read_config(line({"kit": "k", "source": [source]}), {})
    assert config.source[0].password
    assert config.source[0].password.get_secret_value() == "p@ss#w/rd?1"
    assert "p@ss" not in config_as_toml(config)
    del source["username"]
    with pytest.raises(UsageError, match=r"source.1: `password` needs `username`"):
        read_config(line({"kit": "k", "source": [source]}), {})


def test_a_variable_may_be_a_number_or_a_path(line, monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_a_variable_that_is_not_set_is_named(line, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.delenv("MSC_NOT_THERE", raising=False)
    path = line(text)
    with pytest.raises(UsageError, match=rf"{path}: \$\{{MSC_NOT_THERE\}}: this environment variable is not set"):
        read_config(path, {})
