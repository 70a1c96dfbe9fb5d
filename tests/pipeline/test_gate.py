"""A gate from two runs."""

import json

import numpy as np
import pyarrow as pa
import pytest

from geoloc.errors import UsageError
from geoloc.estimate.gate import read_gate
from geoloc.pipeline.gate import train_gate
from geoloc.pipeline.job_options import GateOptions
from geoloc.results.parts import Parts
from geoloc.storage import Folder, S3Options

LIGHT = {"encoder": "lite", "scorers": ["light"], "index": "i", "candidates": 2, "weights": {"encoder": "e"}}
LIGHT |= {"light": {"fingerprint": "f"}}
HEAVY = LIGHT | {
    "scorers": ["light", "georanker"],
    "weights": {"encoder": "e", "georanker": "g"},
    "georanker": {"candidates": 2},
}


def write_run(folder, settings: dict, swapped: np.ndarray, agree: np.ndarray) -> str:
    """400 photos of two candidates, of which the first is right, or the second where it is ``swapped``."""
    random = np.random.default_rng(0)
    lat, lon = random.uniform(-60, 60, 400), random.uniform(-170, 170, 400)
    rows = []
    for n in range(400):
        other = lat[n] + (0.01 if agree[n] else 20.0)
        places = (
            [(other, 0.9), (lat[n], 0.89)] if swapped[n] else [(lat[n], 0.9), (other, 0.89 if not agree[n] else 0.5)]
        )
        candidates = [{"lat": at, "lon": lon[n], "score": score, "similarity": score} for at, score in places]
        row = {"id": n, "uri": f"/photos/{n}.jpg", "status": "located", "lat": places[0][0], "lon": lon[n]}
        rows.append(row | {"candidates": candidates, "true_lat": lat[n], "true_lon": lon[n]})
    Parts(Folder(str(folder / "geotags"))).add(pa.Table.from_pylist(rows))
    record = {"settings": {"source": "/photos", "method": settings}, "score_scale": 10.0}
    (folder / "run.json").write_text(json.dumps(record))
    return str(folder)


@pytest.fixture
def runs(tmp_path) -> tuple[str, str]:
    """Where candidates do not agree, the light answer is wrong every other time, and the heavy one never."""
    random = np.random.default_rng(1)
    agree = random.random(400) < 0.7
    swapped = ~agree & (random.random(400) < 0.5)
    nothing = np.zeros(400, bool)
    return write_run(tmp_path / "light", LIGHT, swapped, agree), write_run(tmp_path / "heavy", HEAVY, nothing, agree)


def test_it_finds_the_photos_whose_candidates_do_not_agree(runs, tmp_path, caplog):
    caplog.set_level("INFO", "geoloc")
    assert train_gate(GateOptions(*runs, str(tmp_path / "gate"))) == 0
    gate = read_gate(str(tmp_path / "gate"), S3Options())
    assert gate.applies_to == LIGHT | {"heavy": {"georanker": {"weights": "g", "candidates": 2}}}
    assert gate.scale == 10.0
    by_share = gate.evidence["acc_25km_by_share"]
    assert by_share["0.5"]["gate"] == 100.0  # three photos in ten are enough
    assert by_share["1"]["gate"] == gate.evidence["acc_25km"]["heavy"] == 100.0
    assert "heavy 100.0 %" in caplog.text


def test_what_neighbours_put_right_is_no_merit_of_the_rankers(runs, tmp_path):
    """Where the heavy run's answers are right, and its candidates are the light run's."""
    light, _ = runs
    table = pa.concat_tables(Parts(Folder(f"{light}/geotags")).tables())
    for axis in ("lat", "lon"):
        at = table.schema.get_field_index(axis)
        table = table.set_column(at, table.schema.field(at), table[f"true_{axis}"])
    Parts(Folder(str(tmp_path / "joint" / "geotags"))).add(table)
    record = {"settings": {"source": "/photos", "method": HEAVY}, "score_scale": 10.0}
    Folder(str(tmp_path / "joint")).write("run.json", json.dumps(record).encode())
    assert train_gate(GateOptions(light, str(tmp_path / "joint"), str(tmp_path / "gate"))) == 0
    both = read_gate(str(tmp_path / "gate"), S3Options()).evidence["acc_25km"]
    assert both["heavy"] == both["light"] < 95


def test_runs_that_are_not_the_same_but_for_the_ranker(runs, tmp_path):
    light, heavy = runs

    def refused(message, **changes):
        with pytest.raises(UsageError, match=message):
            train_gate(GateOptions(**({"light": light, "heavy": heavy, "output": str(tmp_path / "out")} | changes)))

    def other(settings: dict) -> str:
        record = {"settings": {"source": "/photos", "method": settings}, "score_scale": 10.0}
        Folder(heavy).write("run.json", json.dumps(record).encode())
        return heavy

    refused("LIGHT_RUN /nowhere: has no run.json", light="/nowhere")
    refused("has no ranker", heavy=light)
    refused("is not .* with a ranker: index was 'i', is now 'j'", heavy=other(HEAVY | {"index": "j"}))
    skipped = HEAVY | {"georanker": {"skip_within_km": 25.0}}
    refused("ranked some photos alone; run it without --skip-ranking-within-km", heavy=other(skipped))
    refused(
        "ranked some photos alone; run it without --heavy-gate",
        heavy=other(HEAVY | {"georanker": {"gate": {"share": 1}}}),
    )
