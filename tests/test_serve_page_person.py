"""What a person can do on the page about themselves: pause, export, leave, say who they are."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import httpx

from page_cases import QUESTIONS, READY, Never, Visit, press, says, serving, stored
from polypref.serve.questions import Questions
from polypref.serve.store.contract import Judgement, Person
from polypref.serve.who.person import Key, Keys
from serve_cases import core, running


def test_pause_and_export(browser, tmp_path):
    with serving(tmp_path / "s.db") as at, Visit(browser, f"{at}/u/ann/") as page:
        press(page, "1", "Stored")
        page.wait_for_selector(READY)
        page.get_by_role("button", name="Pause").click()
        says(page, "Paused")
        assert httpx.get(f"{at}/v1/users/ann").json()["paused"] and "Paused" in page.locator("#known").text_content()
        page.get_by_role("button", name="Use my answers again").click()
        says(page, "used again")
        with page.expect_download() as download:
            page.get_by_role("button", name="Export").click()
        assert json.loads(Path(download.value.path()).read_text())["judgements"] == stored(at)


def test_delete_me(browser, tmp_path):
    with serving(tmp_path / "s.db") as at, Visit(browser, f"{at}/u/ann/") as page:
        press(page, "1", "Stored")
        for refuse in ("Keep them", "Escape"):
            page.get_by_role("button", name="Delete me").click()
            page.keyboard.press("Escape") if refuse == "Escape" else page.get_by_role("button", name=refuse).click()
            assert len(stored(at)) == 1 and not page.locator("#sure").is_visible()
        page.get_by_role("button", name="Delete me").click()
        page.get_by_role("dialog").get_by_role("button", name="Delete me").click()
        page.get_by_role("heading", name="You are deleted").wait_for()
        receipt = page.locator("#receipt").text_content()
        assert "1 in judgements" in receipt and "Foundnothing" in receipt and "s.db" in receipt
        known = httpx.get(f"{at}/v1/users/ann").json()
        assert known["judgements"] == 0 and known["text"] == "Nothing is known of you yet."
        page.get_by_role("button", name="Start again as a stranger").click()
        page.wait_for_selector(READY)
        assert page.locator("#who").text_content() == "from everybody"
        assert page.locator("#undo").get_attribute("aria-disabled") == "true"


def test_after_leaving_nothing_is_stored_until_they_start_again(browser, tmp_path):
    served = core(tmp_path / "s.db", True)
    with running(served, questions=Questions(QUESTIONS, Never())) as at, Visit(browser, f"{at}/u/ann/") as page:
        press(page, "1", "Stored")
        assert len(served.store.offers(Person("", "ann"))) == 2
        page.get_by_role("button", name="Delete me").click()
        page.get_by_role("dialog").get_by_role("button", name="Delete me").click()
        page.get_by_role("heading", name="You are deleted").wait_for()
        page.keyboard.press("1")
        page.wait_for_timeout(300)
        assert served.store.offers(Person("", "ann")) == []


def test_consistency_is_shown(browser, tmp_path):
    served = core(tmp_path / "s.db")
    for number, chosen in enumerate(("a", "b", "a")):
        again = {"repeat": True} if number else {}
        told = {
            "id": str(number),
            "kind": "pair",
            "prompt": "p",
            "chosen": chosen,
            "rejected": "ab".replace(chosen, ""),
        }
        served.store.judge(Person("", "ann"), Judgement(**told, context=again)).result()
    with running(served, questions=Questions(QUESTIONS, Never())) as at, Visit(browser, f"{at}/u/ann/") as page:
        page.wait_for_selector(READY)
        assert page.locator("#consistency").text_content() == "1 of 2 repeated questions answered as before"


def test_a_name_is_asked_for(browser, tmp_path):
    with serving(tmp_path / "s.db") as at, Visit(browser, at) as page:
        field = page.get_by_label("Your name here")
        for wrong, said in (("", "Give a name"), ("..", "slashes"), ("a/b", "slashes")):
            field.fill(wrong)
            page.get_by_role("button", name="Start").click()
            page.get_by_role("alert").filter(has_text=said).wait_for()
        field.fill("Ann Öz ?#")
        field.press("Enter")
        page.wait_for_selector(READY)
        assert page.locator("#name").text_content() == "Ann Öz ?#"
        press(page, "1", "Stored")
        assert len(stored(f"{at}/u/Ann%20%C3%96z%20%3F%23", "me")) == 1


def test_keys_of_the_server(browser, tmp_path):
    keys = Keys({sha256(b"own").hexdigest(): Key("acme", "ann"), sha256(b"all").hexdigest(): Key("acme")})
    with serving(tmp_path / "s.db", keys=keys) as at:
        with Visit(browser, f"{at}/") as page:
            key = page.get_by_label("API key")
            for given in ("wrong", "own"):
                key.fill(given)
                page.get_by_role("button", name="Start").click()
                if given == "wrong":
                    page.get_by_role("alert").filter(has_text="not known").wait_for()
            page.wait_for_selector(READY)
            assert page.locator("#name").text_content() == "ann"
            press(page, "1", "Stored")
            assert "own" not in json.dumps(page.context.storage_state()) and "own" not in page.url
        with Visit(browser, f"{at}/u/bob/") as page:
            page.get_by_label("API key").fill("all")
            page.get_by_role("button", name="Start").click()
            page.wait_for_selector(READY)
            assert page.locator("#name").text_content() == "bob"


def test_behind_a_proxy_that_takes_off_a_prefix(browser, tmp_path):
    with serving(tmp_path / "s.db") as at, Visit(browser, f"{at}/health") as page:
        asked = []

        def proxied(route):
            asked.append(route.request.url)
            route.fulfill(response=route.fetch(url=route.request.url.replace("/team/judge", "", 1)))

        page.route(f"{at}/team/judge/**", proxied)
        page.goto(f"{at}/team/judge/")
        page.get_by_label("Your name here").fill("ann")
        page.get_by_role("button", name="Start").click()
        page.wait_for_url(f"{at}/team/judge/u/ann/")
        press(page, "1", "Stored")
        assert len(stored(at)) == 1
        assert len(asked) > 5 and all("/team/judge/" in one for one in asked)
