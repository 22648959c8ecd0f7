import errno
import os
import socket

import pytest

from msc_edge.errors import UsageError
from msc_edge.runtime.web.listening import is_loopback, listening_socket, reachable_hosts, why_not_opened


def test_the_socket_accepts_connections_at_once():
    with (
        listening_socket("127.0.0.1", 0) as opened,
        socket.create_connection(opened.getsockname(), timeout=30) as client,
    ):
        accepted, address = opened.accept()
        accepted.close()
        assert address == client.getsockname()


@pytest.mark.parametrize(
    ("host", "port", "message"),
    [
        ("192.0.2.1", 0, "this PC has no such address; correct --host"),
        ("no such host", 0, "correct --host"),
        ("a" * 300, 0, "correct --host"),
    ],
)
def test_an_address_that_cannot_be_opened(host, port, message):
    with pytest.raises(UsageError, match=message):
        listening_socket(host, port)


def test_a_port_is_opened_once():
    with listening_socket("127.0.0.1", 0) as opened, pytest.raises(UsageError, match="another program uses it"):
        listening_socket("127.0.0.1", opened.getsockname()[1])


def test_the_cause_of_another_error_is_that_of_the_system():
    assert why_not_opened(OSError(errno.EACCES, os.strerror(errno.EACCES))) == (os.strerror(errno.EACCES), "port")


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_a_socket_of_all_addresses_has_hosts_that_can_be_connected_to(host):
    if host == "::" and not socket.has_ipv6:
        pytest.skip("this PC has no IPv6")
    with listening_socket(host, 0) as opened:
        hosts = reachable_hosts(opened)
        assert hosts
        assert not {"0.0.0.0", "::"} & set(hosts)
        assert sorted(reachable_hosts(opened, name_first=True)) == sorted(hosts)
        for each in hosts:
            if each == socket.gethostname() and not _resolves(each):
                continue  # other PCs may know the name
            with socket.create_connection((each, opened.getsockname()[1]), timeout=30) as client:
                accepted, address = opened.accept()
                accepted.close()
                assert address[1] == client.getsockname()[1]


def _resolves(name: str) -> bool:
    try:
        return bool(socket.getaddrinfo(name, None))
    except OSError:
        return False


def test_a_socket_of_one_address_has_that_host():
    with listening_socket("127.0.0.1", 0) as opened:
        assert reachable_hosts(opened) == ["127.0.0.1"]


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("fe80::1%eth0", False),
        ("192.168.1.2", False),
    ],
)
def test_loopback(address, expected):
    assert is_loopback(address) is expected
