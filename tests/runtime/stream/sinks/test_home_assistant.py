import json

import pytest

from msc_edge.runtime.stream.sinks.home_assistant import connection_topic, discovery, topic_id

NAMES = ["cam1", "hall.2", "hall_2", "hall-2", "Größe 1", "a/b", "a#b"]


@pytest.mark.parametrize("name", NAMES)
def test_a_topic_id_has_the_characters_that_discovery_allows(name: str) -> None:
    assert topic_id(name).isascii()
    assert topic_id(name).replace("-", "").replace("_", "").isalnum()
    assert topic_id(topic_id(name)) == topic_id(name)


def test_different_names_have_different_topic_ids() -> None:
    assert len({topic_id(name) for name in NAMES}) == len(NAMES)
    assert topic_id("cam1") == "cam1"


@pytest.mark.parametrize("source", ["cam1", 'a "quoted" name'])
def test_a_source_has_a_sensor_for_rejects_and_one_for_its_connection(source: str) -> None:
    messages = dict(discovery("msc-edge/line3", "line3", source))
    reject, connection = (
        json.loads(messages[f"homeassistant/binary_sensor/line3/{topic_id(source)}_{kind}/config"])
        for kind in ("reject", "connection")
    )
    assert len(messages) == 2
    assert (reject["device_class"], connection["device_class"]) == ("problem", "connectivity")
    assert reject["state_topic"] == "msc-edge/line3/event/reject"
    assert json.dumps(source) in reject["value_template"]
    assert connection["state_topic"] == connection_topic("msc-edge/line3", source)
    assert reject["unique_id"] != connection["unique_id"]
    assert reject["device"] == connection["device"]
    assert reject["availability_topic"] == connection["availability_topic"] == "msc-edge/line3/status"
