"""The page at /docs: the OpenAPI document for people, in one file that loads nothing."""

from typing import Any

from markupsafe import Markup, escape

from msc_edge.runtime.tools.serve.openapi import operations
from msc_edge.templates import template_environment

CONTENT_SECURITY_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def docs_page(document: dict[str, Any]) -> str:
    """The page of an OpenAPI document that `openapi_document` made."""
    template = template_environment("msc_edge.runtime.tools.serve").get_template("docs.html.j2")
    return template.render(document=document, operations=operations(document), with_code=_with_code)


def _with_code(text: str) -> Markup:
    """A text of the document as HTML: what stands between back-ticks there is code."""
    parts = [escape(part) for part in text.split("`")]
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if number % 2 else part for number, part in enumerate(parts)
    )
