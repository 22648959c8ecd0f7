"""Notifications to systemd: the protocol of sd_notify(3), one datagram of text to a Unix socket.

The libraries on PyPI are unmaintained (`sdnotify`, 2017) or need a compiler.
"""

import os
import socket


def notify(state: str) -> None:
    """Send a state, such as `READY=1`. Without a service manager this does nothing. Never raises."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address or not hasattr(socket, "AF_UNIX"):
        return
    if address.startswith("@"):  # an abstract socket of Linux
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.setblocking(False)  # a service manager that does not read must not block the stream
            out.connect(address)
            out.sendall(state.encode())
    except OSError:  # the service manager has gone, or does not read
        pass
