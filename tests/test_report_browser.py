"""The report in a real browser: complete, offline, sortable, readable on a phone, and deaf to hostile data."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from chromium_cases import CONTRAST
from polypref import report
from polypref.wording import visible
from report_example import HOSTILE, LEARNERS, example_results, example_users


class Visit:
    """A page with everything it asked for and complained of; nothing but the file itself is let through."""

    def __init__(self, browser: Any, path: Path, **options: Any) -> None:
        self.asked: list[str] = []
        self.complaints: list[str] = []
        self.context = browser.new_context(**{"viewport": {"width": 1180, "height": 900}, **options})
        self.page = self.context.new_page()
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.route(re.compile("^(?!file:)"), lambda route: route.abort())
        self.url = path.as_uri()
        self.page.goto(self.url)

    def __enter__(self) -> Any:
        return self.page

    def __exit__(self, *_: object) -> None:
        self.context.close()


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    users = example_users(124)
    return report.write(tmp_path_factory.mktemp("report"), example_results(users), users)


def test_opens_offline_without_a_request_or_a_complaint(browser: Any, written: Path) -> None:
    visit = Visit(browser, written)
    with visit as page:
        assert page.title() == "polypref: llmfao.parquet"
        assert visit.asked == [visit.url]
        assert visit.complaints == []


def test_a_planted_request_and_script_are_seen_and_stopped(browser: Any, written: Path, tmp_path: Path) -> None:
    """The test above can fail: what it watches for is seen when it is there, and the page's own policy stops it."""
    planted = tmp_path / "planted.html"
    evil = "<img src='https://example.org/x.png' onerror='window.hit = 1'><script>window.hit = 2</script></main>"
    planted.write_text(written.read_text().replace("</main>", evil))
    visit = Visit(browser, planted)
    with visit as page:
        page.wait_for_timeout(100)
        assert any("Content Security Policy" in complaint for complaint in visit.complaints)
        assert page.evaluate("window.hit") is None
    # Without the policy the same page asks for the picture and runs the script.
    planted.write_text(re.sub(r'<meta http-equiv="Content-Security-Policy".*?>', "", planted.read_text()))
    visit = Visit(browser, planted)
    with visit as page:
        page.wait_for_timeout(100)
        assert "https://example.org/x.png" in visit.asked
        assert page.evaluate("window.hit") is not None


def test_figures_are_drawn(browser: Any, written: Path) -> None:
    with Visit(browser, written) as page:
        for name in ("gains", "amounts"):
            box = page.locator(f".plot.{name} svg:visible").bounding_box()
            assert box["width"] > 600 and box["height"] > 200, name
        # One dot per tested user (a stroke each), and a ring around each minority user.
        strokes = page.locator(".plot.gains svg:visible path.dot").evaluate_all(
            "paths => paths.reduce((n, p) => n + (p.getAttribute('d').match(/M/g) || []).length, 0)"
        )
        rings = page.locator(".plot.gains svg:visible path.ring").get_attribute("d").count("M")
        assert strokes == 121
        assert rings == sum(1 for i in range(121) if i % 12 == 5)
        assert page.locator(".plot.curve svg").count() == len(LEARNERS)
        painted = page.locator(".plot.gains svg:visible path.dot.better").evaluate("p => getComputedStyle(p).stroke")
        assert painted == "rgb(10, 95, 174)"


def test_choosing_a_learner_shows_its_panel_without_a_script(browser: Any, written: Path) -> None:
    for scripts in (True, False):
        with Visit(browser, written, java_script_enabled=scripts) as page:
            assert page.locator(".panel:visible").count() == 1
            assert "hierarchical" in page.locator(".plot.gains svg:visible").get_attribute("aria-label")
            page.locator("label", has_text="individual").click()
            assert page.locator(".panel:visible").count() == 1
            assert "individual" in page.locator(".plot.gains svg:visible").get_attribute("aria-label")


def names(page: Any) -> list[str]:
    return page.locator("table.leaderboard tbody th bdi").all_inner_texts()


def test_a_heading_sorts_by_pointer_and_keyboard(browser: Any, written: Path) -> None:
    by_accuracy = sorted(LEARNERS, key=lambda name: -LEARNERS[name][0])
    with Visit(browser, written) as page:
        assert names(page) == list(LEARNERS)
        head = page.locator("table.leaderboard thead th").nth(1)
        head.locator("button").click()
        assert names(page) == by_accuracy
        assert head.get_attribute("aria-sort") == "descending"
        head.locator("button").focus()
        page.keyboard.press("Enter")
        assert names(page) == by_accuracy[::-1]
        assert head.get_attribute("aria-sort") == "ascending"
        page.locator("table.leaderboard thead th button").first.click()
        assert names(page) == sorted(LEARNERS)
        assert head.get_attribute("aria-sort") == "none"


def test_what_is_missing_sorts_last_both_ways(browser: Any, tmp_path: Path) -> None:
    users = example_users(30)
    results = example_results(users)
    for row in results["rows"]:
        if row["learner"] == "length" and row["metric"] == "log_loss":
            row["value"] = row["lo"] = row["hi"] = None
    with Visit(browser, report.write(tmp_path, results, users)) as page:
        button = page.locator("table.leaderboard thead th button", has_text="Log loss")
        for _ in range(2):
            button.click()
            assert names(page)[-1] == "length"
        assert page.locator("tr", has_text="length").locator("td").nth(5).inner_text() == "–"


def test_on_a_phone_the_gain_is_seen_without_scrolling(browser: Any, written: Path) -> None:
    with Visit(browser, written, viewport={"width": 390, "height": 844}) as page:
        box = page.locator("table.leaderboard td.gain").last.bounding_box()
        assert box["x"] + box["width"] <= 390
        assert page.locator(".lead .narrow").is_visible()
    with Visit(browser, written) as page:
        assert not page.locator(".lead .narrow").is_visible()


@pytest.mark.parametrize("width", [360, 414, 768])
def test_a_narrow_screen_does_not_scroll_sideways(browser: Any, written: Path, width: int) -> None:
    with Visit(browser, written, viewport={"width": width, "height": 740}) as page:
        assert page.evaluate("document.documentElement.scrollWidth") == width
        inside = page.evaluate("(e => [e.scrollWidth, e.clientWidth])(document.querySelector('.scroll'))")
        assert inside[0] > inside[1]  # the table is wider than its box, and scrolls there
        # What this watches for is seen when it is there.
        page.evaluate("document.querySelector('h1').style.width = '2000px'")
        page.evaluate("document.querySelector('h1').style.maxWidth = 'none'")
        assert page.evaluate("document.documentElement.scrollWidth") > width


def test_dark_and_light_are_both_readable(browser: Any, written: Path) -> None:
    for scheme in ("light", "dark"):
        with Visit(browser, written, color_scheme=scheme) as page:
            for selector in ("h1", ".lead", ".ci", ".leaderboard td.better", ".leaderboard td.worse", "td.missing"):
                ratio = page.locator(selector).first.evaluate(CONTRAST)
                assert ratio >= 4.5, f"{selector} in {scheme}: {ratio:.2f}"


def test_the_pointer_and_the_arrow_keys_name_users(browser: Any, written: Path) -> None:
    with Visit(browser, written) as page:
        plane = page.locator(".plot.gains .plane:visible")
        plane.scroll_into_view_if_needed()
        box = plane.bounding_box()
        page.mouse.move(box["x"] + box["width"] - 2, box["y"] + 20)
        best = plane.locator(".tip").inner_text()
        assert re.search(r"gain \+\d+\.\d points \(.* to .*\), better off", best)
        assert "minority user" in best
        plane.focus()
        page.keyboard.press("Escape")
        page.keyboard.press("ArrowLeft")
        assert plane.locator(".tip").inner_text() == best
        amounts = page.locator(".plot.amounts .plane:visible")
        amounts.focus()
        page.keyboard.press("ArrowRight")
        least = int(example_users(124).filter(pl.col("n_test") > 0)["n_train"].min())  # type: ignore[arg-type]
        assert f"{least} in training" in amounts.locator(".tip").inner_text()


def test_hostile_ids_are_text_and_nothing_else(browser: Any, tmp_path: Path) -> None:
    """Ids, names and findings that are markup or code are shown as text, and direction marks by their codes."""
    seen = [visible(text) for text in HOSTILE]
    users = example_users(len(HOSTILE) + 40).with_columns(pl.lit("better").alias("verdict"))
    results = example_results(users)
    nasty = HOSTILE[2]
    results["findings"] = [
        {"name": nasty, "count": 3, "total": 9, "action": "dropped", "example": HOSTILE[3], "text": nasty}
    ]
    results["data"]["files"] = [HOSTILE[1]]
    results["verdict"]["text"] = nasty
    results["reproduce"]["command"] = HOSTILE[3]
    results["profile"]["sentences"] = {"room": nasty}
    for row in [row for key in ("rows", "gains", "placebo", "gains_over_shuffled") for row in results[key]]:
        row["learner"] = nasty if row["learner"] == "hierarchical" else row["learner"]
    users = users.with_columns(pl.col("learner").replace("hierarchical", nasty))
    visit = Visit(browser, report.write(tmp_path, results, users))
    with visit as page:
        assert page.evaluate("window.hit") is None
        assert page.locator("img").count() == 0
        assert page.locator("script").count() == 2
        assert visit.complaints == []
        assert page.locator("h1").inner_text() == nasty
        ids = page.evaluate("JSON.parse(document.getElementById('people-data').textContent).ids")
        assert ids[: len(HOSTILE)] == seen
        page.locator("label").last.click()
        named = page.locator(".panel:visible .named bdi").all_text_contents()
        assert set(named) & set(seen)
        plane = page.locator(".plot.gains .plane:visible")
        plane.focus()
        told = set()
        for _ in range(len(HOSTILE) + 40):
            page.keyboard.press("ArrowRight")
            told.add(plane.locator(".tip").text_content().split("\n")[0])
        assert set(seen) <= told
        assert page.evaluate("window.hit") is None


def test_thousands_of_users_stay_small_enough_to_mail(browser: Any, tmp_path: Path) -> None:
    users = example_users(3500)
    path = report.write(tmp_path, example_results(users), users)
    assert path.stat().st_size < 2_000_000
    with Visit(browser, path) as page:
        assert page.locator(".plot.gains svg:visible").bounding_box()["width"] > 600


def test_it_prints_as_vectors(browser: Any, written: Path) -> None:
    with Visit(browser, written) as page:
        pages = page.pdf(format="A4").count(b"/Type /Page\n")
        assert 3 <= pages <= 12
        # A4 less its margins is 688 pixels wide: nothing is cut off, not even the table.
        page.emulate_media(media="print")
        page.set_viewport_size({"width": 688, "height": 1000})
        assert page.evaluate("document.documentElement.scrollWidth") == 688
