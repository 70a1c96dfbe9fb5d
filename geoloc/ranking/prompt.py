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


def place_words(city: str | None, region: str | None, country: str | None) -> str:
    """As the released code joins them: what there is, by single spaces; empty where there is nothing."""
    return " ".join(name for name in (city, region, country) if name)


def messages(
    template: str, candidate: PromptPlace, negatives: Sequence[PromptPlace], has_image: bool = True
) -> list[dict]:
    """One user message for ``apply_chat_template``: its images are the query's and, with ``has_image``, the candidate's.

    Coordinates are written in Python's shortest form, unrounded.
    """
    told = "; ".join(f"latitude: {place.lat}, longitude: {place.lon}, {_plain(place.text)}" for place in negatives)
    words = "" if candidate.text is None else f", {_plain(candidate.text)}"
    image = {"type": "image"}
    parts = {
        QUERY: image,
        _QUESTION: _text(f"How far is this place from latitude: {candidate.lat}, longitude: {candidate.lon}{words}?"),
        CANDIDATE: image if has_image else None,
        _NEGATIVES: _text(f"Negative examples: {told}") if negatives else None,
    }
    return [{"role": "user", "content": [parts[part] for part in TEMPLATES[template] if parts[part]]}]


def _text(text: str) -> dict:
    return {"type": "text", "text": text}


def _plain(words: str | None) -> str:
    """Words that a tokenizer cannot take for its special tokens, whatever table they came from."""
    return (words or "").replace("<|", "< |")
