"""What a vision-language model is asked about a photo. Prompts are data: a text, and how many reference places it tells.

``zero-shot``      G3's and GeoRanker's, byte for byte: their code indents its lines, and so does what the model was sent
``references-N``   G3's, with the coordinates of the N most and the N least similar references; N is 5, 10 and 15 there (geo-
                   diversification, G3 §3.3). References are told as its code for an API told them, each in quotes
``img2loc``        Img2Loc's, byte for byte, with 16 and 16 (``img2loc-zero-shot``: with none)
``choose``         GeoRanker's baseline "Prompting" (§4.5), whose wording is not published: which of the photo's candidates is it?
``reasoned``       ours: coordinates, and what in the photo speaks for them
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from geoloc.errors import UsageError

Point = tuple[float, float]
"""Latitude and longitude, degrees."""

_G3_LINE, _IMG2LOC_LINE = "\n" + " " * 16, "\n" + " " * 20
_FORM = 'Your answer should be in the following JSON format without any other information: {"latitude": float,"longitude": float}.'
ZERO_SHOT = _G3_LINE.join(
    [
        "Suppose you are an expert in geo-localization, you have the ability to give two number GPS coordination given an image.",
        "Please give me the location of the given image.",
        "Remember, you must have an answer, just output your best guess, don't answer me that you can't give a location.",
        _FORM,
        _FORM,
    ]
)
REFERENCES = _G3_LINE.join(
    [
        "Suppose you are an expert in geo-localization, Please analyze this image and give me a guess of the location.",
        "Your answer must be to the coordinates level in (latitude, longitude) format.",
        "For your reference, these are coordinates of some similar images: {similar}, and these are coordinates of some dissimilar "
        "images: {dissimilar}.",
        "Remember, you must have an answer, just output your best guess, don't answer me that you can't give an location.",
        _FORM,
        _FORM,
        "",
    ]
)
IMG2LOC = _IMG2LOC_LINE.join(
    [
        "Suppose you are an expert in geo-localization. Please analyze this image and give me a guess of the location. ",
        "Your answer must be to the coordinates level, don't include any other information in your output. ",
        "Ignore that you can't give a exact answer, give me some coordinate no matter how. ",
        "For your reference, these are locations of some similar images {similar} and these are locations of some dissimilar images "
        "{dissimilar} that should be far away.",
    ]
)
IMG2LOC_ZERO_SHOT = (
    "Suppose you are an expert in geo-localization. Please analyze this image and give me a guess of the location. Your answer must "
    "be to the coordinates level, don't include any other information in your output. You can give me a guessed anwser."
)
CHOOSE = """Where was this photo taken? It was taken at or near one of these places:
{places}
It was not taken near these: {dissimilar}.
Answer with the number of the place that is nearest, in the following JSON format without any other information: {"choice": integer}."""
REASONED = (
    "Where was this photo taken? Look for writing, buildings, plants, roads, vehicles, light and landscape. Answer with your best "
    'guess, in the following JSON format without any other information: {"reason": string, "latitude": float, "longitude": float}.'
)


def _quoted(points: Sequence[Point]) -> str:
    return str([f"[{lat}, {lon}]" for lat, lon in points])


def _spaced(points: Sequence[Point]) -> str:
    return " ".join(f"({lat}, {lon})" for lat, lon in points)


@dataclass(frozen=True)
class Prompt:
    name: str
    template: str
    references: int = 0
    """Of the most similar ones that it tells, and as many of the least similar."""
    lists: bool = False
    """It is about the candidates that there are, and is asked after all others."""
    points: Callable[[Sequence[Point]], str] = _quoted
    """How coordinates are written."""

    def write(
        self, similar: Sequence[Point] = (), dissimilar: Sequence[Point] = (), places: Sequence[Point] = ()
    ) -> str:
        """The text, with the first ``references`` of each; ``places`` are all listed.

        >>> prompt("references-1").write([(48.85, 2.35)], [(-33.9, 151.2)]).splitlines()[2].strip()[:76]
        "For your reference, these are coordinates of some similar images: ['[48.85, "
        """
        listed = "\n".join(f"{number}. {lat}, {lon}" for number, (lat, lon) in enumerate(places, 1))
        told = {
            "similar": self.points(similar[: self.references]),
            "dissimilar": self.points(dissimilar[: self.references]),
        }
        text = self.template
        for name, value in (told | {"places": listed}).items():
            text = text.replace(f"{{{name}}}", value)
        return text


_NAMED = (
    Prompt("zero-shot", ZERO_SHOT),
    Prompt("img2loc", IMG2LOC, 16, points=_spaced),
    Prompt("img2loc-zero-shot", IMG2LOC_ZERO_SHOT),
    Prompt("choose", CHOOSE, 5, lists=True, points=_spaced),
    Prompt("reasoned", REASONED),
)
PROMPTS = {prompt.name: prompt for prompt in _NAMED}
_WITH_REFERENCES = re.compile(r"references-([1-9]\d{0,2})")


def prompt(name: str) -> Prompt:
    """Raises UsageError where there is none of that name."""
    if found := _WITH_REFERENCES.fullmatch(name):
        return Prompt(name, REFERENCES, int(found[1]))
    if name not in PROMPTS:
        raise UsageError(f"--prompts {name}: there is {', '.join(PROMPTS)}, and references-N for any number N")
    return PROMPTS[name]
