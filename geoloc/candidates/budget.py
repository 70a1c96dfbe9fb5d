"""What replies cost: told before, counted on the way, and never more than was allowed."""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from geoloc.candidates.engine import Completion, Engine, Request
from geoloc.candidates.options import Generation
from geoloc.candidates.prompts import prompt
from geoloc.errors import PhotoError, UsageError

CHARACTERS_A_TOKEN = 3.5
"""Of a prompt, about: coordinates take more tokens than words."""
PIXELS_A_TOKEN = 28 * 28
"""Of a picture, as Qwen2-VL counts; other models count otherwise."""
_TYPICAL = (48.856613, 2.352222)
AT_ONCE = 16
"""Requests that are sent before the budget is looked at again, a thread."""
KNOWN = 16
"""Requests whose mean is taken for what the next will cost; before that it is what they may cost at most."""


@dataclass
class Spending:
    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def add(self, other: "Spending | Completion") -> None:
        self.requests += other.requests
        self.prompt_tokens += other.prompt_tokens
        self.completion_tokens += other.completion_tokens


def expected_tokens(text: str, samples: int, generation: Generation) -> tuple[float, float]:
    """Of a request and of its replies, at most, about."""
    pixels = generation.engine.image_px**2
    return len(text) / CHARACTERS_A_TOKEN + pixels / PIXELS_A_TOKEN, samples * generation.sampling.max_tokens


@dataclass(frozen=True)
class Estimate:
    """Of a thousand photos that are asked about."""

    requests: float
    prompt_tokens: float
    completion_tokens: float

    @classmethod
    def beforehand(cls, generation: Generation) -> "Estimate":
        """By the lengths of prompts, pictures and replies, at most, about."""
        requests = prompt_tokens = completion_tokens = 0.0
        for name in generation.prompts:
            one = prompt(name)
            samples = 1 if one.lists else generation.candidates
            places = [_TYPICAL] * (one.references or 20)
            tokens = expected_tokens(one.write(places, places, places), samples, generation)
            requests, prompt_tokens = requests + 1000, prompt_tokens + 1000 * tokens[0]
            completion_tokens += 1000 * tokens[1]
        return cls(requests, prompt_tokens, completion_tokens)

    @classmethod
    def measured(cls, spent: Spending, photos: int) -> "Estimate":
        """By photos that have been asked about."""
        return cls(*(1000 * value / photos for value in (spent.requests, spent.prompt_tokens, spent.completion_tokens)))

    def describe(self, generation: Generation, photos: int) -> str:
        """Of so many photos, in words."""
        times = photos / 1000
        text = f"{self.requests * times:,.0f} requests, {self.prompt_tokens * times:,.0f} tokens of prompts and "
        text += f"{self.completion_tokens * times:,.0f} of replies"
        if not generation.prices.known:
            return f"{text}; --generator-prices tells what that costs"
        cost = generation.prices.of(self.prompt_tokens, self.completion_tokens)
        return f"{text}: {cost * times:,.2f}, {cost:,.2f} a thousand photos"


class Budgeted:
    """An engine that is asked as long as there is money."""

    def __init__(self, engine: Engine, generation: Generation, before: Spending) -> None:
        """``before``: what the run has spent already."""
        self._engine, self._generation = engine, generation
        self._spent, self._own, self._reserved = before, Spending(), 0.0
        self._lock = threading.Lock()

    def complete(self, requests: Sequence[Request]) -> Iterator[tuple[int, Completion | PhotoError]]:
        """As geoloc.candidates.engine.Engine. Raises UsageError where it would cost more than there is."""
        for start in range(0, len(requests), AT_ONCE):
            some = requests[start : start + AT_ONCE]
            expected = self._reserve(some)
            try:
                for number, answer in self._engine.complete(some):
                    if isinstance(answer, Completion):
                        self.count(answer)
                        self._own.add(answer)
                    yield start + number, answer
            finally:
                with self._lock:
                    self._reserved -= expected

    def count(self, completion: Completion) -> None:
        """What has been paid for."""
        with self._lock:
            self._spent.add(completion)

    @property
    def spent(self) -> float:
        return self._generation.prices.of(self._spent.prompt_tokens, self._spent.completion_tokens)

    def _reserve(self, requests: Sequence[Request]) -> float:
        prices, budget = self._generation.prices, self._generation.budget
        with self._lock:
            if self._own.requests >= KNOWN:
                mean = prices.of(self._own.prompt_tokens, self._own.completion_tokens) / self._own.requests
                expected = mean * len(requests)
            else:
                told = [expected_tokens(request.text, request.samples, self._generation) for request in requests]
                expected = sum(prices.of(*tokens) for tokens in told)
            if self.spent + self._reserved + expected > budget:
                raise UsageError(
                    f"--generation-budget {budget:g}: is used up ({self.spent:.4g} are spent, and the next {len(requests)} requests may "
                    f"cost {expected:.2g}); run the same command with more to go on"
                )
            self._reserved += expected
        return expected
