"""Errors as responses: one JSON object with one text."""

import json
from collections.abc import Mapping

from starlette.responses import Response

from msc_edge.text import valid_text


def error_response(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    """The response to a request that failed."""
    return Response(error_json(message), status, headers, media_type="application/json")


def error_json(message: str) -> bytes:
    """The body of a response to a request that failed."""
    return json.dumps({"error": valid_text(message)}, ensure_ascii=False).encode()
