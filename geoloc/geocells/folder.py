"""What a training leaves: an index folder (geoloc.index.store) whose rows are the places that the cells tell apart."""

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import safetensors.torch
import scipy.sparse
import torch

from geoloc.geo.cells import cell_tokens
from geoloc.geo.partition import Hierarchy, write_partitions
from geoloc.geo.places import places
from geoloc.geocells.division import Division
from geoloc.geocells.methods import GeocellOptions
from geoloc.geocells.search import CARD, CELLS, LINEAGE, WEIGHTS
from geoloc.index.build import write_index
from geoloc.index.store import EXTENT, Index, IndexInfo
from geoloc.schema import REFERENCE

_ROWS = 65_536
"""That are read, and written, at once."""


def write_geocells(
    path: Path, weights: dict[str, torch.Tensor], options: GeocellOptions, division: Division, index: Index, facts: dict
) -> IndexInfo:
    """Of a model's state that was trained on an index. A place's vector is the mean of its photos', its thumbnail that of the photo
    nearest to it, and its uri names its cell. ``facts`` are for the card."""
    path.mkdir(parents=True, exist_ok=True)
    lineage = torch.from_numpy(division.lineage.astype(np.int32))
    safetensors.torch.save_file(weights | {LINEAGE: lineage}, path / WEIGHTS)
    parents = () if division.turned else Hierarchy.of(division.partitions).parents
    (path / CELLS).write_bytes(write_partitions(division.partitions, parents))
    sizes = [len(cells) for cells in division.partitions]
    card = {"options": asdict(options), "dimension": index.info.dimension, "sizes": sizes} | facts
    (path / CARD).write_text(json.dumps(card, indent=1))
    info = replace(index.info, kind="cells", rows=len(division.lineage), files={}, ann=None)
    return write_index(path, info, _rows(division, index))


def _rows(division: Division, index: Index) -> Iterator[pa.Table]:
    """REFERENCE, and EXTENT."""
    vectors, typical = _typical(division, index)
    tokens = [cell_tokens(cells.ids)[division.lineage[:, level]] for level, cells in enumerate(division.partitions)]
    if not division.turned:
        tokens = tokens[-1:]
    uris = np.array(["s2:" + "+".join(of_place) for of_place in zip(*tokens, strict=True)], object)
    for at in range(0, len(uris), _ROWS):
        part = slice(at, at + _ROWS)
        columns = {
            "uri": uris[part],
            "lat": division.lat[part],
            "lon": division.lon[part],
            "place": places().lookup(division.lat[part], division.lon[part]),
            "vector": list(vectors[part]),
            "thumbnail": [index.thumbnail(row) for row in typical[part].tolist()],
        }
        nulls = {field.name: pa.nulls(len(uris[part]), field.type) for field in REFERENCE if field.name not in columns}
        table = pa.table({name: (nulls | columns)[name] for name in REFERENCE.names}, schema=REFERENCE)
        yield table.append_column(EXTENT, pa.array(division.extent_km[part], pa.float32()))


def _typical(division: Division, index: Index) -> tuple[np.ndarray, np.ndarray]:
    """Of each place the mean of its photos' vectors, of unit length, and the row of the photo that is nearest to it."""
    place, count = division.place, len(division.lineage)
    chunks = [slice(at, at + _ROWS) for at in range(0, len(place), _ROWS)]
    vectors = np.zeros((count, index.info.dimension), np.float32)
    for chunk in chunks:
        rows = np.flatnonzero(place[chunk] >= 0)
        chosen = (np.ones(len(rows), np.float32), (place[chunk][rows], rows))
        vectors += scipy.sparse.csr_matrix(chosen, (count, len(place[chunk]))) @ index.vectors[chunk]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    similarity = np.concatenate(
        [np.einsum("nd,nd->n", index.vectors[chunk], vectors[np.maximum(place[chunk], 0)]) for chunk in chunks]
    )
    order = np.lexsort((-similarity, place))
    order = order[place[order] >= 0]
    return vectors, order[np.unique(place[order], return_index=True)[1]]
