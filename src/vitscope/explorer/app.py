"""The web application: one or two runs behind a guard."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles
from starlette.responses import Response
from starlette.types import ASGIApp

from vitscope.errors import VitscopeError
from vitscope.explorer.answers import ASK_AGAIN, answer_error
from vitscope.explorer.api import add_api
from vitscope.explorer.explorer import Explorer
from vitscope.explorer.guard import Access, Guard
from vitscope.explorer.live import LiveRun
from vitscope.explorer.pages import add_pages

STATIC = Path(__file__).with_name("static")


def build_app(runs: list[LiveRun], access: Access) -> ASGIApp:
    """Return the application for one or two runs; their models load as soon as it starts."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        for run in runs:
            run.start_loading()
        yield

    # the framework's own documentation pages load scripts from elsewhere
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    explorer = Explorer.of(runs, access)
    app.mount("/static", _Revalidated(directory=STATIC), name="static")
    app.add_exception_handler(VitscopeError, answer_error)
    add_api(app, explorer)
    add_pages(app, explorer)
    return Guard(app, access)


class _Revalidated(StaticFiles):
    """Files of the package: the browser asks whether they changed, as after an upgrade."""

    def file_response(self, *args: Any, **options: Any) -> Response:
        response = super().file_response(*args, **options)
        response.headers["cache-control"] = ASK_AGAIN
        return response
