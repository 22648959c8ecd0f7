import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from msc_edge.runtime.stream.notify import notify

if not hasattr(socket, "AF_UNIX"):
    pytest.skip("only Unix has service managers with sockets", allow_module_level=True)

TIMEOUT = 30.0


@pytest.fixture
def manager(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], socket.socket]]:
    """Act as the service manager that listens at an address of $NOTIFY_SOCKET."""
    listening: list[socket.socket] = []

    def listen(address: str) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        listener.bind("\0" + address[1:] if address.startswith("@") else address)
        listener.settimeout(TIMEOUT)
        listening.append(listener)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        return listener

    yield listen
    for listener in listening:
        listener.close()


@pytest.mark.parametrize("address", ["FOLDER/notify", "FOLDER/größer notify", "@msc-edge/test-PID"])
def test_a_state_is_one_datagram(manager: Callable[[str], socket.socket], tmp_path: Path, address: str) -> None:
    """sd_notify(3): newline-separated assignments; the address is a path, or @ and an abstract name of Linux."""
    listener = manager(address.replace("FOLDER", str(tmp_path)).replace("PID", str(os.getpid())))
    notify("READY=1")
    notify("RELOADING=1\nMONOTONIC_USEC=123")
    notify("STATUS=größer")
    received = [listener.recv(4096) for _ in range(3)]
    assert received == [b"READY=1", b"RELOADING=1\nMONOTONIC_USEC=123", "STATUS=größer".encode()]


@pytest.mark.parametrize("address", [None, ""])
def test_without_a_service_manager_nothing_is_sent(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, address: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    if address is None:
        monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    else:
        monkeypatch.setenv("NOTIFY_SOCKET", address)
    notify("READY=1")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "address",
    [
        "FOLDER/never-there",
        "FOLDER",
        "@msc-edge/none",
        "@",
        "vsock:2:1234",
        "relative",
        "FOLDER/" + "x" * 200,
        "/dev/null",
    ],
)
def test_an_unreachable_service_manager_is_no_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, address: str
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address.replace("FOLDER", str(tmp_path)))
    notify("READY=1")


def test_a_service_manager_that_was_restarted_is_notified_again(
    manager: Callable[[str], socket.socket], tmp_path: Path
) -> None:
    path = tmp_path / "notify"
    manager(str(path)).close()
    notify("WATCHDOG=1")
    path.unlink()
    listener = manager(str(path))
    notify("WATCHDOG=1")
    assert listener.recv(4096) == b"WATCHDOG=1"


def test_a_stream_socket_is_no_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.listen()
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        notify("READY=1")


def test_a_service_manager_that_does_not_read_does_not_block_the_stream(
    manager: Callable[[str], socket.socket], tmp_path: Path
) -> None:
    """Linux queues about ten datagrams, and blocks the next sender."""
    listener = manager(str(tmp_path / "notify"))
    done = threading.Event()

    def send() -> None:
        for _ in range(100):
            notify("WATCHDOG=1")
        done.set()

    threading.Thread(target=send, daemon=True).start()
    in_time = done.wait(10)
    received = 0
    listener.setblocking(False)
    while not done.is_set() or received == 0:  # releases a sender that hangs
        try:
            received += listener.recv(4096) == b"WATCHDOG=1"
        except BlockingIOError:
            continue
    assert in_time
