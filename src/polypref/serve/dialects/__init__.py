"""The wire formats of clients, one file each, and what several of them read in the same way.

A dialect parses, calls ``core`` and renders; none decides anything. Each has the bodies of its requests, a function
that renders an answer, and ``routes(app)``, which adds its routes.
"""
