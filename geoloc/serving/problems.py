"""What is wrong with a request, as RFC 9457 has it."""

from fastapi.responses import JSONResponse

MEDIA_TYPE = "application/problem+json"


class ProblemError(Exception):
    def __init__(
        self, status: int, title: str, detail: str, retry_after_s: float | None = None, **more: object
    ) -> None:
        """``more`` are members of the problem of their own, such as the limit that was broken."""
        super().__init__(detail)
        self.status, self.retry_after_s = status, retry_after_s
        self.members = {"type": "about:blank", "title": title, "status": status, "detail": detail} | more

    def response(self) -> JSONResponse:
        headers = {} if self.retry_after_s is None else {"Retry-After": str(max(1, round(self.retry_after_s)))}
        return JSONResponse(self.members, self.status, headers, MEDIA_TYPE)


def busy(reason: str = "the models have enough to do", retry_after_s: float = 1) -> ProblemError:
    return ProblemError(429, "Too many requests", f"{reason}; try again in a moment", retry_after_s)


def unusable(kind: str, message: str) -> ProblemError:
    """A photo that cannot be looked at; ``kind`` as in the archive job's results."""
    status = 413 if kind in ("too_large", "too_many_pixels") else 422
    return ProblemError(status, "The photo cannot be used", f"{kind}: {message}", kind=kind)
