"""Where generated candidates come from, as plain data: whom to ask, what, about which photos, and at what cost. Without torch."""

import dataclasses
import hashlib
import os
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

from pydantic import SecretStr

from geoloc.candidates.prompts import prompt
from geoloc.errors import UsageError
from geoloc.storage import Folder, S3Options, is_s3

KEY = "GEOLOC_GENERATOR_KEY"
"""The environment variable that holds the key of an endpoint."""
OPENAI_HOST, OPENAI_KEY = "api.openai.com", "OPENAI_API_KEY"
"""The same, where it is OpenAI's own: its key goes nowhere else."""


@dataclass(frozen=True)
class EngineOptions:
    kind: Literal["endpoint", "transformers", "vllm", "published"] = "endpoint"
    """``endpoint``: a server that speaks OpenAI's protocol; ``transformers`` and ``vllm``: a model in this job's own processes;
    ``published``: a table of a paper's candidates in a model's place."""
    model: str | None = None
    """As the endpoint calls it; or a folder that every node has, or a name on the model hub."""
    endpoint: str | None = None
    """Base URL, such as https://api.openai.com/v1. Photos are sent there."""
    replies: str | None = None
    """The published table: .csv with zs_gps_lis (GeoRanker) or zs_0_latitude … (G3)."""
    concurrency: int = 64
    """Requests under way at once."""
    requests_per_minute: float | None = None
    timeout_s: float = 120
    """For an answer."""
    image_px: int = 512
    """Longest side of the JPEG that is looked at."""
    batch_size: int = 8
    """Photos that a model in this job's own processes takes at once."""

    def check(self) -> None:
        """Raises UsageError."""
        needed = {"endpoint": "endpoint", "published": "replies"}.get(self.kind, "model")
        for name in dict.fromkeys([needed, *(["model"] if self.kind == "endpoint" else [])]):
            if not getattr(self, name):
                raise UsageError(f"--generator-{name}: --generator {self.kind} needs it")
        if self.endpoint is not None:
            self._check_url(self.endpoint)
        for name in ("concurrency", "requests_per_minute", "timeout_s", "image_px", "batch_size"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise UsageError(f"--generator-{name.replace('_', '-')} {value}: must be above 0")

    def _check_url(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(f"--generator-endpoint {url}: is no http:// or https:// address")
        if parts.username or parts.password or parts.query:
            raise UsageError(
                f"--generator-endpoint {parts.scheme}://{parts.hostname}…: must not hold a key; put it into the environment ({KEY})"
            )

    @property
    def host(self) -> str | None:
        return urlsplit(self.endpoint).hostname if self.endpoint else None

    def key(self) -> SecretStr | None:
        """From this process's environment."""
        found = os.environ.get(KEY) or (os.environ.get(OPENAI_KEY) if self.host == OPENAI_HOST else None)
        return SecretStr(found) if found else None

    def describe(self) -> str:
        """Who it is that looks at photos, and where they go."""
        if self.kind == "endpoint":
            return f"{self.model} at {self.endpoint}; photos are sent there, as JPEGs of at most {self.image_px} pixels a side"
        if self.kind == "published":
            return f"the published candidates in {self.replies}"
        return f"{self.model} in this job's own processes ({self.kind})"


@dataclass(frozen=True)
class Sampling:
    temperature: float | None = 1.2
    """G3's and GeoRanker's; None for the model's own."""
    top_p: float | None = None
    """None for the model's own."""
    max_tokens: int = 200
    """Of a reply."""
    seed: int | None = None
    """Sent where it is given; whether equal seeds make equal replies is the engine's affair."""

    def check(self) -> None:
        """Raises UsageError."""
        if self.temperature is not None and not 0 <= self.temperature <= 2:
            raise UsageError(f"--generator-temperature {self.temperature:g}: must be from 0 to 2")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise UsageError(f"--generator-top-p {self.top_p:g}: must be above 0 and at most 1")
        if self.max_tokens < 1:
            raise UsageError(f"--generator-max-tokens {self.max_tokens}: must be at least 1")


@dataclass(frozen=True)
class Gate:
    """Which photos the model is asked about: those that pass all that is set. The others keep what retrieval says."""

    beyond_km: float | None = None
    """Those whose five most similar candidates lie farther apart."""
    below_confidence: float | None = None
    """Those that retrieval is less sure of."""
    calibration: str | None = None
    """calibration.json of the retrieving recipe, which makes that the probability of an error below 25 km."""
    share: float = 1.0
    """Of the photos, drawn by their ids: a trial."""

    def check(self) -> None:
        """Raises UsageError."""
        if (self.beyond_km or 0) < 0:
            raise UsageError(f"--generate-beyond-km {self.beyond_km:g}: must not be below 0")
        if self.below_confidence is not None and not 0 < self.below_confidence <= 1:
            raise UsageError(f"--generate-below-confidence {self.below_confidence:g}: must be above 0 and at most 1")
        if self.calibration and self.below_confidence is None:
            raise UsageError(f"--generate-calibration {self.calibration}: is for --generate-below-confidence")
        if not 0 <= self.share <= 1:
            raise UsageError(f"--generate-share {self.share:g}: must be from 0 to 1")

    def draws(self, photo: int) -> bool:
        """Whether a photo is in the share: always the same ones, and those of a smaller share with them."""
        number = int.from_bytes(hashlib.blake2b(photo.to_bytes(8, "little", signed=True), digest_size=8).digest())
        return number < self.share * 2**64


@dataclass(frozen=True)
class Prices:
    """Of tokens, in any currency, a million each."""

    prompt: float = 0.0
    completion: float = 0.0

    def of(self, prompt_tokens: float, completion_tokens: float) -> float:
        return (prompt_tokens * self.prompt + completion_tokens * self.completion) / 1e6

    @property
    def known(self) -> bool:
        return bool(self.prompt or self.completion)


@dataclass(frozen=True)
class Generation:
    prompts: tuple[str, ...] = ("zero-shot",)
    """What a photo's model is asked (geoloc.candidates.prompts)."""
    candidates: int = 3
    """Replies to each prompt."""
    merge_within_km: float = 0.1
    """A generated candidate this near to one before it is the same, and counts as a vote for it."""
    keep_reasons: bool = False
    """What the model says of a candidate beside its place goes into the results, as text."""
    engine: EngineOptions = field(default_factory=EngineOptions)
    sampling: Sampling = field(default_factory=Sampling)
    gate: Gate = field(default_factory=Gate)
    cache: str | None = None
    """Folder of replies, so that none is paid for twice; None for one in the run's own folder."""
    prices: Prices = field(default_factory=Prices)
    budget: float | None = None
    """The run stops before it has spent more."""

    def check(self) -> None:
        """Raises UsageError for what can be told without asking anybody."""
        if not self.prompts:
            raise UsageError("--prompts: names none")
        if len(set(self.prompts)) < len(self.prompts):
            raise UsageError(
                f"--prompts {' '.join(self.prompts)}: names one twice; --generated-candidates asks more often"
            )
        for name in self.prompts:
            prompt(name)
        if not 1 <= self.candidates <= 128:
            raise UsageError(f"--generated-candidates {self.candidates}: must be from 1 to 128")
        if self.merge_within_km < 0:
            raise UsageError(f"--merge-candidates-within-km {self.merge_within_km:g}: must not be below 0")
        if min(self.prices.prompt, self.prices.completion) < 0:
            raise UsageError("--generator-prices: must not be below 0")
        if self.budget is not None:
            if self.budget <= 0:
                raise UsageError(f"--generation-budget {self.budget:g}: must be above 0")
            if not self.prices.known:
                raise UsageError(f"--generation-budget {self.budget:g}: needs --generator-prices")
        for part in (self.engine, self.sampling, self.gate):
            part.check()

    @property
    def references(self) -> int:
        """Similar ones, and as many dissimilar ones, that its prompts tell."""
        return max(prompt(name).references for name in self.prompts)

    @property
    def most(self) -> int:
        """Candidates of a photo."""
        return self.candidates * len(self.prompts)

    def settings(self, s3: S3Options) -> dict:
        """What of it decides results: a run goes on only with the same."""
        told = {name: getattr(self, name) for name in ("prompts", "candidates", "merge_within_km", "keep_reasons")}
        told |= {"engine": self.engine.kind, "model": self.engine.model, "image_px": self.engine.image_px}
        if self.engine.replies:
            told["replies"] = hashlib.blake2b(read_table(self.engine.replies, s3), digest_size=8).hexdigest()
        return told | {"sampling": dataclasses.asdict(self.sampling), "gate": dataclasses.asdict(self.gate)}


def read_table(name: str, s3: S3Options) -> bytes:
    """Of published candidates. Raises UsageError."""
    parent, _, file = name.rpartition("/")
    try:
        return Folder(parent or ("/" if name.startswith("/") else "."), s3).read(file)
    except OSError as error:
        where = "object" if is_s3(name) else "file"
        raise UsageError(f"--generator-replies {name}: there is no such {where}, or it cannot be read") from error
