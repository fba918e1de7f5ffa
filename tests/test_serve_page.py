"""The page in a real browser: by keyboard and by touch, hostile texts, a server that goes away."""

from __future__ import annotations

import re
from urllib.parse import quote

import httpx
import pytest

from chromium_cases import CONTRAST
from page_cases import READY, Visit, judged, press, says, serving, shown, stored
from polypref.serve.questions import Question
from polypref.serve.routes.page import headers, html
from report_example import HOSTILE
from serve_cases import UNSAFE


def test_by_keyboard(browser, tmp_path):
    """Choose, tie, undo and skip; the side, the time and the kind are stored, and the slate says who answered."""
    with serving(tmp_path / "s.db") as at, Visit(browser, f"{at}/u/ann/") as page:
        page.wait_for_selector("#text-0:not(:empty)")
        assert page.locator("#who").text_content() == "from everybody"
        page.keyboard.press("1")  # too early: nobody can have read it
        assert stored(at) == []
        prompt, left, right = shown(page)
        press(page, "2", "Stored: answer 2 is better.")
        one = stored(at)[0]
        assert (one["prompt"], one["chosen"], one["rejected"]) == (prompt, right, left)
        assert one["context"]["position"] == "right" and 0.8 <= one["context"]["seconds"] < 60
        assert page.locator("#who").text_content() == "from you"
        assert "1 time" in page.locator("#judged").text_content()
        asked = shown(page)
        press(page, "0", "Stored: neither is better.")
        assert [one["kind"] for one in stored(at)] == ["pair", "tie"]
        page.keyboard.press("u")
        says(page, "Taken back")
        assert [one["kind"] for one in stored(at)] == ["pair"] and shown(page) == asked
        press(page, "s", "Skipped.")
        assert len(stored(at)) == 1 and shown(page) != asked
        page.locator("#keys").uncheck()  # a page must not take single keys from somebody who speaks to it
        page.wait_for_selector(READY)
        page.keyboard.press("1")
        page.locator("#keys").check()
        page.keyboard.press("Control+1")
        page.wait_for_timeout(200)
        assert len(stored(at)) == 1


def test_by_touch_on_a_phone(browser, tmp_path):
    options = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
    with serving(tmp_path / "s.db") as at, Visit(browser, f"{at}/u/ann", **options) as page:
        for turn in range(2):
            page.wait_for_selector(READY)
            assert page.evaluate("document.documentElement.scrollWidth") == 360
            page.locator(f"#choose-{turn}").tap()
            judged(page, turn + 1)
        assert page.evaluate("document.getElementById('judging').getBoundingClientRect().top >= 0")
        first, second = (page.locator(f"#answer-{one}").bounding_box() for one in (0, 1))
        assert second["y"] >= first["y"] + first["height"]
        for name in ("#choose-0", "#choose-1", "#tie", "#skip", "#undo", "#pause", "#export", "#leave"):
            assert page.locator(name).bounding_box()["height"] >= 44, name
        page.locator("#undo").tap()
        judged(page, 1)
        page.evaluate("document.querySelector('.answer').style.minWidth = '900px'")  # what is watched for is seen
        assert page.evaluate("document.documentElement.scrollWidth") > 360
    with serving(tmp_path / "t.db") as at, Visit(browser, f"{at}/u/ann/") as page:
        page.wait_for_selector(READY)
        first, second = (page.locator(f"#answer-{one}").bounding_box() for one in (0, 1))
        assert first["y"] == second["y"] and second["x"] >= first["x"] + first["width"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_read_and_names_what_it_has(browser, tmp_path, scheme):
    with serving(tmp_path / "s.db") as at, Visit(browser, f"{at}/u/ann/", color_scheme=scheme) as page:
        press(page, "1", "Stored")
        page.wait_for_selector(READY)
        for selector in (
            "#prompt",
            ".text",
            "#choose-0",
            ".answer h2",
            ".quiet",
            "#who",
            ".held b",
            "#leave",
            "kbd",
            "#said",
        ):
            ratio = page.locator(selector).first.evaluate(CONTRAST)
            assert ratio >= 4.5, f"{selector} in {scheme}: {ratio:.2f}"
        named = [
            ("heading", "What about"), ("article", "Answer 1"), ("article", "Answer 2"),
            ("button", "Answer 1 is better"), ("button", "Answer 2 is better"), ("button", "Neither is better"),
            ("button", "Skip"), ("button", "Undo"), ("button", "Pause"), ("button", "Export"), ("button", "Delete me"),
            ("checkbox", "Keys 1, 2, 0, s and u"), ("progressbar", "Pairs judged"), ("status", ""),
            ("group", "What decided your last answer?"), ("region", "What your answers change"),
        ]  # fmt: skip
        for role, name in named:
            found = page.get_by_role(role, name=name or None)
            assert found.count() >= 1, (role, name)
        assert page.get_by_role("button", name="Delete everything").count() == 0  # an absent one is not found
        assert "Next: What about" in page.get_by_role("status").text_content()
        page.keyboard.press("Tab")
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid"


def test_hostile_texts_are_text(browser, tmp_path):
    long = "# Title\n\n```python\nif a < b:\n    print('x')\n```\n" + "word " * 3000
    texts = [*HOSTILE, long, "عربي ثم English", "\u202eevil\u202c"]
    questions = [
        Question(f"<b>{number}</b> {texts[number]}", (f"{one} 1", f"{one} 2")) for number, one in enumerate(texts)
    ]
    name = "<img src=x onerror=window.hit=1>"
    with serving(tmp_path / "s.db", questions) as at:
        visit = Visit(
            browser,
            f"{at}/u/{quote(name)}/",
        )
        with visit as page:
            seen = set()
            for _ in range(4):
                prompt, *two = shown_when_ready(page)
                number = int(re.match(r"<b>(\d+)", prompt)[1])
                assert prompt == questions[number].prompt and two == sorted(questions[number].responses)
                seen.add(number)
                press(page, "s", "Skipped.")
            assert len(seen) == 4
            assert page.locator("#name").text_content() == name
            assert page.locator("img, #judging script, #prompt *, .text *").count() == 0
            assert page.evaluate("window.hit") is None and visit.complaints == []
            # The page's policy refuses what its script never does.
            assert (
                page.evaluate("try { document.body.innerHTML = '<i>x</i>'; 'done' } catch (e) { e.name }")
                == "TypeError"
            )
            page.evaluate("document.body.append(Object.assign(document.createElement('style'), {textContent: 'x{}'}))")
            assert any("Content Security Policy" in one for one in visit.complaints)


def shown_when_ready(page):
    page.wait_for_selector(READY)
    return shown(page)


def test_long_and_right_to_left_texts(browser, tmp_path):
    questions = [Question("سؤال", ("نص عربي قصير", "line\n" * 300))]
    with serving(tmp_path / "s.db", questions) as at, Visit(browser, f"{at}/u/ann/") as page:
        page.wait_for_selector(READY)
        arabic, long = page.locator("#text-1"), page.locator("#text-0")
        assert arabic.evaluate("e => getComputedStyle(e).direction") == "rtl"
        assert long.evaluate("e => getComputedStyle(e).direction") == "ltr"
        assert page.locator("#prompt").evaluate("e => getComputedStyle(e).direction") == "rtl"
        assert long.bounding_box()["height"] < 500 and long.get_attribute("tabindex") == "0"
        assert arabic.get_attribute("tabindex") is None
        assert page.get_by_role("region", name="Text of answer 1").count() == 1


def test_a_server_that_goes_away_loses_nothing(browser, tmp_path):
    path, visit = tmp_path / "s.db", None
    with serving(path) as at:
        visit = Visit(browser, f"{at}/u/ann/")
        press(visit.page, "1", "Stored")
        visit.page.wait_for_selector(READY)
        answered = shown(visit.page)
    with visit as page:
        page.keyboard.press("2")
        page.get_by_role("alert").filter(has_text="1 change of yours is kept").wait_for()
        assert shown(page) == answered  # it is still there to be read
        with serving(path, port=int(at.rsplit(":", 1)[1])):
            page.get_by_role("button", name="Try now").click()
            judged(page, 2)
            assert page.locator("#trouble").is_hidden()
            kept = stored(at)
            assert [one["context"]["position"] for one in kept] == ["left", "right"]
            assert (kept[1]["prompt"], kept[1]["chosen"]) == (answered[0], answered[2])
            press(page, "1", "Stored")
            assert len(stored(at)) == 3


def test_what_was_not_sent_survives_a_reload(browser, tmp_path):
    with serving(tmp_path / "s.db") as at, Visit(browser, f"{at}/u/ann/") as page:
        page.wait_for_selector(READY)
        page.route("**/v1/feedback", lambda route: route.abort())
        page.keyboard.press("1")
        page.get_by_role("alert").filter(has_text="kept in this tab").wait_for()
        assert stored(at) == []
        page.unroute("**/v1/feedback")
        page.reload()
        judged(page, 1)
        assert len(stored(at)) == 1 and page.evaluate("sessionStorage.getItem('polypref outbox /u/ann/')") == "[]"


def test_an_acknowledgement_that_is_lost_does_not_store_twice(browser, tmp_path):
    with serving(tmp_path / "s.db") as at, Visit(browser, f"{at}/u/ann/") as page:
        page.wait_for_selector(READY)
        lost = []

        def lose(route):
            if not lost:
                lost.append(route.fetch().status)
                route.abort()
            else:
                route.continue_()

        page.route("**/v1/feedback", lose)
        page.keyboard.press("1")
        judged(page, 1)
        assert lost == [200] and len(stored(at)) == 1


def test_reasons_go_with_the_judgement(browser, tmp_path):
    with serving(tmp_path / "s.db") as at, Visit(browser, f"{at}/u/ann/") as page:
        press(page, "1", "Stored: answer 1")
        before = stored(at)[0]
        clearer = page.get_by_role("button", name="clearer")
        for name in ("shorter", "clearer", "shorter"):
            page.get_by_role("button", name=name).click()
        assert clearer.get_attribute("aria-pressed") == "true"
        says(page, "reasons are stored")
        after = stored(at)
        assert len(after) == 1 and after[0]["tags"] == ["clearer"] and after[0]["id"] != before["id"]
        assert after[0]["context"] == before["context"]
        page.keyboard.press("u")  # takes back the one with reasons
        says(page, "Taken back")
        assert stored(at) == []


def test_what_is_held_back_and_why(browser, tmp_path):
    with serving(tmp_path / "s.db") as at, Visit(browser, f"{at}/u/ann/") as page:
        page.wait_for_selector(READY)
        assert "Held back: its safety score is -1.00" in page.locator("#slate .held").text_content()
        assert page.locator("#slate details").count() == 3 and UNSAFE not in page.content()
    with serving(tmp_path / "t.db", bounded=False) as at, Visit(browser, f"{at}/u/ann/") as page:
        page.wait_for_selector(READY)
        assert UNSAFE in page.locator("#slate").text_content()
        assert "Nothing bounds" in page.locator("#policy").text_content()


def test_without_questions_it_says_so(browser, tmp_path):
    with serving(tmp_path / "s.db", ()) as at, Visit(browser, f"{at}/u/ann/") as page:
        page.get_by_role("heading", name="Nothing to ask now: this server has no questions").wait_for()
        assert page.locator("#slate-part").is_hidden() and page.locator("#tie").is_hidden()
        assert page.get_by_role("button", name="Delete me").is_visible()


def test_its_policy_and_size(tmp_path):
    assert len(html()) < 60_000 and "http://" not in html().replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https://|innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", html())
    with serving(tmp_path / "s.db") as at:
        for path in ("/", "/u/ann/", "/u/ann"):
            found = httpx.get(at + path, headers={"Accept": "text/html,*/*;q=0.8"})
            assert found.headers["content-security-policy"] == headers()["Content-Security-Policy"]
            assert "unsafe" not in found.headers["content-security-policy"] and found.text == html()
        assert httpx.get(at).json()["status"] == "UP"  # for Label Studio
