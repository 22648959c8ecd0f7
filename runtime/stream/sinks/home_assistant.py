"""Discovery messages and state topics for Home Assistant.

See https://www.home-assistant.io/integrations/mqtt/#mqtt-discovery.
"""

import hashlib
import json
import re

from msc_edge import __version__

ONLINE, OFFLINE = b"online", b"offline"
"""Payloads of the status topic."""
_OFF_DELAY = 5  # seconds that Home Assistant displays a reject


def discovery(base: str, station: str, source: str) -> list[tuple[str, bytes]]:
    """The discovery messages of a source: topic and payload. `base`: what the topics of the station begin with."""
    node, name = topic_id(station), topic_id(source)
    common = {
        "availability_topic": f"{base}/status",
        "payload_available": ONLINE.decode(),
        "payload_not_available": OFFLINE.decode(),
        "qos": 1,
        "device": {
            "identifiers": [f"msc-edge_{node}"],
            "name": station,
            "manufacturer": "msc-edge",
            "model": "visual inspection",
            "sw_version": __version__,
        },
        "origin": {"name": "msc-edge", "sw_version": __version__},
    }
    reject = {
        "name": f"{source} reject",
        "device_class": "problem",
        "state_topic": f"{base}/event/reject",
        # Home Assistant ignores an empty result: the message is about another source.
        "value_template": "{{ 'ON' if value_json.source == " + json.dumps(source) + " else '' }}",
        "off_delay": _OFF_DELAY,
    }
    connection = {
        "name": f"{source} connection",
        "device_class": "connectivity",
        "state_topic": connection_topic(base, source),
    }
    messages = []
    for kind, special in (("reject", reject), ("connection", connection)):
        config = {"unique_id": f"msc-edge_{node}_{name}_{kind}", **special, **common}
        messages.append((f"homeassistant/binary_sensor/{node}/{name}_{kind}/config", json.dumps(config).encode()))
    return messages


def connection_topic(base: str, source: str) -> str:
    """The topic that is `ON` while frames of a source are scored, else `OFF`."""
    return f"{base}/source/{topic_id(source)}"


def topic_id(name: str) -> str:
    """The name in characters that discovery allows; different for different names."""
    if (allowed := re.sub(r"[^A-Za-z0-9_-]", "_", name)) == name:
        return name
    return f"{allowed}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"
