"""Forms that are refused: what was typed stays, beside the reason."""

import re
from importlib.resources import files

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from msc_edge.studio.workspace import Workspace

TYPED = re.compile(r'<(?:input(?! type="(?:hidden|checkbox|radio|file|range)")|textarea)[ >]')
# Sent by a script of their own, or to a page that says what is wrong.
OTHERS = re.compile(r'data-region|action="/login"')


def test_every_form_with_typed_texts_keeps_them():
    """Without its script a refused form leads to a page with the reason, where the typed texts are gone."""
    forms = [
        (template.name, form)
        for template in (files("msc_edge.studio") / "pages").iterdir()
        for form in re.findall(r'<form [^>]*method="post".*?</form>', template.read_text(encoding="utf-8"), re.DOTALL)
        if TYPED.search(form)
    ]
    assert len(forms) > 5
    heads = [(name, form[: form.index(">\n") + 1]) for name, form in forms]
    assert [(name, head) for name, head in heads if "data-kept" not in head and not OTHERS.search(head)] == []


@pytest.mark.slow
def test_a_refused_form_keeps_what_was_typed_and_says_why_beside_it(studio, opened):
    with opened(studio, allowed="status of 400") as page:
        page.goto(studio.address)
        name = page.get_by_label("Name of the part")
        alert = page.get_by_role("alert")
        for wrong in ('it\'s: "new"', "a/b"):
            name.fill(wrong)
            page.get_by_role("button", name="Create").click()
            expect(alert).to_contain_text(f"the name {wrong} cannot be used; use at most 60 letters")
            expect(name).to_have_value(wrong)
            expect(alert).to_have_count(1)
        assert Axe().run(page).response["violations"] == []
        assert page.url == f"{studio.address}/"
        name.fill("kept")
        page.get_by_role("button", name="Create").click()
        page.wait_for_url("**/projects/kept/images")
        box = page.locator(".box", has_text="Labelled images")
        box.get_by_label("Folder on this PC").fill("/no/such folder")
        box.get_by_role("button", name="Use this folder").click()
        expect(box.get_by_role("alert")).to_contain_text("/no/such folder: No such file or directory; check the path")
        expect(box.get_by_label("Folder on this PC")).to_have_value("/no/such folder")
    project = Workspace.at(studio.folder).project("kept")
    assert project
    assert project.settings.test is None
