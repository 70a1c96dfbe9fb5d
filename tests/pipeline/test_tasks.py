import numpy as np
import pytest

from geoloc.errors import UsageError
from geoloc.pipeline import tasks
from geoloc.pipeline.publication import summarised
from geoloc.results.parts import Parts
from geoloc.results.summary import COLUMNS, Summary
from geoloc.storage import Folder
from tests.results.test_results import results, row


def _squared(number: int) -> int:
    if number == 7:
        raise UsageError("OUTPUT /full: no space is left")
    return number * number


def test_tasks_answer_in_order_a_few_at_a_time(ray_cluster, monkeypatch):
    monkeypatch.setattr(tasks, "AHEAD", 3)
    taken = []
    answers = tasks.Cluster().each(_squared, (taken.append(n) or n for n in range(7)))
    assert next(answers) == 0
    assert len(taken) == 3
    assert list(answers) == [1, 4, 9, 16, 25, 36]


def test_what_a_task_says_is_one_line(ray_cluster):
    with pytest.raises(UsageError) as failed:
        list(tasks.Cluster().each(_squared, [7]))
    assert str(failed.value) == "OUTPUT /full: no space is left"


def test_a_summary_of_parts_is_that_of_all(tmp_path):
    parts = Parts(Folder(str(tmp_path / "geotags")))
    far = {"true_lat": 10.0, "true_lon": 10.0}
    failed = {"status": "failed", "lat": None, "lon": None, "error_kind": "empty", "error": "no bytes"}
    for n in range(4):
        parts.add(results([row(3 * n, **far), row(3 * n + 1, gps="unreadable"), row(3 * n + 2, **failed)]))
    one, several = Summary.of(parts.tables(COLUMNS)), summarised(parts)
    assert several.lines() == one.lines()
    assert (several.rows, several.judged, len(several.errors)) == (12, 4, 4)
    assert np.concatenate(several.errors_km) == pytest.approx(np.concatenate(one.errors_km))
    assert (several.errors, several.gps_problems) == (one.errors, one.gps_problems)
