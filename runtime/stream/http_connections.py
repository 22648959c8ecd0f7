"""The connections of the HTTP client: whose certificates they accept, and how long they wait.

A server that sends a byte a second would pass every timeout of a socket. TLS and the head of an answer have a deadline.
"""

import socket
import ssl
from pathlib import Path

import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from msc_edge.runtime.stream.deadline import deadline


def tls_context(ca_file: Path | None, *, insecure: bool) -> ssl.SSLContext:
    """`ca_file`: authority instead of those of the system. `insecure`: check none. OSError for an unusable file."""
    context = ssl.create_default_context(cafile=ca_file)
    if insecure:
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)  # the log says it
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


class Adapter(HTTPAdapter):
    """Checks certificates with a context of ours; `requests` would use the authorities that `certifi` brings."""

    def __init__(self, tls: ssl.SSLContext | None) -> None:
        self._tls = tls
        super().__init__()

    def init_poolmanager(self, *args: object, **kwargs: object) -> None:
        """Use connections with deadlines."""
        super().init_poolmanager(*args, **kwargs)  # pyright: ignore[reportArgumentType]
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}

    def build_connection_pool_key_attributes(self, request, verify, cert=None):
        """Use the context for the connections of the pool."""
        host, _ = super().build_connection_pool_key_attributes(request, verify, cert)
        return host, {"ssl_context": self._tls} if self._tls else {}

    def cert_verify(self, *_: object, **__: object) -> None:
        """Leave it to the context."""


class _Deadline:
    """A connection that gives up when TLS, or the head of an answer, is not complete in time."""

    _plain: socket.socket | None = None
    """A duplicate, which stays valid when TLS takes the socket over."""

    def _new_conn(self) -> socket.socket:
        connection = super()._new_conn()  # pyright: ignore[reportAttributeAccessIssue]
        self._plain = connection.dup()
        return connection

    def connect(self) -> None:
        def shut_down() -> None:
            if self._plain:
                self._plain.shutdown(socket.SHUT_RDWR)

        try:
            with deadline(self.timeout, shut_down):  # pyright: ignore[reportAttributeAccessIssue]
                super().connect()  # pyright: ignore[reportAttributeAccessIssue]
        finally:
            if self._plain:
                self._plain.close()
                self._plain = None

    def getresponse(self, *args: object, **kwargs: object):
        connection: socket.socket = self.sock  # pyright: ignore[reportAttributeAccessIssue]
        # Not the method of TLS, which would wait for the other side.
        with deadline(self.timeout, lambda: socket.socket.shutdown(connection, socket.SHUT_RDWR)):  # pyright: ignore[reportAttributeAccessIssue]
            return super().getresponse(*args, **kwargs)  # pyright: ignore[reportAttributeAccessIssue]


class _Connection(_Deadline, HTTPConnection):
    pass


class _TlsConnection(_Deadline, HTTPSConnection):
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection  # pyright: ignore[reportAssignmentType]


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection  # pyright: ignore[reportAssignmentType]
