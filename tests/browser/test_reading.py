"""A dataset that was read wrongly is corrected on its page, after a preview of its first rows."""

from pathlib import Path

import httpx
import pytest
from playwright.sync_api import FilePayload, Page, expect

from descent import Client
from tests.browser.conftest import Opens, Site
from tests.browser.pictures import picture
from tests.browser.test_story import reach
from tests.browser.test_views import PHONE, SETTLED, faults

pytestmark = pytest.mark.slow

#: Day and month can be exchanged in every date, and the comma may stand before decimals.
ORDERS = """\
when;amount;city;paid
03/04/2024;1,250;Köln;Yes
05/06/2024;2,750;Bonn;No
07/08/2024;3,125;Köln;Yes
09/10/2024;4,500;Bonn;No
"""


def uploaded(page: Page, name: str, content: bytes) -> None:
    file: FilePayload = {"name": name, "mimeType": "text/csv", "buffer": content}
    page.get_by_label("A table to upload").set_input_files(file)


def test_a_warning_opens_the_correction_and_its_preview_shows_both_values(
    visit: Opens, site: Site
) -> None:
    with visit(site.url, color_scheme="light") as visited:
        page = visited.page
        visited.go("")
        uploaded(page, "orders.csv", ORDERS.encode())
        expect(page.get_by_role("heading", name="orders")).to_be_visible()
        expect(page.get_by_text("separated by semicolons")).to_be_visible()
        page.get_by_role("button", name="Day first in when").click()
        expect(page.get_by_label("Form of dates")).to_be_focused()
        expect(page.get_by_label("Form of dates")).to_have_value("day first")
        page.get_by_role("button", name="Comma between thousands in amount").click()
        expect(page.get_by_label("Thousands mark")).to_have_value(",")
        page.get_by_role("button", name="Preview").click()
        expect(page.get_by_role("heading", name="First rows of version 2")).to_be_focused()
        first = page.locator("table.compared tbody tr").first
        expect(first.locator("del")).to_have_text(["2024-03-04", "1.25"])
        expect(first.locator("ins")).to_have_text(["2024-04-03", "1250"])
        assert faults(page) == []
        picture(page, "reading", height=1760)
        page.set_viewport_size({"width": PHONE, "height": 800})
        page.emulate_media(color_scheme="dark")
        page.evaluate(SETTLED)
        assert faults(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE
        page.get_by_role("button", name="Create version 2").click()
        expect(page.get_by_role("group", name="Changes")).to_have_count(0)
        expect(page.locator("table.data tbody tr").first).to_contain_text("2024-04-03")
        when = page.get_by_role("article", name="when")
        expect(when).to_contain_text("dates: day/month/year")
        expect(page.get_by_role("article", name="amount")).to_contain_text("thousands comma")
        expect(page.get_by_role("article", name="paid")).to_contain_text("true = Yes, false = No")
        expect(page.get_by_role("button", name="Day first")).to_have_count(0)


def test_a_column_is_read_in_another_way_with_the_keyboard_alone(
    visit: Opens, site: Site, tmp_path: Path
) -> None:
    path = tmp_path / "marked.csv"
    path.write_text("x,y\n1,0.5\n2,1.5\n3,2.5\n4,-999\n")
    with Client(site.url) as client:
        dataset = client.upload(path)
    with visit(site.url) as visited:
        page = visited.page
        visited.go(f"#/datasets/{dataset.id}")
        reach(page, page.get_by_label("Type of x"))
        page.keyboard.type("cat")
        expect(page.get_by_label("Type of x")).to_have_value("category")
        reach(page, page.get_by_role("article", name="y").locator("summary"))
        page.keyboard.press("Enter")
        reach(page, page.get_by_role("article", name="y").get_by_label("Also missing"))
        page.keyboard.type("-999")
        reach(page, page.get_by_role("button", name="Preview"))
        page.keyboard.press("Enter")
        expect(page.locator("table.compared th", has_text="x")).to_contain_text("integer category")
        expect(page.locator("table.compared tbody tr").last.locator("ins")).to_have_text("missing")
        reach(page, page.get_by_role("button", name="Create version 2"))
        page.keyboard.press("Enter")
        expect(page.get_by_role("article", name="y")).to_contain_text("1 missing")
        expect(page.get_by_role("article", name="y")).to_contain_text("also missing: -999")
        assert page.evaluate("document.activeElement.id") == "main"


def test_a_change_that_is_taken_back_leaves_nothing_to_preview(visit: Opens, site: Site) -> None:
    with visit(site.url) as visited:
        page = visited.page
        visited.go(f"#/datasets/{site.scores}")
        field = page.get_by_label("Type of Quiz")
        field.select_option("category")
        expect(page.get_by_role("group", name="Changes")).to_contain_text("“Quiz”")
        field.select_option("number")
        expect(page.get_by_role("group", name="Changes")).to_have_count(0)


def test_the_sentence_of_a_refused_preview_is_beside_its_field(visit: Opens, site: Site) -> None:
    with visit(site.url, refusals=True) as visited:
        page = visited.page
        visited.go(f"#/datasets/{site.scores}")
        tile = page.get_by_role("article", name="Quiz")
        tile.locator("summary").click()
        tile.get_by_label("Decimal mark").select_option(",")
        tile.get_by_label("Thousands mark").select_option(",")
        page.get_by_role("button", name="Preview").click()
        change = {"columns": {"Quiz": {"decimal": ",", "thousands": ","}}}
        answer = httpx.post(f"{site.url}/api/v1/datasets/{site.scores}/preview", json=change)
        sentence = answer.json()["detail"]
        expect(tile.locator("small.wrong")).to_have_text(sentence)
        expect(tile.get_by_label("Thousands mark")).to_have_attribute("aria-invalid", "true")
        expect(page.get_by_role("button", name="Create version")).to_have_count(0)
        tile.get_by_label("Thousands mark").select_option(".")
        expect(tile.locator("small.wrong")).to_have_count(0)


def test_a_refused_file_is_sent_again_with_a_choice(visit: Opens, site: Site) -> None:
    with visit(site.url, refusals=True) as visited:
        page = visited.page
        visited.go("")
        japanese = "都市,x\n東京,1\n大阪,2\n".encode("shift-jis")
        uploaded(page, "cities.csv", japanese)
        expect(page.get_by_role("alert")).to_contain_text("UTF-8")
        again = page.get_by_role("form", name="Another way to read cities.csv")
        assert faults(page) == []
        again.get_by_label("Encoding").select_option("shift-jis")
        again.get_by_role("button", name="Send cities.csv again").click()
        expect(page.get_by_role("article", name="都市")).to_be_visible()
        expect(page.get_by_text("Read as Shift JIS")).to_be_visible()


def test_a_table_is_scored_as_it_is_by_the_reader_of_the_service(visit: Opens, site: Site) -> None:
    content = "Quiz;name\n10.5;Zoë\n20;Åsa\n".encode("utf-16")
    with visit(site.url) as visited:
        page = visited.page
        visited.go("#/models/scores")
        file: FilePayload = {"name": "rows.csv", "mimeType": "text/csv", "buffer": content}
        page.get_by_label("A table to score").set_input_files(file)
        rows = page.get_by_role("region", name="Score a table").locator("tbody tr")
        expect(rows).to_have_count(2)
        body = {"rows": [{"Quiz": 10.5}, {"Quiz": 20}]}
        answer = httpx.post(f"{site.url}/api/v1/models/scores/versions/2/predict", json=body)
        for row, prediction in zip(rows.all(), answer.json()["predictions"], strict=True):
            shown = float(row.locator("td").nth(1).inner_text())
            assert shown == pytest.approx(prediction["value"], rel=1e-5)


def test_the_signature_tells_how_often_a_boolean_was_true(
    visit: Opens, site: Site, tmp_path: Path
) -> None:
    path = tmp_path / "paid.csv"
    path.write_text("paid,y\n" + "Yes,1.5\nNo,2.5\nNo,3.5\nNo,1.5\n" * 5)
    with Client(site.url) as client:
        settings = {"model": {"type": "linear"}, "split": {"type": "none"}, "epochs": 2}
        client.submit(client.upload(path), "y", **settings, register_as="paid").wait()
    with visit(site.url) as visited:
        page = visited.page
        visited.go("#/models/paid")
        signature = page.get_by_role("region", name="Signature")
        expect(signature).to_contain_text("25 % true, 75 % false")
        expect(page.locator("label", has_text="paid").locator("option")).to_have_text(
            ["No", "Yes", "(missing)"]
        )
