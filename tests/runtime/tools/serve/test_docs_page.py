import re
from importlib.resources import files

import pytest

TEMPLATE = (files("msc_edge.runtime.tools.serve") / "docs.html.j2").read_text(encoding="utf-8")
LIGHT, DARK = (
    dict(re.findall(r"--([a-z]+): (#[0-9a-f]+);", each)) for each in re.findall(r":root \{(.*?)\}", TEMPLATE)
)


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
def test_texts_have_enough_contrast_in_both_colour_schemes(colours, contrast):
    """WCAG 2.2, success criterion 1.4.3. The method is the paper's colour on the ink's."""
    for text, background in (("ink", "paper"), ("ink", "mat"), ("link", "paper")):
        assert contrast(colours[text], colours[background]) >= 4.5


def test_other_rules_name_their_colours():
    rules = re.sub(r":root \{.*?\}", "", TEMPLATE.partition("</style>")[0])
    assert re.findall(r"#[0-9a-f]{3,6}\b", rules) == []
