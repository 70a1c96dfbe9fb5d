"""Chains that may have been together, as what is worked on at once, and whether anything about them is new."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from geoloc.context.archive import DECIDING, cameras, folders, has_time

HOUSEHOLDS = pa.schema({"household": pa.uint64(), "fingerprint": pa.uint64(), "told": pa.int64()})


def members(rows: pa.Table) -> pa.Table:
    """Of rows of archive.ORDER: chain, the folder that its folder is in (hashes), and how many photos there are of both."""
    beside = pc.replace_substring_regex(folders(rows), "[^/]*/$", "")
    both = pa.table({"chain": chain_of(rows), "folder": _hashes(beside)})
    return (
        both.group_by(["chain", "folder"]).aggregate([([], "count_all")]).rename_columns(["chain", "folder", "photos"])
    )


def chain_of(rows: pa.Table) -> np.ndarray:
    """(n,) hashes, as those of ``members``. A photo without time is its folder's."""
    return _hashes(pc.if_else(pa.array(has_time(rows)), cameras(rows), folders(rows)))


@dataclass(frozen=True)
class Households:
    """Chains that share a folder of folders, or share them with chains that do."""

    chain: np.ndarray
    """(c,) sorted hashes."""
    household: np.ndarray
    """(c,) of each, an integer that depends on nothing but its chains."""
    bucket: np.ndarray
    """(c,) which is worked on together; whole households, of about as many photos each."""

    @classmethod
    def of(cls, counts: pa.Table, photos_a_bucket: int) -> "Households":
        """``counts`` as of ``members``. A household of more photos than a bucket's is as many as it has chains: nobody's family, and
        nobody's company is looked for."""
        chain, c = np.unique(counts["chain"].to_numpy(), return_inverse=True)
        folder, f = np.unique(counts["folder"].to_numpy(), return_inverse=True)
        photos = counts["photos"].to_numpy()
        size = len(chain) + len(folder)
        edges = coo_array((np.ones(len(c)), (c, len(chain) + f)), shape=(size, size))
        _, component = connected_components(edges, directed=False)
        of_chain, component = component[: len(chain)], component[: len(chain)]
        chain_photos = np.bincount(c, photos, minlength=len(chain))
        whole = np.bincount(component, chain_photos)
        crowded = whole[of_chain] > photos_a_bucket
        least = np.full(component.max(initial=0) + 1, np.iinfo(np.uint64).max, np.uint64)
        np.minimum.at(least, component, chain)
        household = np.where(crowded, chain, least[component])
        at = np.unique(household, return_inverse=True)[1]
        before = np.cumsum(np.bincount(at, chain_photos)) - 1
        bucket = (before // photos_a_bucket).astype(np.int64)
        return cls(chain, household, np.unique(bucket, return_inverse=True)[1][at])

    @property
    def buckets(self) -> int:
        return int(self.bucket.max(initial=0)) + 1

    def at(self, chain: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Household and bucket (n,) of chains (n,)."""
        place = np.searchsorted(self.chain, chain)
        return self.household[place], self.bucket[place]


def fingerprints(rows: pa.Table, salt: str) -> pa.Table:
    """Of compact rows with a column ``household``: each of these with what changes with anything that decides its places, and with
    the salt, and how many of its rows have been told of neighbours."""
    own = np.full(rows.num_rows, _hash_text(salt), np.uint64)
    for name in DECIDING:
        column = rows[name].combine_chunks()
        if pa.types.is_fixed_size_list(column.type):
            values = column.flatten().to_numpy().reshape(-1, column.type.list_size).astype(np.float64)
            hashed = [pd.util.hash_array(np.ascontiguousarray(one)) for one in values.T]
        elif pa.types.is_string(column.type):
            hashed = [_hashes(column)]
        else:
            numbers = column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column
            filled = numbers.cast(pa.float64(), safe=False).fill_null(-1.5)  # no value of any of these columns
            hashed = [pd.util.hash_array(filled.to_numpy(zero_copy_only=False))]
        for one in hashed:
            own = own * np.uint64(0x9E3779B97F4A7C15) + one
            own ^= own >> np.uint64(29)
    households, at = np.unique(rows["household"].to_numpy(), return_inverse=True)
    sums = np.zeros(len(households), np.uint64)
    np.add.at(sums, at, own * np.uint64(0xBF58476D1CE4E5B9))
    told = np.bincount(at, rows["told"].to_numpy(), minlength=len(households)).astype(np.int64)
    return pa.table({"household": households, "fingerprint": sums, "told": told}, HOUSEHOLDS)


def _hashes(texts: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """(n,) uint64, the same in any process."""
    encoded = texts.dictionary_encode()
    encoded = encoded.combine_chunks() if isinstance(encoded, pa.ChunkedArray) else encoded
    words = np.array(encoded.dictionary.to_pylist(), object)
    hashes = pd.util.hash_array(words, categorize=False) if len(words) else np.zeros(1, np.uint64)
    indices = encoded.indices.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    return np.where(texts.is_null().to_numpy(zero_copy_only=False), np.uint64(0), hashes[indices])


def _hash_text(text: str) -> np.uint64:
    return pd.util.hash_array(np.array([text], object), categorize=False)[0]
