"""What GeoRanker asks about a photo and a candidate, as chat messages.

Templates are data: the parts of the one user message, in order. Two of them:

``georanker``      the released code's, byte for byte, so that released adapters work. The paper (§3.2) writes the pair as
                   ``{query image} How far is this place from latitude: {lat}, longitude: {lon}, {text}, {candidate image}?
                   Negative examples: {negatives}.``: there the candidate's image comes before the ``?``, after a comma, and
                   a full stop ends the prompt
``shared_prefix``  ours: what a photo's candidates have in common, the negatives and its own image, comes first, so that a
                   model reads it once for all of them

What is not known of a candidate, words or image, is left out, and so are negatives where there are none: a generated
candidate, which is but coordinates, is asked about as the released code does.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

Item = TypeVar("Item")
QUERY, CANDIDATE = "query", "candidate"
"""The two images of a pair."""
_QUESTION, _NEGATIVES = "question", "negatives"


@dataclass(frozen=True)
class PromptPlace:
    """A candidate, or a negative, as a prompt tells of it."""

    lat: float
    lon: float
    text: str | None = None
    """Its place in words (``place_words``); None where they are not told."""


TEMPLATES = {
    "georanker": (QUERY, _QUESTION, CANDIDATE, _NEGATIVES),
    "shared_prefix": (_NEGATIVES, QUERY, _QUESTION, CANDIDATE),
}
"""All parts up to QUERY are common to a photo's candidates, those after it are not (``georanker``'s negatives would be,
if they came before the candidate). The common part ends with an image, whose closing token no text can merge with."""


_EVALUATED_FIELDS = {6: (1, 3, 5)}
"""Of [neighbourhood, city, county, state, region, country], what the released evaluation tells."""


def place_words(city: str | None, region: str | None, country: str | None) -> str:
    """As the released code joins them: what there is, by single spaces; empty where there is nothing."""
    return " ".join(name for name in (city, region, country) if name)


def reference_words(template: str, texts: Sequence[str | None]) -> str:
    """Of a training set's reference, whose ``texts`` are as its table has them.

    Under ``georanker`` all of them as they stand, an empty one as a doubled space: what the released adapter was trained
    on. Otherwise city, region and country, as ``place_words``: what both are asked with later.

    >>> reference_words("georanker", ["Marais", "Paris", "", "Ile-de-France", "", "France"])
    'Marais Paris  Ile-de-France  France'
    >>> reference_words("shared_prefix", ["Marais", "Paris", "", "Ile-de-France", "", "France"])
    'Paris Ile-de-France France'
    """
    if template == "georanker":
        return " ".join(text or "" for text in texts)
    fields = _EVALUATED_FIELDS.get(len(texts), range(len(texts)))
    return " ".join(texts[number] for number in fields if texts[number])


def negatives_of(template: str, retrieved: Sequence[Item], ranked: int, count: int) -> list[Item]:
    """Which of the places retrieved for a photo, most similar first, its prompts tell as negatives: the last ``count``.

    Under ``georanker`` of all, as released, even of the first ``ranked`` ones; otherwise of those that are not ranked.

    >>> negatives_of("georanker", "abcdef", 4, 3), negatives_of("shared_prefix", "abcdef", 4, 3)
    (['d', 'e', 'f'], ['e', 'f'])
    """
    others = retrieved if template == "georanker" else retrieved[ranked:]
    return list(others[max(0, len(others) - count) :])


def messages(
    template: str, candidate: PromptPlace, negatives: Sequence[PromptPlace], has_image: bool = True
) -> list[dict]:
    """One user message for ``apply_chat_template``: its images are the query's and, with ``has_image``, the candidate's.

    Coordinates are written in Python's shortest form, unrounded.
    """
    listed = "; ".join(f"latitude: {place.lat}, longitude: {place.lon}, {_plain(place.text)}" for place in negatives)
    words = "" if candidate.text is None else f", {_plain(candidate.text)}"
    image = {"type": "image"}
    parts = {
        QUERY: image,
        _QUESTION: _text(f"How far is this place from latitude: {candidate.lat}, longitude: {candidate.lon}{words}?"),
        CANDIDATE: image if has_image else None,
        _NEGATIVES: _text(f"Negative examples: {listed}") if negatives else None,
    }
    return [{"role": "user", "content": [parts[part] for part in TEMPLATES[template] if parts[part]]}]


def _text(text: str) -> dict:
    return {"type": "text", "text": text}


def _plain(words: str | None) -> str:
    """Words that a tokenizer cannot take for its special tokens, whatever table they came from."""
    return (words or "").replace("<|", "< |")
