"""Which prediction belongs to which photo: by id, or by file name where paths differ."""

import itertools
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from geoloc.errors import UsageError
from geoloc.evaluation.positions import Positions

_SPREADSHEET = r"^-?\d(\.\d+)?[eE]\+?\d+$"
_EXAMPLES = 3


@dataclass
class Match:
    row: np.ndarray
    """(truth rows,) the prediction of each; -1 where there is none."""
    id_columns: tuple[str, str]
    """By which columns, of the predictions and of the truth."""
    how: dict[str, int] = field(default_factory=dict)
    """Photos matched, by what had to be equal."""
    notes: list[str] = field(default_factory=list)
    """What the reader should know: what did not match, and what is wrong with ids."""

    @property
    def count(self) -> int:
        return int((self.row >= 0).sum())


def match(predictions: Positions, truth: Positions) -> Match:
    """Match by the pair of id columns that matches most.

    Raises UsageError where no photo matches, and where an id has several positions that differ.
    """
    best, refused = None, None
    for pair in itertools.product(predictions.ids, truth.ids):
        try:
            found = _by_columns(predictions, truth, *pair)
        except UsageError as error:
            refused = refused or error
            continue
        if best is None or found.count > best.count:
            best = found
        if best.count == len(truth):
            break
    if refused and not (best and best.count):
        raise refused
    damaged = [note for side in (predictions, truth) for note in _spreadsheet_notes(side)]
    if not best.count:
        names = "; ".join(
            f"{side.source}: {', '.join(f'`{name}` is {_examples(ids)}' for name, ids in side.ids.items())}"
            for side in (predictions, truth)
        )
        raise UsageError("no photo is in both files, neither by id nor by file name. " + " ".join([names, *damaged]))
    best.notes = damaged + best.notes + _unmatched_notes(predictions, truth, best)
    weaker = [f"{count:,} by {level}" for level, count in best.how.items() if level != "id"]
    if weaker:
        best.notes.append(f"photos of {predictions.source} were matched with the truth {', '.join(weaker)}")
    return best


def _by_columns(predictions: Positions, truth: Positions, predicted: str, true: str) -> Match:
    """Level by level, what is still unmatched by ever weaker keys; a key that is not unique matches nothing."""
    left, right = predictions.ids[predicted], truth.ids[true]
    found = Match(np.full(len(truth), -1, np.int64), (predicted, true))
    first, note = _first_of_each(predictions, predicted)
    found.notes += [f"{text}; the first was used" for text in note]
    wanted, repeated = _first_of_each(truth, true)
    if repeated:
        raise UsageError(f"{repeated[0]}: remove the others, each would count twice")
    free, open_rows = first, wanted
    levels = {
        "id": (_as_it_is, _as_it_is),
        "file name": (_file_name, _file_name),
        "file name, / as _": (_file_name, _flat),
        "file name, _ as /": (_flat, _file_name),
        "file name without suffix": (_stem, _stem),
        "number": (_number, _number),
    }
    for name, (key_left, key_right) in levels.items():
        keys, sought = key_left(left.take(pa.array(free))), key_right(right.take(pa.array(open_rows)))
        at = pc.index_in(_unique_only(sought), keys)
        usable = _unique_only(keys).take(at).is_valid().to_numpy(zero_copy_only=False)
        if usable.any():
            hit = free[at.filter(pa.array(usable)).to_numpy()]
            found.row[open_rows[usable]] = hit
            found.how[name] = len(hit)
            free, open_rows = np.setdiff1d(free, hit), open_rows[~usable]
        if not len(open_rows) or not len(free):
            break
    return found


def _first_of_each(side: Positions, column: str) -> tuple[np.ndarray, list[str]]:
    """Row numbers without repetitions of an id or empty ids. Raises UsageError where repetitions disagree."""
    ids = side.ids[column]
    filled = np.flatnonzero(pc.not_equal(ids, "").to_numpy(zero_copy_only=False))
    coded = ids.take(pa.array(filled)).dictionary_encode()
    codes = coded.indices.to_numpy()
    _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    if len(first) == len(codes):
        return filled, []
    original = filled[first[inverse]]
    same = np.isclose(side.lat[filled], side.lat[original], atol=1e-9, rtol=0, equal_nan=True)
    same &= np.isclose(side.lon[filled], side.lon[original], atol=1e-9, rtol=0, equal_nan=True)
    repeated = np.setdiff1d(np.arange(len(codes)), first)
    if not same.all():
        conflicts = ids.take(pa.array(filled[~same])).unique()
        raise UsageError(
            f"{side.source}: {len(conflicts):,} ids of column `{column}` occur several times with different positions, "
            f"such as {_examples(conflicts)}; keep one row of each"
        )
    rows = ids.take(pa.array(filled[repeated]))
    note = f"{side.source}: {len(repeated):,} rows repeat an id, such as {_examples(rows)}"
    return filled[np.sort(first)], [note]


def _unmatched_notes(predictions: Positions, truth: Positions, found: Match) -> list[str]:
    notes = []
    without = np.flatnonzero(found.row < 0)
    if len(without):
        examples = _examples(truth.ids[found.id_columns[1]].take(pa.array(without[:_EXAMPLES])))
        notes.append(
            f"{len(without):,} photos of the truth have no row in {predictions.source}, such as {examples}; they count as wrong"
        )
    unused = np.setdiff1d(np.arange(len(predictions)), found.row)
    if len(unused):
        examples = _examples(predictions.ids[found.id_columns[0]].take(pa.array(unused[:_EXAMPLES])))
        notes.append(
            f"{len(unused):,} rows of {predictions.source} are not in the truth, such as {examples}; they are left out"
        )
    return notes


def _spreadsheet_notes(side: Positions) -> list[str]:
    notes = []
    for name, ids in side.ids.items():
        damaged = ids.filter(pc.match_substring_regex(ids, _SPREADSHEET))
        if len(damaged):
            notes.append(
                f"{side.source}: {len(damaged):,} ids of column `{name}` look as if a spreadsheet had rounded them, such as "
                f"{_examples(damaged)}; what they were is lost: export the file again with ids as text"
            )
    return notes


def _examples(ids: pa.Array) -> str:
    return ", ".join(repr(value) for value in ids[:_EXAMPLES].to_pylist())


def _unique_only(keys: pa.Array) -> pa.Array:
    """Null where a key occurs more than once, or is empty."""
    coded = keys.dictionary_encode()
    counts = np.bincount(coded.indices.to_numpy(), minlength=len(coded.dictionary))
    once = (counts == 1)[coded.indices.to_numpy()] & pc.not_equal(keys, "").to_numpy(zero_copy_only=False)
    return pc.if_else(pa.array(once), keys, None)


def _as_it_is(ids: pa.Array) -> pa.Array:
    return ids


def _file_name(ids: pa.Array) -> pa.Array:
    return pc.replace_substring_regex(ids, r"^.*[/\\]", "")


def _flat(ids: pa.Array) -> pa.Array:
    """``45/77/322.jpg`` as G3 and GeoRanker write it: ``45_77_322.jpg``."""
    return pc.replace_substring(ids, "/", "_")


def _stem(ids: pa.Array) -> pa.Array:
    return pc.replace_substring_regex(_file_name(ids), r"\.[A-Za-z]{3,4}$", "")


def _number(ids: pa.Array) -> pa.Array:
    """As a spreadsheet leaves a number: no leading zeros, or ``.0`` at its end. Empty where it is none."""
    stem = _stem(ids)
    bare = pc.replace_substring_regex(pc.replace_substring_regex(stem, r"\.0$", ""), r"^0+(\d)", r"\1")
    return pc.if_else(pc.match_substring_regex(bare, r"^\d+$"), bare, "")
