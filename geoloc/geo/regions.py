"""Regions of the first order (states, provinces), as numbers: what a place belongs to between its city and its country."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def region_numbers(places: pa.ChunkedArray | pa.StructArray) -> tuple[np.ndarray, list[str]]:
    """The region (n,) int32 of each of n places (schema.PLACE), and what the regions are called.

    A place whose region nobody knows belongs to its country; one that has neither, on the open sea, to none: -1.

    >>> from geoloc.schema import PLACE
    >>> names = [{"country_code": "FR", "region": "Brittany"}, {"country_code": "FR"}, None, {"country_code": "FR", "region": "Brittany"}]
    >>> region_numbers(pa.array(names, PLACE))
    (array([ 0,  1, -1,  0], dtype=int32), ['FR/Brittany', 'FR'])
    """
    country, region = (pc.struct_field(places, name) for name in ("country_code", "region"))
    country = pc.coalesce(country, pc.struct_field(places, "country"))
    names = pc.coalesce(pc.binary_join_element_wise(country, region, "/"), country)
    names = names.combine_chunks() if isinstance(names, pa.ChunkedArray) else names
    encoded = names.dictionary_encode()
    return encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32), encoded.dictionary.to_pylist()
