"""A server with questions, and a visitor of its page, for the tests that open it in a browser."""

from __future__ import annotations

import re
from contextlib import contextmanager

import httpx

from polypref.serve.questions import Question, Questions
from serve_cases import UNSAFE, core, running

READY = "#choose-0:not([aria-disabled])"
QUESTIONS = [Question(f"What about {at}?", tuple(f"Answer {n} about {at}." for n in range(5))) for at in range(4)]
SLATE = Question("The slate?", ("first of it", f"{UNSAFE} now", "second of it", "third of it"), slate=True)


class Never:
    """No repeats, and the sides as they are, so that a test knows what is asked."""

    def random(self):
        return 1.0

    def getrandbits(self, bits):
        return 0

    def shuffle(self, items):
        items.sort()

    def randrange(self, count):
        return 0


@contextmanager
def serving(path, questions=(*QUESTIONS, SLATE), bounded=True, **more):
    with running(core(path, bounded), questions=Questions(questions, Never()), **more) as at:
        yield at


class Visit:
    """A visitor's page; with all that it asked other servers for, and what the console said."""

    def __init__(self, browser, url, **options):
        self.context = browser.new_context(**{"viewport": {"width": 1180, "height": 900}, **options})
        self.page = self.context.new_page()
        self.page.set_default_timeout(20_000)
        self.complaints, self.strangers = [], []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        own = "/".join(url.split("/")[:3])
        self.page.on("request", lambda one: None if one.url.startswith((own, "data:")) else self.strangers.append(one))
        self.page.goto(url)

    def __enter__(self):
        return self.page

    def __exit__(self, *_):
        assert not self.strangers
        self.context.close()


def says(page, text):
    page.locator("#said").filter(has_text=text).wait_for()


def judged(page, count):
    page.locator("#judged").filter(has_text=re.compile(f"^{count} ")).wait_for()


def press(page, key, said):
    """Press a key once the page takes answers, and wait for what it says."""
    page.wait_for_selector(READY)
    page.evaluate("document.getElementById('said').textContent = ''")
    page.keyboard.press(key)
    says(page, said)


def stored(at, user="ann"):
    return httpx.get(f"{at}/v1/users/{user}/export").json()["judgements"]


def shown(page):
    return page.locator("#prompt").text_content(), *(page.locator(f"#text-{at}").text_content() for at in (0, 1))
