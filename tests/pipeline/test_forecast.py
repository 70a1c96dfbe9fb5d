import pytest

from geoloc.errors import UsageError
from geoloc.pipeline.forecast import Forecast, Prices

WORK = {
    "photos": 1_000,
    "rate": 31.0,
    "stage_seconds": {"fetch_s": 100.0, "decode_s": 40.0, "embed_s": 15.0, "retrieve_s": 5.0, "rank_s": 250.0},
    "workers": {"fetch_s": 128, "decode_s": 4, "embed_s": 2, "retrieve_s": 2, "rank_s": 8},
    "gpus": 8,
}


def test_a_worked_example():
    """1,000 photos by 8 workers who spent 250 s: 32 photos/s; so 1.152 million take ten hours, on eight GPUs 80 GPU-hours."""
    forecast = Forecast(1_152_000, 2.5e6, 400, WORK)
    rates = {"fetching": 1_280, "decoding": 100, "embedding and retrieval": 100, "ranking": 32}
    assert forecast.rates() == pytest.approx(rates)
    lines = "\n".join(forecast.lines(Prices(gpu_hour=3, egress_gb=0.05)))
    assert "ranking: at most 32.0 photos/s (this bounds it)" in lines
    assert "at least 10:00:00 with these workers, 80.0 GPU-hours" in lines
    assert "1,152,000 GET requests for 2,880.0 GB; 0.46 GB of results" in lines
    assert "384.46 (GET requests 0.46, egress 144.00, GPUs 240.00)" in lines


def test_what_was_not_done_bounds_nothing_and_what_has_no_price_costs_nothing():
    work = WORK | {"stage_seconds": WORK["stage_seconds"] | {"rank_s": 0.0}, "gpus": 0}
    forecast = Forecast(360_000, 0, 0, work)
    assert "ranking" not in forecast.rates()
    lines = "\n".join(forecast.lines(Prices(gpu_hour=3)))
    assert "1:00:00" in lines
    assert "GPU" not in lines


def test_prices_are_not_below_nothing():
    with pytest.raises(UsageError, match=r"--prices\.gpu-hour -1"):
        Prices(gpu_hour=-1).check()
