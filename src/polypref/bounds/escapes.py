"""Turns characters that are written as numbers or names into the characters themselves.

HTML (``&#104;``), percent (``%68``, ``%u0068``), backslashes of JSON, Python, C, Perl and CSS (``\\u0068``, ``\\x68``,
``\\150``, ``\\o{150}``, ``\\N{LATIN SMALL LETTER H}``, ``\\68``), however many there are, Unicode's own notation
(``U+0068``), quoted-printable (``=68=69=74``, ``=68i``), UTF-7 (``+AGgAaQ-``) and host names in other alphabets
(``xn--``). Each is resolved in its place, whatever the rest of the text says.
"""

from __future__ import annotations

import html
import re
import unicodedata
from urllib.parse import unquote

ZEROS, TOO_LARGE = re.compile("&#0+(?=[0-9])"), re.compile("&#[0-9]{8,};?")  # beyond Unicode
HEX = "[0-9A-Fa-f]"
BACKSLASHES = r"(?<!\\)\\++"  # all of a run, which is tried once
NUMBERED = re.compile(
    rf"(?:{BACKSLASHES}[ux]|%u)\{{0*({HEX}{{1,6}})\}}|(?:{BACKSLASHES}u|%u)({HEX}{{4}})|{BACKSLASHES}U({HEX}{{8}})"
    rf"|{BACKSLASHES}x({HEX}{{2}})|{BACKSLASHES}(?:o\{{0*([0-7]{{1,7}})\}}|0?([1-3][0-7]{{2}})(?![0-7])|(0[0-5][0-7])(?!{HEX}))"
    rf"|{BACKSLASHES}(0*[2-7]{HEX})(?!{HEX})[ ]?|(?<![0-9A-Za-z])[Uu]\+({HEX}{{4,6}})(?!{HEX})"
    rf"|{BACKSLASHES}N\{{([A-Za-z][A-Za-z0-9 -]{{0,99}})\}}"
)
OCTAL, NAMED = (5, 6, 7), 10  # the groups whose digits are octal, and that of names
QUOTED = re.compile(rf"(?:={HEX}{{2}}){{3,}}|=[67](?:[A-F]|[0-9](?=[A-Za-z=]))")
UTF7 = re.compile(r"\+([A-Za-z0-9+/]{3,})-?")
IN_WORDS = re.compile("[\t\n\r -~\u00a0-\u052f\u1e00-\u1eff\u2000-\u206f\ufeff]*")  # letters of Europe and spaces
HOST = re.compile(r"\bxn--([a-z0-9-]{2,60})", re.IGNORECASE)
UNKNOWN = "\ufffd"


def resolved(text: str) -> str:
    """``text`` with every character that is written as its number or name."""
    if "&" in text or "%" in text:
        text = html.unescape(TOO_LARGE.sub(UNKNOWN, ZEROS.sub("&#", unquote(text))))
    if "\\" in text or "+" in text or "%u" in text:
        text = _whole(NUMBERED.sub(_numbered, text))
    if "=" in text:
        text = QUOTED.sub(lambda run: bytes.fromhex(run[0].replace("=", "")).decode("utf-8", "replace"), text)
    if "+" in text:
        text = UTF7.sub(_utf7, text)
    return _whole(HOST.sub(_host, text)) if "--" in text else text


def _whole(text: str) -> str:
    """Two halves of a character as one; a single half, which no text may hold, as unknown."""
    if any("\ud800" <= one <= "\udfff" for one in text):
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def _numbered(found: re.Match[str]) -> str:
    group = found.lastindex or 0
    if group == NAMED:
        try:
            return unicodedata.lookup(found[group])
        except KeyError:
            return found[0]
    code = int(found[group], 8 if group in OCTAL else 16)
    return chr(code) if code <= 0x10FFFF else UNKNOWN


def _utf7(found: re.Match[str]) -> str:
    try:
        text = f"+{found[1]}-".encode().decode("utf-7")
    except UnicodeError:
        return found[0]
    words = len(text) > 1 or text.isascii()  # a single other letter may be chance
    return text if words and IN_WORDS.fullmatch(text) else found[0]


def _host(found: re.Match[str]) -> str:
    try:
        return found[1].encode().decode("punycode")
    except UnicodeError:
        return found[0]
