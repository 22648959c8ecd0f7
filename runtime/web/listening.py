"""TCP ports that this program opens: opening one, and why it cannot be opened."""

import errno
import ipaddress
import os
import socket
from typing import Literal

from msc_edge.errors import UsageError

_BACKLOG = 128  # connections that wait to be accepted


def listening_socket(host: str, port: int) -> socket.socket:
    """A socket that listens on this address; port 0 is any free one. UsageError when it cannot be opened."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        opened = socket.socket(family, socket.SOCK_STREAM)
        try:
            if os.name != "nt":  # on Windows this option lets two programs open one port
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            opened.bind(address)
            opened.listen(_BACKLOG)
        except BaseException:
            opened.close()
            raise
    except (OSError, UnicodeError) as error:  # UnicodeError: not a valid host name
        cause, wrong = why_not_opened(error)
        remedy = "correct --host" if wrong == "host" else "choose another --port"
        raise UsageError(f"port {port} of {host} cannot be opened: {cause}; {remedy}") from error
    return opened


def why_not_opened(error: OSError | UnicodeError) -> tuple[str, Literal["host", "port"]]:
    """Why a port could not be opened, and which of the two must change."""
    if isinstance(error, socket.gaierror | UnicodeError) or error.errno == errno.EADDRNOTAVAIL:
        return "this PC has no such address", "host"
    if error.errno == errno.EADDRINUSE:
        return "another program uses it", "port"
    return error.strerror or str(error), "port"


def is_loopback(address: str) -> bool:
    """Whether an IP address, with or without a zone, is one that only this PC reaches."""
    found = ipaddress.ip_address(address.partition("%")[0])
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return (mapped or found).is_loopback
