"""Valid values of options, wherever they were given."""

from pathlib import Path

import pytest

from msc_edge.errors import UsageError
from msc_edge.preprocessing import Region
from msc_edge.runtime.stream.config_file import check_config
from msc_edge.runtime.stream.config_sections import AlarmConfig, MofN


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("1-of-1", MofN(m=1, n=1)),
        ("2-of-3", MofN(m=2, n=3)),
        ("9999-of-9999", MofN(m=9999, n=9999)),
        ({"m": 2, "n": 5}, MofN(m=2, n=5)),
        *[(bad, None) for bad in ("0-of-3", "3-of-2", "2of3", "2-of-", "-1-of-3", "2-of-3\n", "2/3", "", 2, 2.5)],
        ({"m": 3, "n": 2}, None),
        ({"m": 0, "n": 2}, None),
    ],
)
def test_an_alarm_is_m_of_n_with_m_from_one_to_n(given: object, expected: MofN | None) -> None:
    document = {"kit": "k", "source": [{"address": "0"}], "alarm": {"after": given}}
    if expected is None:
        with pytest.raises(UsageError, match=r"alarm\.after"):
            check_config(document)
    else:
        assert check_config(document).alarm.after == expected


@pytest.mark.parametrize("name", ["a", "A.b_c-9", "0", "x" * 63])
def test_a_name_has_characters_that_topics_and_file_names_allow(name: str) -> None:
    config = check_config({"kit": "k", "station": name, "source": [{"address": "0", "name": name}]})
    assert (config.station, config.source[0].name) == (name, name)


@pytest.mark.parametrize("name", ["", "-a", ".", "..", "_a", "a/b", "a b", "ä", "a\n", "a+b", "a#", "x" * 64, "a\\b"])
def test_any_other_name_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=r"^station: "):
        check_config({"kit": "k", "station": name, "source": [{"address": "0"}]})
    with pytest.raises(UsageError, match=r"^source\.1\.name: "):
        check_config({"kit": "k", "source": [{"address": "0", "name": name}]})


def test_the_default_station_is_a_valid_name() -> None:
    station = check_config({"kit": "k", "source": [{"address": "0"}]}).station
    assert check_config({"kit": "k", "station": station, "source": [{"address": "0"}]}).station == station


@pytest.mark.parametrize("topic", ["a", "msc-edge", "factory/hall2/line-3", "größe"])
def test_a_topic_may_have_levels(topic: str) -> None:
    assert check_config({"kit": "k", "source": [{"address": "0"}], "mqtt": {"topic": topic}}).mqtt.topic == topic


@pytest.mark.parametrize("topic", ["", "/", "a/", "/a", "a/+", "+", "#", "a/#", "a b", "a\tb", "a\n", "a\0b", "$SYS/a"])
def test_a_topic_that_a_broker_refuses_is_refused(topic: str) -> None:
    """MQTT 3.1.1, 4.7: no wildcard, no U+0000; topics that begin with $ belong to the broker."""
    with pytest.raises(UsageError, match=r"^mqtt\.topic: "):
        check_config({"kit": "k", "source": [{"address": "0"}], "mqtt": {"topic": topic}})


@pytest.mark.parametrize("section", ["mqtt", "http"])
@pytest.mark.parametrize(("port", "valid"), [(1, True), (65535, True), (0, False), (65536, False), (-1, False)])
def test_a_port_has_sixteen_bits(section: str, port: int, valid: bool) -> None:
    document = {"kit": "k", "source": [{"address": "0"}], section: {"port": port}}
    if valid:
        assert getattr(check_config(document), section).port == port
    else:
        with pytest.raises(UsageError, match=rf"^{section}\.port: "):
            check_config(document)


def test_options_of_a_source_replace_those_of_all() -> None:
    config = check_config(
        {
            "kit": "k",
            "limits": {"threshold": 0.5},
            "alarm": {"after": "2-of-3", "cooldown": 5},
            "source": [
                {"address": "0"},
                {
                    "address": "1",
                    "kit": "other",
                    "limits": {"false_alarm_rate": 0.01},
                    "alarm": {"cooldown": 60},
                    "roi": "10,20,300,200",
                },
            ],
        }
    )
    first, second = config.source
    assert (config.kit_of(first), config.kit_of(second)) == (Path("k"), Path("other"))
    assert config.limits_of(first).threshold == 0.5
    assert (config.limits_of(second).threshold, config.limits_of(second).false_alarm_rate) == (None, 0.01)
    assert config.alarm_of(first) == config.alarm
    assert config.alarm_of(second) == AlarmConfig(after=MofN(m=2, n=3), cooldown=60)
    assert second.roi == Region(x=10, y=20, width=300, height=200)


def test_a_kit_for_each_source_is_enough() -> None:
    source = {"address": "0", "kit": "k"}
    assert check_config({"source": [source]}).kit is None
    with pytest.raises(UsageError, match="kit: is missing"):
        check_config({"source": [source, {"address": "1"}]})


def test_with_the_page_warnings_are_saved_too_and_the_state_has_a_folder_for_images(tmp_path: Path) -> None:
    least = {"kit": "k", "source": [{"address": "0"}]}
    without = check_config(least)
    assert without.with_images_of_page(tmp_path) == without
    images = check_config(least | {"web": {"port": 8765}}).with_images_of_page(tmp_path).images
    assert (images.folder, images.warnings) == (tmp_path / "images", True)
    chosen = {"web": {"port": 8765}, "images": {"folder": "/data", "warnings": False}}
    images = check_config(least | chosen).with_images_of_page(tmp_path).images
    assert (images.folder, images.warnings) == (Path("/data"), False)
