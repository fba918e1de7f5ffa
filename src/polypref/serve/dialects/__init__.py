"""The wire formats of clients, one file each: parse, call ``core``, render. No dialect decides anything.

Each file has the bodies of its requests, a function that renders an answer, and ``routes(app)``, which adds its routes.
"""
