"""Bodies are read strictly: of two equal keys none counts, numbers are finite, nesting has an end.

A proxy in front may take the first of two equal keys and this server the last: such a body names two things at once.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import HTTPException, Request, Response
from fastapi.routing import APIRoute

from polypref import strict_json


class StrictRequest(Request):
    """A request whose JSON is read strictly. Raises HTTPException with status 400."""

    async def json(self) -> Any:
        if not hasattr(self, "_json"):
            try:
                self._json = strict_json.loads(await self.body())
            except UnicodeError:
                raise HTTPException(400, "the body is not UTF-8 text; expected JSON.") from None
            except ValueError as error:
                raise HTTPException(400, f"the body is no JSON that can be read: {error}.") from None
        return self._json


class StrictRoute(APIRoute):
    """A route that reads its body strictly."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def strict(request: Request) -> Response:
            return await handler(StrictRequest(request.scope, request.receive))

        return strict
