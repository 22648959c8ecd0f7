import pytest
from jinja2 import TemplateNotFound, UndefinedError
from markupsafe import Markup

from msc_edge.templates import template_environment


@pytest.fixture
def environment():
    return template_environment("msc_edge.studio", "pages")


def test_texts_are_escaped_and_show_control_characters(environment):
    page = environment.from_string("{{ text }} {{ markup }} {{ number }}")
    assert page.render(text="<b>\n\x1b", markup=Markup("<b>"), number=3) == r"&lt;b&gt;\n\x1b <b> 3"


def test_lines_of_code_stay_lines(environment):
    page = environment.from_string("<pre>{{ text|lines }}</pre>")
    assert page.render(text="if a < b:\n  \x1b\n\nend") == "<pre>if a &lt; b:\n  \\x1b\n\nend</pre>"


def test_a_name_without_a_value_is_an_error(environment):
    with pytest.raises(UndefinedError):
        environment.from_string("{{ nothing }}").render()


def test_templates_are_found_in_the_package(environment):
    assert "{% block content %}" not in environment.get_template("problem.html.j2").render(
        status=404, message="<m>", back="/", version="1"
    )


def test_templates_that_the_package_does_not_have_are_those_of_shared_packages():
    shared = template_environment("msc_edge.studio", "pages", shared=["msc_edge.runtime.tools.report"])
    assert "sign" in dir(shared.get_template("signs.html.j2").module)
    with pytest.raises(TemplateNotFound):
        shared.get_template("nothing.html.j2")
    with pytest.raises(TemplateNotFound):
        template_environment("msc_edge.studio", "pages").get_template("signs.html.j2")
