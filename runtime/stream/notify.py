"""Telling systemd how we are: the protocol of sd_notify(3), one datagram of text to a socket.

Not by a library: those on PyPI are unmaintained (`sdnotify`, 2017) or need a compiler, and this is all of it.
"""

import os
import socket


def notify(state: str) -> None:
    """Send a state, such as `READY=1`; does nothing where no service manager listens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address or not hasattr(socket, "AF_UNIX"):
        return
    if address.startswith("@"):  # Linux's abstract names
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.setblocking(False)  # a manager that does not read must not hold us up
            out.connect(address)
            out.sendall(state.encode())
    except OSError:  # the manager has gone, or does not read
        pass
