"""Characters that are written as their numbers, as the characters themselves.

HTML (``&#104;``), percent (``%68``), backslashes of JSON, Python, C and CSS (``\\u0068``, ``\\x68``, ``\\150``),
Unicode's own notation (``U+0068``), quoted-printable (``=68=69=74``), UTF-7 (``+AGgAaQ-``) and host names in other
alphabets (``xn--``).
Each is resolved where it stands, whatever else the text says.
"""

from __future__ import annotations

import html
import re
from urllib.parse import unquote

ZEROS, TOO_LARGE = re.compile("&#0+(?=[0-9])"), re.compile("&#[0-9]{8,};?")  # beyond Unicode
HEX = "[0-9A-Fa-f]"
NUMBERED = re.compile(
    rf"\\u\{{0*({HEX}{{1,6}})\}}|\\u({HEX}{{4}})|\\U({HEX}{{8}})|\\x\{{?({HEX}{{2}})\}}?|\\([0-3][0-7]{{2}})(?![0-7])"
    rf"|(?<![0-9A-Za-z])[Uu]\+({HEX}{{4,6}})(?!{HEX})"
)
OCTAL = 5  # the group whose digits are octal
QUOTED = re.compile(rf"(?:={HEX}{{2}}){{3,}}")
UTF7 = re.compile(r"\+(A[A-Za-z0-9+/]{2,1000})-?")  # ASCII begins with A
HOST = re.compile(r"\bxn--([a-z0-9-]{2,60})", re.IGNORECASE)
UNKNOWN = "\ufffd"


def resolved(text: str) -> str:
    """``text`` with every character that is written as its number."""
    if "&" in text or "%" in text:
        text = html.unescape(TOO_LARGE.sub(UNKNOWN, ZEROS.sub("&#", unquote(text))))
    if "\\" in text or "+" in text:
        text = NUMBERED.sub(_numbered, text)
        if any("\ud800" <= one <= "\udfff" for one in text):  # two halves of one character
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if "=" in text:
        text = QUOTED.sub(lambda run: bytes.fromhex(run[0].replace("=", "")).decode("utf-8", "replace"), text)
    if "+A" in text:
        text = UTF7.sub(_utf7, text)
    return HOST.sub(_host, text) if "--" in text else text


def _numbered(found: re.Match[str]) -> str:
    group = found.lastindex or 0
    code = int(found[group], 8 if group == OCTAL else 16)
    return chr(code) if code <= 0x10FFFF else UNKNOWN


def _utf7(found: re.Match[str]) -> str:
    try:
        text = f"+{found[1]}-".encode().decode("utf-7")
    except UnicodeError:
        return found[0]
    return text if text.isascii() and text.isprintable() else found[0]


def _host(found: re.Match[str]) -> str:
    try:
        return found[1].encode().decode("punycode")
    except UnicodeError:
        return found[0]
