"""The page at /docs: the OpenAPI document for people, in one file that loads nothing."""

from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined

from msc_edge.runtime.tools.serve.openapi import operations

CONTENT_SECURITY_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def docs_page(document: dict[str, Any]) -> str:
    """The page of an OpenAPI document that `openapi_document` made."""
    source = (files("msc_edge.runtime.tools.serve") / "docs.html.j2").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(source).render(document=document, operations=operations(document))
