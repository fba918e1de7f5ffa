"""Text to vectors: the Encoder protocol, the encoders, and the on-disk cache."""

from __future__ import annotations

import re
from dataclasses import fields
from importlib import import_module

from polypref.arguments import expect
from polypref.errors import SettingsError, unknown_name
from polypref.features.joined import Joined
from polypref.features.protocol import Encoder, Read

# name, or the part before the colon -> module, class, what may follow the colon
ENCODERS = {
    "minilm": ("polypref.features.minilm", "MiniLM", ""),
    "minilm-windows": ("polypref.features.minilm", "MiniLMWindows", ""),
    "minilm-4": ("polypref.features.minilm", "FourLayers", ""),
    "static": ("polypref.features.static", "Static", ""),
    "hf": ("polypref.features.hf", "HuggingFace", "model"),
    "endpoint": ("polypref.features.endpoint", "Endpoint", "url"),
}
NEXT = re.compile(
    rf"\+(?=(?:{'|'.join(ENCODERS)})(?:$|[:+]))"
)  # a plus may also be part of a folder's name or an address


def encoder(name: str, **options: object) -> Encoder:
    """The encoder ``minilm``, ``minilm-windows``, ``static``, ``hf:<model>`` or ``endpoint:<url>``, with its settings.

    ``cache="memory"`` keeps features until the process ends and writes nothing to disk; default: "disk".

    ``minilm+static`` and similar names join several encoders with their default settings. With ``features="response"``
    learners read the response alone, not how it relates to its prompt. Nothing is loaded until the
    first text is encoded. Raises SettingsError for an unknown name or setting.
    """
    expect("name", name, str)
    if "cache" in options and options["cache"] not in ("disk", "memory"):
        raise SettingsError(f"cache is {options['cache']!r}; expected 'disk' or 'memory'.")
    parts = NEXT.split(name)
    if len(parts) > 1:
        if options.keys() - {"cache", "features"}:
            raise SettingsError(
                f"encoder {name!r} takes no settings but features; in Python give each part its own: "
                "Joined((..., ...))."
            )
        return Joined(tuple(encoder(part, **options) for part in parts))
    kind, colon, rest = name.partition(":")
    if kind not in ENCODERS or bool(colon) != bool(ENCODERS[kind][2]) or bool(rest) != bool(colon):
        known = [f"{kind}:<{what}>" if what else kind for kind, (_, _, what) in ENCODERS.items()]
        raise unknown_name("encoder", name, known)
    module, class_name, what = ENCODERS[kind]
    settings = getattr(import_module(module), class_name)
    if what:
        options = {what: rest, **options}
    allowed = {field.name for field in fields(settings)}
    for option in options:
        if option not in allowed:
            raise unknown_name(f"setting of {kind}", option, allowed)
    if "features" in options:
        expect("features", options["features"], Read)
    try:
        return settings(**options)
    except TypeError as error:
        raise SettingsError(f"encoder {name!r}: {error}") from error


__all__ = ["ENCODERS", "Encoder", "Joined", "encoder"]
