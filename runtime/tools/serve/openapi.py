"""The OpenAPI document of a server, for generators of clients and for its own page."""

from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Any

from msc_edge import __version__
from msc_edge.runtime.results.fields import row_schema
from msc_edge.runtime.results.image_result import IMAGE_FIELDS
from msc_edge.runtime.tools.serve import samples
from msc_edge.runtime.tools.serve.form import FIELD, FORM
from msc_edge.runtime.tools.serve.kit_facts import KitFacts

OPEN = frozenset({"/healthz", "/readyz", "/docs", "/openapi.json"})
"""Paths that need no token: they contain nothing about the kit or the images."""
_ROW = (
    "The result, as a row of `msc-edge score` in a .jsonl file. `path` is the file name in a form, without folders, "
    "and empty for an image as the body. `milliseconds` does not include the transfer."
)
_BODY_ERRORS = {
    400: "The request is not HTTP/1.1, or its form is broken or has not exactly one image.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    415: "The Content-Type is neither an image, nor bytes, nor a form.",
    422: "The body cannot be read as an image; the message says why.",
    500: "The kit gave no score for this image.",
    503: "Too many images are in work; try again after the seconds in Retry-After.",
}
_ERRORS = {
    400: "The request is not HTTP/1.1.",
    401: "The token is missing or wrong.",
    403: "A web page from another address sent the request.",
    405: "The path has another method.",
    421: "The Host header names another server.",
    431: "The headers are too long.",
    501: "The transfer encoding is not known.",
    503: "Too many connections are open; try again after the seconds in Retry-After.",
}
_HEADERS = {
    401: {"WWW-Authenticate": "`Bearer`"},
    405: {"Allow": "the methods of the path"},
    503: {"Retry-After": "seconds to wait"},
}


def openapi_document(facts: KitFacts, *, address: str, token: bool) -> dict[str, Any]:
    """The document (OpenAPI 3.1) of a server at an address; `token`: whether it needs one."""
    kit_schema = KitFacts.model_json_schema(mode="serialization", ref_template="#/components/schemas/{model}")
    row = {
        key: value for key, value in row_schema(IMAGE_FIELDS, title="Result of an image").items() if key != "$schema"
    }

    def operation(path: str, summary: str, shown: Iterable[samples.Sample], **rest: Any) -> dict[str, Any]:
        statuses: dict[int, Any] = rest.pop("responses")
        errors = {**_ERRORS, **rest.pop("errors", {})}
        secured = token and path not in OPEN
        if not secured:
            del errors[401]
        responses = {status: _error(status, text) for status, text in errors.items()} | statuses
        return {
            "summary": summary,
            "operationId": path.strip("/").replace(".", "_"),
            **({"security": [{"token": []}]} if secured else {}),
            **rest,
            "responses": {str(status): responses[status] for status in sorted(responses)},
            "x-codeSamples": [
                {"lang": each.lang, "label": each.title, "source": each.source}
                for each in (samples.for_server(one, address=address, token=secured) for one in shown)
            ],
        }

    def reading(path: str, summary: str, content: dict[str, Any], **rest: Any) -> dict[str, Any]:
        responses = {200: {"description": summary, "content": content}, **rest.pop("responses", {})}
        return {"get": operation(path, summary, samples.get(path), responses=responses, **rest)}

    score = operation(
        "/score",
        "Score an image",
        (*(samples.SECURE if token and address.startswith("https:") else samples.SCORE), *samples.FORM),
        requestBody=_image_body(),
        responses={
            200: {"description": _ROW, "content": {"application/json": {"schema": _ref("Row")}}},
        },
        errors=_BODY_ERRORS,
    )
    heatmap = operation(
        "/heatmap",
        "Score an image, and get it with its heatmap over it",
        samples.HEATMAP,
        requestBody=_image_body(),
        responses={
            200: {
                "description": "The image as PNG, in its size. Yellow is the limit of a region. The headers contain "
                "the result.",
                "headers": {
                    "Msc-Edge-Score": {"schema": {"type": "number"}, "description": "`score` of the result"},
                    "Msc-Edge-Verdict": {"schema": {"type": "string"}, "description": "`verdict` of the result"},
                },
                "content": {"image/png": {"schema": {"type": "string", "format": "binary"}}},
            }
        },
        errors=_BODY_ERRORS | {404: "The kit compares whole images only and has no heatmaps."},
    )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"msc-edge serve: {facts.name}",
            "version": __version__,
            "description": 'Scores images with one kit. Errors are JSON: `{"error": "what, why, and what to do"}`.',
        },
        "servers": [{"url": address}],
        "paths": {
            "/score": {"post": score},
            "/heatmap": {"post": heatmap},
            "/kit": reading("/kit", "The kit, and what the server accepts", _json("Kit")),
            "/healthz": reading("/healthz", "Whether the server runs", _text("text/plain")),
            "/readyz": reading(
                "/readyz",
                "Whether the server accepts another image",
                _text("text/plain"),
                responses={503: _error(503, "Too many images are in work.")},
            ),
            "/metrics": reading("/metrics", "Metrics for Prometheus", _text("text/plain")),
            "/openapi.json": reading(
                "/openapi.json", "This document", {"application/json": {"schema": {"type": "object"}}}
            ),
            "/docs": reading("/docs", "This document as a page", _text("text/html")),
        },
        "components": {
            "schemas": {
                "Row": row,
                "Kit": {key: value for key, value in kit_schema.items() if key != "$defs"},
                **kit_schema.get("$defs", {}),
                "Error": {
                    "type": "object",
                    "properties": {"error": {"type": "string", "description": "what, why, and what to do"}},
                    "required": ["error"],
                    "additionalProperties": False,
                },
            },
            **({"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}} if token else {}),
        },
    }


def _image_body() -> dict[str, Any]:
    binary = {"type": "string", "format": "binary"}
    form = {"type": "object", "properties": {FIELD: binary}, "required": [FIELD]}
    return {
        "required": True,
        "description": f"The content of an image file, or a form with it in the field `{FIELD}`.",
        "content": {
            "application/octet-stream": {"schema": binary},
            "image/*": {"schema": binary},
            FORM: {"schema": form},
        },
    }


def _error(status: int, description: str) -> dict[str, Any]:
    headers = {
        name: {"schema": {"type": "string"}, "description": text} for name, text in _HEADERS.get(status, {}).items()
    }
    return {
        "description": description or HTTPStatus(status).phrase,
        **({"headers": headers} if headers else {}),
        "content": _json("Error"),
    }


def _json(schema: str) -> dict[str, Any]:
    return {"application/json": {"schema": _ref(schema)}}


def _text(media_type: str) -> dict[str, Any]:
    return {media_type: {"schema": {"type": "string"}}}


def _ref(schema: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{schema}"}


def operations(document: dict[str, Any]) -> Sequence[tuple[str, str, dict[str, Any]]]:
    """The path, the method and the content of each operation of a document."""
    return [(path, method, each) for path, methods in document["paths"].items() for method, each in methods.items()]
