"""What GeoRanker asks about a photo and a candidate, as chat messages.

Templates are data: the parts of the one user message, in order. Two of them:

``georanker``      the released code's, byte for byte, so that released adapters work. The paper (§3.2) writes the pair as
                   ``{query image} How far is this place from latitude: {lat}, longitude: {lon}, {text}, {candidate image}?
                   Negative examples: {negatives}.``: there the candidate's image comes before the ``?``, after a comma, and
                   a full stop ends the prompt
``shared_prefix``  ours: what a photo's candidates have in common, the negatives and its own image, comes first, so that a
                   model reads it once for all of them. The common part ends with an image, whose closing token no text
                   can merge with
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

QUERY, CANDIDATE = "query", "candidate"
"""The two images of a pair."""


@dataclass(frozen=True)
class PromptPlace:
    """A candidate, or a negative, as a prompt tells of it."""

    lat: float
    lon: float
    text: str | None = None
    """Its place in words (``place_words``); None for a generated candidate, of which nothing but coordinates is known."""


@dataclass(frozen=True)
class Template:
    name: str
    retrieved: tuple[str, ...]
    """Parts of the message about a candidate with words and an image: QUERY, CANDIDATE, or text to be filled in."""
    generated: tuple[str, ...]
    """The same about a candidate that is but coordinates."""
    common: int
    """How many parts, from the first on, are the same for all candidates of a photo."""


_QUESTION = "How far is this place from latitude: {lat}, longitude: {lon}"
_NEGATIVES = "Negative examples: {negatives}"

TEMPLATES = {
    template.name: template
    for template in (
        Template(
            "georanker",
            retrieved=(QUERY, _QUESTION + ", {text}?", CANDIDATE, _NEGATIVES),
            generated=(QUERY, _QUESTION + "?", _NEGATIVES),
            common=1,
        ),
        Template(
            "shared_prefix",
            retrieved=(_NEGATIVES, QUERY, _QUESTION + ", {text}?", CANDIDATE),
            generated=(_NEGATIVES, QUERY, _QUESTION + "?"),
            common=2,
        ),
    )
}


def place_words(city: str | None, region: str | None, country: str | None) -> str:
    """As the released code joins them: what there is, by single spaces; empty where there is nothing."""
    return " ".join(name for name in (city, region, country) if name)


def messages(template: Template, candidate: PromptPlace, negatives: Sequence[PromptPlace]) -> list[dict]:
    """One user message for ``apply_chat_template``: its images are, in order, those of ``images``.

    Coordinates are written in Python's shortest form, unrounded.
    """
    told = "; ".join(f"latitude: {place.lat}, longitude: {place.lon}, {place.text or ''}" for place in negatives)
    values = {"lat": candidate.lat, "lon": candidate.lon, "text": candidate.text, "negatives": told}
    content = [
        {"type": "image"} if part in (QUERY, CANDIDATE) else {"type": "text", "text": part.format(**values)}
        for part in _parts(template, candidate)
    ]
    return [{"role": "user", "content": content}]


def images(template: Template, candidate: PromptPlace) -> list[str]:
    """Which images the message shows, in order: QUERY, CANDIDATE."""
    return [part for part in _parts(template, candidate) if part in (QUERY, CANDIDATE)]


def _parts(template: Template, candidate: PromptPlace) -> Iterable[str]:
    return template.generated if candidate.text is None else template.retrieved
