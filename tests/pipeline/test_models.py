"""What processes die of, without any that die."""

import threading
import time
from types import SimpleNamespace

import pyarrow as pa
import ray

from geoloc.pipeline import models
from geoloc.pipeline.models import ModelActor
from geoloc.pipeline.watch import Pulse


def pulse_of(pulse) -> SimpleNamespace:
    """Its methods called here, as Ray would call them elsewhere."""
    return SimpleNamespace(**{name: SimpleNamespace(remote=getattr(pulse, name)) for name in ("begin", "end", "beat")})


def photos(*ids: int) -> pa.Table:
    nothing = pa.nulls(len(ids), pa.string())
    return pa.table({"id": list(ids), "status": nothing, "error_kind": nothing, "error": nothing})


def test_a_photo_is_blamed_only_for_what_dies_while_it_is_alone(monkeypatch):
    """Two batches at once, one with a photo that a process dies of, begun again and again in new processes."""
    monkeypatch.setattr(ray, "get", lambda value: value)
    state, batches = Pulse.__ray_metadata__.modified_class(["judge"]), [photos(*range(10, 20)), photos(*range(20, 30))]
    done: dict[int, pa.Table] = {}
    for _ in range(40):
        dead = threading.Event()

        def build(device, threads, dead=dead):
            def answer(batch: pa.Table) -> pa.Table:
                for _ in range(5):
                    if dead.is_set():
                        raise SystemExit
                    time.sleep(0.001)
                if 13 in batch["id"].to_pylist() and batch["status"].null_count:
                    dead.set()
                    raise SystemExit
                return batch

            return answer

        actor = ModelActor(build, "cpu", 1, "judge", pulse_of(state))

        def call(number, actor=actor):
            try:
                done[number] = actor(batches[number])
            except SystemExit:
                return

        threads = [threading.Thread(target=call, args=(n,)) for n in (0, 1) if n not in done]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if len(done) == 2:
            break
    crashed = [row["id"] for table in done.values() for row in table.to_pylist() if row["error_kind"] == "crashed"]
    assert (sorted(done), crashed) == ([0, 1], [13])
    assert models.DEATHS == 2
