"""The page at /docs: the OpenAPI document for people, in one file that loads nothing."""

from typing import Any

from msc_edge.runtime.tools.serve.openapi import operations
from msc_edge.templates import template_environment

CONTENT_SECURITY_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def docs_page(document: dict[str, Any]) -> str:
    """The page of an OpenAPI document that `openapi_document` made."""
    template = template_environment("msc_edge.runtime.tools.serve").get_template("docs.html.j2")
    return template.render(document=document, operations=operations(document))
