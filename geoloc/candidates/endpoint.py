"""Replies over HTTP, from any server that speaks OpenAI's protocol (chat completions with pictures)."""

import asyncio
import atexit
import base64
import queue
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import nullcontext

import aiolimiter
import httpx2
import openai
from pydantic import SecretStr

from geoloc.candidates.engine import Completion, Request
from geoloc.candidates.options import KEY, OPENAI_HOST, OPENAI_KEY, EngineOptions, Sampling
from geoloc.errors import PhotoError, UsageError

RETRIES = 6
"""Of a request: the client waits as long as the server says, or ever longer, up to 8 seconds."""
MALFORMED_RETRIES = 2
"""Of a request whose answer is no chat completion."""
FAILURES = 50
"""Requests in a row that fail, with all their retries, before it makes no sense to go on."""
LONGEST = 16 << 20
"""Bytes of an answer."""
_RETRY = "x-stainless-retry-count"
"""Header of a request: how often the client has sent it before."""


class Endpoint:
    def __init__(
        self, options: EngineOptions, sampling: Sampling, key: SecretStr | None = None, retries: int = RETRIES
    ) -> None:
        self._options, self._key = options, key.get_secret_value() if key else None
        self._common = {"model": options.model}
        self._common |= {
            name: value for name in ("temperature", "top_p", "seed") if (value := getattr(sampling, name)) is not None
        }
        self._limit = {"max_tokens": sampling.max_tokens}
        self._most: int | None = None  # choices that the server gives a request, once it has shown that they are few
        self._failed = 0  # requests in a row
        self._stopped: UsageError | None = None
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True, name="endpoint").start()
        self._client, self._places, self._pace = asyncio.run_coroutine_threadsafe(
            self._open(retries), self._loop
        ).result()
        atexit.register(lambda: asyncio.run_coroutine_threadsafe(self._client.close(), self._loop).result(5))

    async def _open(self, retries: int) -> tuple:
        options, most = self._options, self._options.concurrency
        http = openai.DefaultAioHttpClient(  # which takes half of the other client's time
            limits=httpx2.Limits(max_connections=most, max_keepalive_connections=most),
            timeout=httpx2.Timeout(options.timeout_s, connect=15),
            follow_redirects=False,  # photos go to the endpoint that was named and nowhere else
            event_hooks={"response": [_bound]},
        )
        client = openai.AsyncOpenAI(
            base_url=options.endpoint,
            api_key=self._key or "none",
            organization="",
            project="",
            max_retries=retries,
            http_client=http,
        )
        each_s = 60 / options.requests_per_minute if options.requests_per_minute else None
        return client, asyncio.Semaphore(most), aiolimiter.AsyncLimiter(1, each_s) if each_s else nullcontext()

    def complete(self, requests: Sequence[Request]) -> Iterator[tuple[int, Completion | PhotoError]]:
        """As geoloc.candidates.engine.Engine."""
        done: queue.SimpleQueue = queue.SimpleQueue()
        for number, request in enumerate(requests):
            future = asyncio.run_coroutine_threadsafe(self._answer(request), self._loop)
            future.add_done_callback(lambda future, number=number: done.put((number, future)))
        for _ in requests:
            number, future = done.get()
            try:
                yield number, future.result()
            except UsageError as error:
                # what is under way is paid for, and worth waiting for; nothing else is sent
                self._stopped = self._stopped or error
        if self._stopped:
            raise self._stopped

    async def _answer(self, request: Request) -> Completion | PhotoError:
        """Raises UsageError."""
        picture = f"data:image/jpeg;base64,{base64.b64encode(request.image).decode()}"
        content = [
            {"type": "text", "text": request.text},
            {"type": "image_url", "image_url": {"url": picture, "detail": "low"}},
        ]
        messages = [{"role": "user", "content": content}]
        replies: list[str] = []
        prompt_tokens = completion_tokens = asked = 0
        while len(replies) < request.samples:
            wanted = min(request.samples - len(replies), self._most or request.samples)
            try:
                found = await self._ask(messages, wanted)
            except PhotoError as error:
                if not replies:
                    return error
                break  # what has been paid for is worth having
            choices, usage, requests = found
            asked += requests
            if len(choices) < wanted:
                self._most = max(1, len(choices))
            replies += choices
            prompt_tokens += usage[0]
            completion_tokens += usage[1]
            if not choices:
                break
        return Completion(tuple(replies[: request.samples]), prompt_tokens, completion_tokens, asked)

    async def _ask(self, messages: list[dict], samples: int) -> tuple[list[str], tuple[int, int], int]:
        """Replies, tokens of prompt and replies, and requests that it took. Raises PhotoError, and UsageError."""
        requests = 0
        for attempt in range(MALFORMED_RETRIES + 2):
            try:
                async with self._places, self._pace:
                    if self._stopped:
                        raise self._stopped
                    limit = self._limit
                    # chat.completions.create looks through every message for files: as long as all the rest takes
                    response = await self._client.post(
                        "/chat/completions",
                        cast_to=httpx2.Response,
                        body={"messages": messages, "n": samples, **self._common, **limit},
                    )
                requests += 1 + int(response.request.headers.get(_RETRY, 0))
                answer = _read(response.json())
            except openai.APIStatusError as error:
                if "max_tokens" in limit and "max_completion_tokens" in str(error.message):
                    self._limit = {"max_completion_tokens": limit["max_tokens"]}
                    continue  # newer models of OpenAI's want it so
                if samples > 1 and error.status_code in (400, 422) and _about_n(error):
                    self._most = 1
                    return await self._ask(messages, 1)
                raise self._failure(error) from None
            except openai.APIConnectionError as error:  # time-outs with them, after all retries
                raise self._unanswered(f"{type(error).__name__}: {error.__cause__ or error}") from None
            except (ValueError, TypeError) as error:  # half a body, HTML, another protocol
                if attempt >= MALFORMED_RETRIES:
                    raise self._unanswered(f"its answer is no chat completion ({error})") from None
                await asyncio.sleep(0.2 * 2**attempt)
                continue
            self._failed = 0
            return *answer, requests
        raise self._unanswered("it refuses what it is asked")

    def _failure(self, error: openai.APIStatusError) -> PhotoError:
        """Raises UsageError where the next photo will fare no better."""
        status, said = error.status_code, self._said(error)
        name = f"--generator-endpoint {self._options.endpoint}"
        if status in (401, 403):
            which = OPENAI_KEY if self._options.host == OPENAI_HOST else KEY
            had = "refuses the key" if self._key else "wants a key"
            raise UsageError(f"{name}: {had} (status {status}{said}); put it into the environment ({which})")
        if status in (301, 302, 303, 307, 308, 404, 405):
            raise UsageError(
                f"{name}: has no chat completions, or no model {self._options.model} (status {status}{said})"
            )
        if getattr(error, "code", None) == "insufficient_quota":
            raise UsageError(f"{name}: its quota is used up ({said[2:]}); run the same command again to go on")
        if status == 413:
            return PhotoError(
                "refused",
                f"the picture is too large for it; --generator-image-px {self._options.image_px} makes it smaller",
            )
        if status == 429 or status >= 500:
            return self._unanswered(f"status {status}{said}")
        return PhotoError("refused", f"status {status}{said}")

    def _unanswered(self, reason: str) -> PhotoError:
        """Raises UsageError after too many."""
        self._failed += 1
        if self._failed >= FAILURES:
            raise UsageError(
                f"--generator-endpoint {self._options.endpoint}: did not answer {self._failed} requests in a row ({self._hidden(reason)}); "
                "put it right and run the same command again to go on"
            )
        return PhotoError("endpoint", self._hidden(reason))

    def _said(self, error: openai.APIStatusError) -> str:
        body = error.body
        message = body.get("message") if isinstance(body, dict) else None
        return f": {self._hidden(str(message))}" if message else ""

    def _hidden(self, text: str) -> str:
        text = " ".join(text.split())[:200]
        return text.replace(self._key, "…") if self._key else text


def _about_n(error: openai.APIStatusError) -> bool:
    body = error.body if isinstance(error.body, dict) else {}
    said = str(body.get("message", "")).lower()
    return body.get("param") == "n" or "completion choice" in said or "`n`" in said or "'n'" in said


def _read(body: object) -> tuple[list[str], tuple[int, int]]:
    """Replies and tokens. Raises ValueError."""
    choices = body.get("choices") if isinstance(body, dict) else None
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
        raise ValueError("it has no choices")
    texts = []
    for choice in choices:
        message = choice.get("message")
        if not isinstance(message, dict):
            raise ValueError("a choice has no message")
        content = message.get("content")
        if isinstance(content, list):
            content = "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
        texts.append(content if isinstance(content, str) else "")
    usage = body.get("usage") if isinstance(body.get("usage"), dict) else {}
    tokens = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
    return texts, tuple(n if isinstance(n, int) and not isinstance(n, bool) and n >= 0 else 0 for n in tokens)


async def _bound(response: httpx2.Response) -> None:
    """Its answer ends at LONGEST bytes."""
    response.stream = _LimitedStream(response.stream)


class _LimitedStream(httpx2.AsyncByteStream):
    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for piece in self._stream:
            size += len(piece)
            if size > LONGEST:
                raise httpx2.ReadError(f"an answer of more than {LONGEST >> 20} MB")
            yield piece

    async def aclose(self) -> None:
        await self._stream.aclose()
