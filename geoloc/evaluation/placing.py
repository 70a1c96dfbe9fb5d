"""Right country, region and city: answers judged by the names of places."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from geoloc.geo.places import places, read_data

LEVELS = ("country", "region", "city")
_ROWS = 200_000
_SEPARATOR = "\x1f"


@dataclass(frozen=True)
class NamedTruth:
    """Where n photos were, in words."""

    names: dict[str, pa.Array]
    """Dictionary-encoded, (n,) for each of LEVELS; null where a place has no such name."""
    country: pa.Array
    continent: pa.Array


def name_truth(lat: np.ndarray, lon: np.ndarray) -> NamedTruth:
    """Of positions (n,), all finite."""
    names = _names(lat, lon)
    countries = read_data("countries.parquet")
    row = pc.index_in(names["country"].cast(pa.string()), countries["country_code"].combine_chunks())
    return NamedTruth(names, *(countries[field].combine_chunks().take(row) for field in ("country", "continent")))


def shares(truth: NamedTruth, lat: np.ndarray, lon: np.ndarray) -> dict[str, np.ndarray]:
    """``country_acc``, ``region_acc`` and ``city_acc`` of answers (n,): 1 for the right name, else 0; NaN where the truth
    has no such name (at sea, far from any city). Offline names: Natural Earth and GeoNames."""
    answers = _names(lat, lon)
    result = {}
    for level in LEVELS:
        wanted = truth.names[level].cast(pa.string())
        same = pc.fill_null(pc.equal(wanted, answers[level].cast(pa.string())), False).to_numpy(zero_copy_only=False)
        known = wanted.is_valid().to_numpy(zero_copy_only=False)
        result[f"{level}_acc"] = np.where(known, same.astype(float), np.nan)
    return result


def _names(lat: np.ndarray, lon: np.ndarray) -> dict[str, pa.Array]:
    """A name holds those of the levels above it, so that two of a kind differ."""
    pieces: dict[str, list] = {level: [] for level in LEVELS}
    for start in range(0, len(lat), _ROWS):
        found = places().lookup(lat[start : start + _ROWS], lon[start : start + _ROWS])
        levels = [found.field(name) for name in ("country_code", "region", "city")]
        valid = found.is_valid()
        for depth, level in enumerate(LEVELS, 1):
            joined = pc.binary_join_element_wise(*levels[:depth], _SEPARATOR)  # null if any of them is
            pieces[level].append(pc.if_else(valid, joined, None).dictionary_encode())
    return {
        level: pa.chunked_array(chunks, pa.dictionary(pa.int32(), pa.string())).unify_dictionaries().combine_chunks()
        for level, chunks in pieces.items()
    }
