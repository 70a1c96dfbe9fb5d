"""What a vision-language model answers, read as a place: JSON first, then coordinates as people write them, then names.

What holds no valid coordinate is no candidate, and neither is (0, 0), which models, and the published parsers, give where they
know nothing. Whatever else a reply says is text: nothing in it is followed.

The published parsers take the first (G3) or the last (GeoRanker) two decimal fractions of a reply, whatever they are. Here:

- of several JSON objects the last, which is what a model that thinks aloud ends with; of a list the first, its best guess
- of several pairs in prose the first after the last word such as "answer" or "final", else the first
- latitude and longitude are told by labels and hemispheres; of bare pairs the first is the latitude, unless only the other way
  round is in range
"""

import itertools
import json
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from geoloc.geo.gazetteer import gazetteer

LONGEST = 20_000
"""Characters of a reply that are read: the last, where answers are."""
REASON = 2_000
"""Characters of a reason that are kept."""
MAX_TRIES = 64
"""Beginnings of JSON that are tried."""
MIN_DECIMALS = 2
"""Of one of two bare numbers, for them to be taken for coordinates."""


@dataclass(frozen=True)
class Answer:
    lat: float
    lon: float
    source: Literal["generated", "gazetteer"] = "generated"
    """``gazetteer``: the model named a city, and this is where it is."""


def parse(reply: str) -> Answer | None:
    """The place that a reply tells; None where it tells none.

    >>> parse('Sure! {"latitude": 48.8566, "longitude": 2.3522}')
    Answer(lat=48.8566, lon=2.3522, source='generated')
    >>> parse("33°51′31″S 151°12′34″E").lat.__round__(4)
    -33.8586
    >>> parse("Somewhere in Lyon, France").source
    'gazetteer'
    >>> parse("I cannot tell where this is.")
    """
    text = _cleaned(reply)
    found = _from_json(text) or _from_prose(text)
    if found:
        return Answer(*found)
    named = gazetteer().find(_named_in_json(text) or text)
    return Answer(*named, "gazetteer") if named else None


def choice(reply: str, count: int) -> int | None:
    """Of places numbered from 1, which one a reply chooses, from 0; None where it chooses none.

    >>> choice('{"choice": 3}', 5), choice("Number 2, I think.", 5), choice('{"choice": 9}', 5)
    (2, 1, None)
    """
    text = _cleaned(reply)
    told = [
        value for item in _json_values(text) if isinstance(item, dict) for key, value in item.items() if key == "choice"
    ]
    numbers = [str(value) for value in told] or re.findall(r"(?<![\d.,-])\d+(?![\d]|[.,]\d)", text)
    valid = [int(number) - 1 for number in numbers if number.isdecimal() and 1 <= int(number) <= count]
    return valid[-1] if told and valid else valid[0] if valid else None


def reason(reply: str) -> str | None:
    """What a reply says beside its place: its JSON's ``reason``, or its own words; None where there are none."""
    text = _cleaned(reply)
    told = [
        item["reason"] for item in _json_values(text) if isinstance(item, dict) and isinstance(item.get("reason"), str)
    ]
    said = told[-1] if told else re.sub(r"\{[^{}]*\}|```\w*", " ", text)
    said = " ".join(said.split())[:REASON]
    return said if re.search(r"[^\W\d]{2}", said) else None


# ---- characters

_SAME = str.maketrans(
    dict.fromkeys("º˚∘ᵒ", "°") | dict.fromkeys("′’‘´ʹ‵", "'") | dict.fromkeys("″“”„〃", '"') | dict.fromkeys("−﹣－‐‑", "-")
    | {"٫": ".", "،": ",", "、": ",", "\N{ZERO WIDTH SPACE}": None, "\N{LEFT-TO-RIGHT MARK}": None}
)  # fmt: skip
_THOUGHT = re.compile(r"<think(?:ing)?>.*?</think(?:ing)?>|\A.*</think(?:ing)?>", re.DOTALL)


def _cleaned(reply: str) -> str:
    """With one character for what is written in many ways, and without thoughts; nothing where it ends amid its thoughts."""
    text = unicodedata.normalize("NFKC", reply[-LONGEST:].translate(_SAME))
    text = "".join(str(unicodedata.decimal(c)) if c > "\x7f" and c.isdecimal() else c for c in text)
    text = re.sub(r"(?<![\d.])[–—]\s?(?=\d)", "-", _THOUGHT.sub(" ", text))
    if re.search(r"<think(?:ing)?>", text):
        return ""
    if not re.search(r"\d\.\d", text) and len(re.findall(_DECIMAL_COMMA, text)) > 1:
        text = re.sub(_DECIMAL_COMMA, r"\1.\2", text)
    return text


_DECIMAL_COMMA = r"(?<![\d,])(\d{1,3}),(\d{2,})(?!\d)"


# ---- JSON

_LAT = r"lat(?:itude|itud|itudine)?|breite(?:ngrad)?|纬度|緯度|широта|szerokość"
_LON = r"lon(?:g|gitude|gitud|gitudine)?|lng|l[äa]e?nge(?:ngrad)?|经度|経度|經度|долгота|długość"
_OBJECT = re.compile(r"(?:\[\s*)?\{")
_PAIRS = ("coordinates", "coordinate", "coords", "gps", "location", "latlng", "latlon", "lat_lon", "position", "answer")


def _json_values(text: str) -> Iterator[object]:
    decoder, at, tries = json.JSONDecoder(), 0, MAX_TRIES
    while tries and (found := _OBJECT.search(text, at)):
        tries -= 1
        try:
            value, at = decoder.raw_decode(text, found.start())
            yield value
        except (ValueError, RecursionError):
            at = found.start() + 1


def _from_json(text: str) -> tuple[float, float] | None:
    points = [next(_points(value), None) for value in _json_values(text)]
    return next((point for point in reversed(points) if point), None)


def _points(value: object, depth: int = 0) -> Iterator[tuple[float, float]]:
    if depth > 8:
        return
    if isinstance(value, dict):
        keys = {key.strip().lower(): item for key, item in value.items()}
        axes = [next((keys[key] for key in keys if re.fullmatch(axis, key)), None) for axis in (_LAT, _LON)]
        if None not in axes and (point := _valid(*(_number(axis) for axis in axes))):
            yield point
        for name in _PAIRS:
            if (point := _listed(keys.get(name), lon_first=keys.get("type") == "Point")) is not None:
                yield point
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _points(item, depth + 1)


def _listed(value: object, lon_first: bool) -> tuple[float, float] | None:
    if isinstance(value, str):
        return _from_prose(value)
    if isinstance(value, list) and len(value) in (2, 3):
        axes = [_number(item) for item in value[:2]]
        return _valid(*(axes[::-1] if lon_first else axes))
    return None


def _number(value: object) -> float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, float)):
        return float(value)
    if not isinstance(value, str):
        return None
    text = value.strip()
    if re.fullmatch(r"[-+]?\d{1,3},\d+", text):
        text = text.replace(",", ".")
    angle = _ANGLE.fullmatch(text)
    return _Angle.of(angle).value if angle else None


def _named_in_json(text: str) -> str | None:
    for item in _json_values(text):
        if isinstance(item, dict):
            keys = {key.lower(): value for key, value in item.items() if isinstance(value, str)}
            names = [keys.get("city") or keys.get("town"), keys.get("region") or keys.get("state"), keys.get("country")]
            if names[0] and (names[1] or names[2]):
                return ", ".join(name for name in names if name)
    return None


# ---- prose

_HEMISPHERES = {
    "N": r"N|north(?:ern)?|nord|norte|северной|с\.\s?ш\.",
    "S": r"S|south(?:ern)?|s[uü]d|sur|sul|южной|ю\.\s?ш\.",
    "E": r"E|east(?:ern)?|est|este|leste|ost|восточной|в\.\s?д\.",
    "W": r"W|west(?:ern)?|ouest|oeste|ovest|западной|з\.\s?д\.",
    "?": r"O",  # west in French and Spanish, east in German
}
_AFTER = "|".join(f"(?P<{'o' if side == '?' else side.lower()}>{words})" for side, words in _HEMISPHERES.items())
_BEFORE = "(?P<N1>北纬|北緯|N)|(?P<S1>南纬|南緯|S)|(?P<E1>东经|東経|東經|E)|(?P<W1>西经|西経|西經|W)"
_ANGLE = re.compile(
    rf"""
    (?:(?:(?P<lat>{_LAT})|(?P<lon>{_LON}))(?![a-z])["'`*|\s]*(?:\([^()]{{0,12}}\)\s*)?(?:[:=≈~]|is|ist|est|es)?["'`*~≈|\s]*)?
    (?<![\w.])(?P<before>(?:{_BEFORE})(?![a-z])[\s:]*)?
    (?P<sign>[-+](?:\s(?=\d))?)?(?<![\d.])(?P<deg>\d{{1,3}}(?:\.\d+)?)(?!\d)(?!\.\d)
    (?!\s*(?:km|m\b|mi\b|miles|ft|%|percent|°\s?[CF]\b|years))
    (?:\s*(?P<mark>[°度]|deg(?:rees)?\b|d(?=\d)))?
    (?:\s*(?P<min>\d{{1,2}}(?:\.\d+)?)\s*(?:'(?!')|m(?=\d|\b)))?
    (?:\s*(?P<sec>\d{{1,2}}(?:\.\d+)?)\s*(?:"|''|s\b))?
    (?(before)|(?:\s*(?:{_AFTER})(?![^\W\d_]))?)
    """,
    re.VERBOSE | re.IGNORECASE,
)
_BETWEEN = re.compile(
    r"""[\s,;/|&()\[\]'"`*°度]*(?:\n\s*[-•]|(?:and|und|et|y|e|и|和|by)\b)?[\s,;/|&()\[\]'"`*]*""", re.IGNORECASE
)
_FINAL = re.compile(
    r"final|answer|therefore|conclu|best guess|antwort|r[ée]ponse|respuesta|risposta|答案|回答|答え|ответ",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class _Angle:
    value: float | None
    """Degrees; None where it is no angle, or its hemisphere is not known."""
    axis: str | None
    """``lat`` or ``lon``, where it is told."""
    marked: bool
    """It says of itself that it is degrees."""
    decimals: int
    start: int
    end: int

    @classmethod
    def of(cls, match: re.Match) -> "_Angle":
        found = match.groupdict()
        side = next((name for name in ("n", "s", "e", "w", "o") if found[name] or found.get(f"{name.upper()}1")), None)
        minutes, seconds = (float(found[name] or 0) for name in ("min", "sec"))
        value = float(found["deg"]) + minutes / 60 + seconds / 3600
        if side in ("s", "w") or (found["sign"] or "").startswith("-"):
            value = -value if side not in ("n", "e") else value
        if side == "o" or minutes >= 60 or seconds >= 60 or (found["min"] and not found["mark"]):
            value = None
        axis = next((name for name in ("lat", "lon") if found[name]), None) or (
            side and ("lat" if side in "ns" else "lon")
        )
        decimals = len(found["deg"].partition(".")[2])
        return cls(value, axis, bool(axis or found["mark"]), decimals, match.start(), match.end())


def _from_prose(text: str) -> tuple[float, float] | None:
    angles = [_Angle.of(match) for match in _ANGLE.finditer(text)]
    found = [
        (one.start, point)
        for one, other in itertools.pairwise(angles)
        if _BETWEEN.fullmatch(text, one.end, other.start) and (point := _pair(text, one, other))
    ]
    markers = [match.end() for match in _FINAL.finditer(text)]
    for last in reversed(markers):
        if after := [point for start, point in found if start >= last]:
            return after[0]
    return found[0][1] if found else None


def _pair(text: str, one: _Angle, other: _Angle) -> tuple[float, float] | None:
    bracketed = re.search(r"[(\[]\s*$", text[: one.start]) and re.match(r"\s*[)\]]", text[other.end :])
    alone = not re.search(r"\w", text[: one.start] + text[other.end :])
    decimals = min(one.decimals, other.decimals) > 0 and max(one.decimals, other.decimals) >= MIN_DECIMALS
    if not (one.marked and other.marked) and not (bracketed or alone or decimals):
        return None
    if one.axis and one.axis == other.axis:
        return None
    told = one.axis or (other.axis and ("lon" if other.axis == "lat" else "lat"))
    values = (one.value, other.value) if told != "lon" else (other.value, one.value)
    return _valid(*values) or (None if told else _valid(*reversed(values)))


def _valid(lat: float | None, lon: float | None) -> tuple[float, float] | None:
    """None where it is no place; (0, 0) is what those say who know none."""
    if lat is None or lon is None or not (-90 <= lat <= 90 and -180 <= lon <= 180) or (lat == 0 and lon == 0):
        return None
    return lat, lon
