"""TCP ports that this program opens: opening one, and why it cannot be opened."""

import errno
import ipaddress
import os
import socket
from typing import Literal

from msc_edge.errors import UsageError

_BACKLOG = 128  # connections that wait to be accepted


def listening_socket(host: str, port: int, *, options: tuple[str, str] = ("--host", "--port")) -> socket.socket:
    """A socket that listens on this address; port 0 is any free one. UsageError when it cannot be opened.

    `options`: how its user names the two, for the remedy.
    """
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
        remedy = f"correct {options[0]}" if wrong == "host" else f"choose another {options[1]}"
        raise UsageError(f"port {port} of {host} cannot be opened: {cause}; {remedy}") from error
    return opened


def why_not_opened(error: OSError | UnicodeError) -> tuple[str, Literal["host", "port"]]:
    """Why a port could not be opened, and which of the two must change."""
    if isinstance(error, socket.gaierror | UnicodeError) or error.errno == errno.EADDRNOTAVAIL:
        return "this PC has no such address", "host"
    if error.errno == errno.EADDRINUSE:
        return "another program uses it", "port"
    return error.strerror or str(error), "port"


def reachable_hosts(opened: socket.socket, *, name_first: bool = False) -> list[str]:
    """Hosts by which other PCs reach a listening socket.

    That is its address. For a socket of all addresses, it is the one that this PC has in its network, and its name.
    """
    address = opened.getsockname()[0]
    if not ipaddress.ip_address(address.partition("%")[0]).is_unspecified:
        return [address]
    families = [opened.family]
    if opened.family == socket.AF_INET6 and not opened.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY):
        families.insert(0, socket.AF_INET)
    found = [own for own in map(_own_address, families) if own]
    name = socket.gethostname()
    names = [name] if name and name != "localhost" else []
    return ([*names, *found] if name_first else [*found, *names]) or ["localhost"]


def _own_address(family: int) -> str | None:
    """The address from which this PC would send to others; None without a network. Nothing is sent."""
    with socket.socket(family, socket.SOCK_DGRAM) as unconnected:
        try:
            # Addresses for documentation, which no PC has: the route to them is the one to everywhere else.
            unconnected.connect(("198.51.100.1" if family == socket.AF_INET else "2001:db8::1", 9))
        except OSError:
            return None
        return unconnected.getsockname()[0]


def is_loopback(address: str) -> bool:
    """Whether an IP address, with or without a zone, is one that only this PC reaches."""
    found = ipaddress.ip_address(address.partition("%")[0])
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return (mapped or found).is_loopback
