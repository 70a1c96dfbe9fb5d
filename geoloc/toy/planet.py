"""A made-up world on the real Earth's land: continents, countries and cities whose looks depend on where they are.

Everything follows from the seed. A place's look has three sources, from coarse to fine: smooth fields over the globe
(sky, soil, plants), the country's palette and roofs, and the city's walls, windows and signs. So a photo's
surroundings can be learned from its pixels, coarsely anywhere and finely where cities have been seen.
"""

import colorsys
import functools
from dataclasses import dataclass

import numpy as np
import shapely
from PIL import Image, ImageDraw, ImageFont

from geoloc.geo.distance import unit_vectors
from geoloc.geo.places import read_data

SIZE = (320, 240)
CITY_RADIUS_KM = 8.0
_KM_A_DEGREE = 111.2
_FIELDS = 9
_SYLLABLES = [
    "ba",
    "do",
    "fa",
    "gi",
    "ka",
    "lo",
    "mi",
    "na",
    "nu",
    "pa",
    "re",
    "ri",
    "sa",
    "so",
    "ta",
    "te",
    "vo",
    "wa",
    "zu",
]


@dataclass(frozen=True)
class City:
    name: str
    country: int
    continent: int
    lat: float
    lon: float


class Planet:
    def __init__(self, seed: int = 7, cities: int = 120, countries: int = 24, continents: int = 6) -> None:
        random = np.random.default_rng(seed)
        lat, lon = _land(random, cities)
        at = unit_vectors(lat, lon)
        country = _nearest(at, at[random.choice(cities, countries, replace=False)])
        continent = _nearest(at, at[random.choice(cities, continents, replace=False)])
        self._seed = seed
        self._waves = random.normal(0, 2.2, (_FIELDS, 6, 3))
        self._phases = random.uniform(0, 2 * np.pi, (_FIELDS, 6))
        self.country_names = [_name(random) for _ in range(countries)]
        self.continent_names = [_name(random) + "ia" for _ in range(continents)]
        self.cities = [
            City(_name(random), int(country[i]), int(continent[i]), float(lat[i]), float(lon[i])) for i in range(cities)
        ]

    def place(self, city: int, random: np.random.Generator) -> tuple[float, float]:
        """Somewhere in the city: (lat, lon), degrees."""
        centre = self.cities[city]
        north, east = random.normal(0, CITY_RADIUS_KM, 2)
        lat = centre.lat + north / _KM_A_DEGREE
        return lat, centre.lon + east / (_KM_A_DEGREE * np.cos(np.radians(lat)))

    def fields(self, lat: float, lon: float) -> np.ndarray:
        """The smooth fields at a place, (9,) in 0 … 1: what can be learned of places with no city seen near."""
        angles = self._waves @ unit_vectors(lat, lon) + self._phases
        return np.clip(0.5 + 0.7 * np.sin(angles).mean(axis=1), 0, 1)

    def photo(self, city: int, lat: float, lon: float, random: np.random.Generator) -> Image.Image:
        """A picture taken there; another draw of ``random`` is another picture of the same place."""
        return _Painter(self, self.cities[city], city, self.fields(lat, lon), random).image

    def style(self, kind: str, number: int) -> np.random.Generator:
        """The fixed tastes of a country or a city."""
        return np.random.default_rng([self._seed, len(kind), number])


class _Painter:
    def __init__(
        self, planet: Planet, city: City, number: int, fields: np.ndarray, random: np.random.Generator
    ) -> None:
        self._fields, self._random = fields, random
        self._country, self._city = planet.style("country", city.country), planet.style("city", number)
        self._continent, self._name = city.continent, city.name
        self.image = Image.new("RGB", SIZE)
        self._draw = ImageDraw.Draw(self.image)
        self._horizon = int(random.uniform(0.42, 0.58) * SIZE[1])
        self._sky()
        self._hills()
        self._ground()
        self._buildings()
        self._plants()
        self._sign()
        self._camera()

    def _sky(self) -> None:
        top = _colour(0.5 + 0.25 * self._fields[0], 0.7, 0.45 + 0.5 * self._fields[1])
        low = _colour(0.02 + 0.15 * self._fields[2], 0.4, 0.95)
        for y in range(self._horizon):
            share = y / self._horizon
            self._draw.line([(0, y), (SIZE[0], y)], fill=_mix(top, low, share))

    def _hills(self) -> None:
        x = np.arange(0, SIZE[0] + 8, 8)
        height = 12 + 60 * self._fields[3]
        phase = self._random.uniform(0, 6.3)
        y = self._horizon - height * (0.5 + 0.5 * np.sin(x / (18 + 40 * self._fields[4]) + phase))
        fill = _colour(0.2 + 0.5 * self._fields[5], 0.35, 0.35 + 0.3 * self._fields[4])
        self._draw.polygon(
            [(0, self._horizon), *zip(x.tolist(), y.tolist(), strict=True), (SIZE[0], self._horizon)], fill=fill
        )

    def _ground(self) -> None:
        soil = _colour(0.05 + 0.3 * self._fields[6], 0.2 + 0.6 * self._fields[7], 0.35 + 0.4 * self._fields[5])
        self._draw.rectangle([0, self._horizon, *SIZE], fill=soil)
        spacing = 5 + int(14 * self._fields[7])
        for y in range(self._horizon, SIZE[1], spacing):
            self._draw.line([(0, y), (SIZE[0], y)], fill=_mix(soil, (0, 0, 0), 0.25), width=2)

    def _buildings(self) -> None:
        walls = [_colour(*self._country.uniform((0, 0.15, 0.5), (1, 0.8, 0.95))) for _ in range(2)]
        walls.append(_colour(*self._city.uniform((0, 0.3, 0.4), (1, 0.9, 0.95))))
        roof = _colour(*self._country.uniform((0, 0.4, 0.3), (1, 1, 0.8)))
        glass = _colour(*self._city.uniform((0, 0.2, 0.1), (1, 0.9, 0.9)))
        width, height = self._city.integers(24, 52), self._city.integers(40, 110)
        pane, gap = self._city.integers(3, 9), self._city.integers(4, 10)
        x = int(self._random.integers(-20, 20))
        while x < SIZE[0]:
            w, h = (int(side * self._random.uniform(0.8, 1.2)) for side in (width, height))
            top = self._horizon + 18 - h
            self._draw.rectangle([x, top, x + w, self._horizon + 18], fill=walls[int(self._random.integers(3))])
            self._roof(x, top, w, roof)
            for wy in range(top + 5, self._horizon + 8, pane + gap):
                for wx in range(x + 4, x + w - pane, pane + gap):
                    self._draw.rectangle([wx, wy, wx + pane, wy + pane + 2], fill=glass)
            x += w + int(self._random.integers(2, 30))

    def _roof(self, x: int, top: int, w: int, fill: tuple) -> None:
        shape = self._continent % 4
        if shape == 0:
            self._draw.polygon([(x - 3, top), (x + w + 3, top), (x + w / 2, top - w * 0.45)], fill=fill)
        elif shape == 1:
            self._draw.pieslice([x, top - w / 2, x + w, top + w / 2], 180, 360, fill=fill)
        elif shape == 2:
            self._draw.rectangle([x - 3, top - 5, x + w + 3, top], fill=fill)
        else:
            self._draw.polygon([(x, top), (x + w, top), (x + w, top - w * 0.4)], fill=fill)

    def _plants(self) -> None:
        leaf = _colour(0.2 + 0.25 * self._fields[8], 0.75, 0.25 + 0.45 * self._fields[0])
        for _ in range(int(1 + 7 * self._fields[6])):
            x, y = int(self._random.integers(0, SIZE[0])), int(self._random.integers(self._horizon + 20, SIZE[1]))
            r = 6 + int(12 * self._fields[8])
            self._draw.rectangle([x - 2, y - 12, x + 2, y], fill=(80, 60, 40))
            if self._fields[1] > 0.5:
                self._draw.ellipse([x - r, y - 12 - 2 * r, x + r, y - 12], fill=leaf)
            else:
                self._draw.polygon([(x - r, y - 10), (x + r, y - 10), (x, y - 12 - 3 * r)], fill=leaf)

    def _sign(self) -> None:
        board = _colour(*self._country.uniform((0, 0.6, 0.4), (1, 1, 0.9)))
        x, y = int(self._random.integers(10, 200)), int(self._random.integers(150, 195))
        self._draw.rectangle([x, y, x + 108, y + 32], fill=board, outline=(250, 250, 250), width=2)
        self._draw.text((x + 8, y + 4), self._name.upper(), fill=(250, 250, 250), font=_font())

    def _camera(self) -> None:
        """Exposure, a random framing, and noise."""
        left, top = (int(self._random.integers(0, 24)) for _ in range(2))
        pixels = np.asarray(
            self.image.crop((left, top, SIZE[0] - 24 + left, SIZE[1] - 24 + top)).resize(SIZE), np.float32
        )
        pixels = pixels * self._random.uniform(0.75, 1.2) + self._random.normal(0, 7, pixels.shape)
        self.image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


@functools.cache
def _font() -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(20)


def _land(random: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Points on land, uniform by area, Antarctica apart, none within 250 km of another."""
    countries = read_data("countries.parquet")
    drawn = [row for row in countries.to_pylist() if row["outline"] and row["country_code"] != "AQ"]
    land = shapely.union_all(shapely.from_wkb([row["outline"] for row in drawn]))
    shapely.prepare(land)
    lat, lon = np.zeros(0), np.zeros(0)
    while len(lat) < count:
        y, x = np.degrees(np.arcsin(random.uniform(-1, 1))), random.uniform(-180, 180)
        apart = not len(lat) or np.max(unit_vectors(lat, lon) @ unit_vectors(y, x)) < np.cos(250 / 6371)
        if apart and abs(y) < 68 and shapely.intersects_xy(land, x, y):
            lat, lon = np.append(lat, y), np.append(lon, x)
    return lat, lon


def _nearest(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    return np.argmax(points @ centres.T, axis=1)


def _name(random: np.random.Generator) -> str:
    return "".join(random.choice(_SYLLABLES, random.integers(2, 4))).capitalize()


def _colour(hue: float, saturation: float, value: float) -> tuple[int, int, int]:
    return tuple(int(255 * part) for part in colorsys.hsv_to_rgb(hue % 1, saturation, min(value, 1)))


def _mix(a: tuple, b: tuple, share: float) -> tuple[int, int, int]:
    return tuple(int(p + (q - p) * share) for p, q in zip(a, b, strict=True))
