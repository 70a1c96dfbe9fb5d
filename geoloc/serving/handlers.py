"""What every answer has: errors as RFC 9457's problems, and headers."""

import logging

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException

from geoloc.serving.measures import measures
from geoloc.serving.problems import ProblemError

log = logging.getLogger("geoloc")

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
    "Cache-Control": "no-store",
}


def add_handlers(app: FastAPI) -> None:
    """Error handlers, and the headers of all answers."""
    app.add_exception_handler(ProblemError, problem_handler)
    app.add_exception_handler(HTTPException, http_exception_handler)
    app.add_exception_handler(RequestValidationError, validation_error_handler)
    app.add_exception_handler(Exception, unexpected_error_handler)
    app.add_middleware(_HeadersMiddleware)


async def problem_handler(_: Request, problem: ProblemError) -> Response:
    return _refusal(problem)


async def http_exception_handler(_: Request, error: HTTPException) -> Response:
    """Of the framework's own refusals, such as a path that there is not."""
    response = _refusal(ProblemError(error.status_code, "The request cannot be answered", str(error.detail)))
    response.headers.update(error.headers or {})
    return response


async def validation_error_handler(_: Request, error: RequestValidationError) -> Response:
    wrong = "; ".join(f"{'.'.join(map(str, one['loc'][1:]))}: {one['msg']}" for one in error.errors())
    return _refusal(ProblemError(422, "An option cannot be used", wrong))


async def unexpected_error_handler(_: Request, error: Exception) -> Response:
    """The message may hold what a stranger must not read, so that only its kind is logged, and nothing told."""
    log.error("a request failed: %s", type(error).__name__)
    return _refusal(ProblemError(500, "The service failed", "this is not the request's fault"))


def count_refusal(problem: ProblemError) -> None:
    measures().refused.inc(tags={"status": str(problem.members["status"])})


def _refusal(problem: ProblemError) -> Response:
    count_refusal(problem)
    return problem.response()


class _HeadersMiddleware:
    """Adds HEADERS to every answer that does not say otherwise."""

    def __init__(self, app) -> None:
        self._app = app

    async def __call__(self, scope, receive, send) -> None:
        async def send_with_headers(message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in (HEADERS | _rate_headers(scope)).items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_with_headers)


def _rate_headers(scope) -> dict[str, str]:
    """What is left to whoever asks, as draft-ietf-httpapi-ratelimit-headers has it."""
    limit = scope.get("state", {}).get("rate_limit")
    if limit is None:
        return {}
    quota, left, full_s = limit
    return {
        "RateLimit-Policy": f'"photos";q={quota};w=60',
        "RateLimit": f'"photos";r={left};t={full_s}',
    }
