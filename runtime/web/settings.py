"""Where a server listens, and for whom."""

import os
import ssl
import string
from dataclasses import dataclass, field
from pathlib import Path

from msc_edge.arguments import whole_argument
from msc_edge.errors import UsageError

TOKEN_VARIABLE = "MSC_EDGE_TOKEN"
_SHORTEST_TOKEN = 16
_TOKEN_CHARACTERS = frozenset(string.ascii_letters + string.digits + "-._~+/=")  # RFC 6750


@dataclass(frozen=True, kw_only=True)
class WebSettings:
    """The address of a server, and who may use it. UsageError for values that cannot be used."""

    host: str = "127.0.0.1"
    port: int = 8000
    """0: any free port."""
    timeout: int = 30
    """Seconds that a client has to send a request, and to receive the response."""
    token: str | None = field(default=None, repr=False)
    """What clients send as `Authorization: Bearer TOKEN`; None: no token is needed."""
    insecure: bool = False
    """Whether other PCs may use the server without a token."""
    tls_cert: Path | None = None
    tls_key: Path | None = None

    def __post_init__(self) -> None:
        self._check_least("timeout", 1)
        whole_argument("port", self.port, least=0, most=65535)
        if self.token is not None:
            _check_token(self.token)
        if (self.tls_cert is None) != (self.tls_key is None):
            raise UsageError("TLS needs a certificate and its key; pass both --tls-cert and --tls-key")

    def _check_least(self, name: str, least: int) -> None:
        whole_argument(name, getattr(self, name), least=least)

    @property
    def scheme(self) -> str:
        """`http` or `https`."""
        return "https" if self.tls_cert else "http"

    def check_certificate(self) -> None:
        """UsageError for a certificate or a key that cannot be used."""
        if self.tls_cert is None or self.tls_key is None:
            return
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        try:
            context.load_cert_chain(self.tls_cert, self.tls_key, password="")  # no question at a terminal
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            reason = error.strerror if isinstance(error, OSError) else error
            raise UsageError(
                f"--tls-cert {self.tls_cert}, --tls-key {self.tls_key}: cannot be used: {reason or error}; "
                "expected a certificate and its key without password, in PEM format"
            ) from error


def read_token(file: Path | None) -> str | None:
    """The token in a file, or in the environment variable MSC_EDGE_TOKEN; None where there is neither."""
    if file is None:
        return os.environ.get(TOKEN_VARIABLE)
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UsageError(
            f"--token-file {file}: cannot be read: {reason}; check the path and the permissions"
        ) from error


def _check_token(token: str) -> None:
    # The message must not contain the token.
    if len(token) < _SHORTEST_TOKEN or not _TOKEN_CHARACTERS.issuperset(token):
        raise UsageError(
            f"the token must have at least {_SHORTEST_TOKEN} letters and digits (and -._~+/=), on one line; make one "
            "with: openssl rand -hex 32"
        )
