"""Replies on storage, each under what was asked: a run that is resumed, or repeated with another chooser, asks nobody again."""

import hashlib
import json
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict

from geoloc.candidates.engine import Completion, Engine, Request
from geoloc.candidates.options import Generation
from geoloc.errors import PhotoError, UsageError
from geoloc.storage import Folder

CARD = "cache.json"
_AT_ONCE = 32
LAST_REPLIES_S = 60
"""That are waited for where the work is stopped."""


class Cached:
    """An engine before which a cache is asked."""

    def __init__(self, engine: Engine, folder: Folder, generation: Generation, run: str) -> None:
        """``run`` is whoever pays: what it has paid for once is its own when it is cut off and goes on.

        Raises UsageError where the folder holds another model's replies.
        """
        self._engine, self._folder, self._run = engine, folder, run
        model = generation.engine.model
        self._asked = {"model": model, "sampling": asdict(generation.sampling)}
        self._pool = ThreadPoolExecutor(_AT_ONCE)
        self._quiet, self._busy = threading.Condition(), 0
        try:
            card = json.loads(folder.read(CARD))
        except FileNotFoundError:
            card = {"model": model}
            folder.write(CARD, json.dumps(card).encode())
        except ValueError:
            card = {}
        if not isinstance(card, dict) or card.get("model") != model:
            there = card.get("model") if isinstance(card, dict) else None
            raise UsageError(
                f"--reply-cache {folder.uri}: holds replies of {there or 'something else'}, not of {model}; name another folder"
            )

    def complete(self, requests: Sequence[Request]) -> Iterator[tuple[int, Completion | PhotoError]]:
        """As geoloc.candidates.engine.Engine. A reply is on storage before it is handed on."""
        with self._quiet:
            self._busy += 1
        try:
            yield from self._complete(requests)
        except UsageError:
            self._done()
            with self._quiet:  # whoever runs this is stopped by it: others' replies are stored first
                self._quiet.wait_for(lambda: not self._busy, LAST_REPLIES_S)
            raise
        self._done()

    def _done(self) -> None:
        with self._quiet:
            self._busy -= 1
            self._quiet.notify_all()

    def _complete(self, requests: Sequence[Request]) -> Iterator[tuple[int, Completion | PhotoError]]:
        names = [self._name(request) for request in requests]
        missing = []
        for number, kept in enumerate(self._pool.map(self._read, names, requests)):
            if kept:
                yield number, kept
            else:
                missing.append(number)
        stored: list[tuple[int, Completion, Future]] = []
        try:
            for number, answer in self._engine.complete([requests[number] for number in missing]):
                number = missing[number]
                if isinstance(answer, PhotoError) or not answer.replies:
                    yield number, answer
                else:
                    entry = asdict(answer) | {"run": self._run, "photo": requests[number].photo}
                    stored.append((number, answer, self._pool.submit(self._write, names[number], entry)))
        finally:
            for _, _, written in stored:
                written.result()
        yield from ((number, answer) for number, answer, _ in stored)

    def _name(self, request: Request) -> str:
        image = hashlib.blake2b(request.image, digest_size=16).hexdigest()
        asked = self._asked | {"text": request.text, "samples": request.samples, "image": image}
        digest = hashlib.blake2b(json.dumps(asked, sort_keys=True).encode(), digest_size=16).hexdigest()
        return f"{digest[:2]}/{digest}.json"

    def _read(self, name: str, request: Request) -> Completion | None:
        try:
            entry = json.loads(self._folder.read(name))
            own = (entry.pop("run"), entry.pop("photo")) == (self._run, request.photo)
            return Completion(**entry | {"replies": tuple(map(str, entry["replies"])), "paid": own})
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError, AttributeError):
            return None  # it was damaged: asked for anew

    def _write(self, name: str, entry: dict) -> None:
        self._folder.write(name, json.dumps(entry).encode())
