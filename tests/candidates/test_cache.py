import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geoloc.candidates.budget import Budgeted, Spending
from geoloc.candidates.cache import Cached
from geoloc.candidates.engine import Completion, Request
from geoloc.candidates.options import EngineOptions, Generation, Prices, Sampling
from geoloc.errors import PhotoError, UsageError
from geoloc.storage import Folder


class Scripted:
    """An engine that counts what it is asked."""

    def __init__(self, fails: frozenset[str] = frozenset()) -> None:
        self.asked, self.fails = [], fails

    def complete(self, requests):
        for number, request in reversed(list(enumerate(requests))):
            self.asked.append(request)
            failed = request.text in self.fails
            yield (
                number,
                PhotoError("endpoint", "no") if failed else Completion((request.text,) * request.samples, 1000, 100, 1),
            )


def generation(model: str = "m", **others) -> Generation:
    return Generation(engine=EngineOptions(model=model, endpoint="http://x/v1"), **others)


def requests(*texts: str, photo: str = "a.jpg") -> list[Request]:
    return [Request(photo, "zero-shot", text, b"jpeg", 2) for text in texts]


def cached(engine, folder, run="run", **others) -> Cached:
    return Cached(engine, Folder(str(folder)), generation(**others), run)


def test_nobody_is_asked_twice(tmp_path):
    engine = Scripted()
    first = dict(cached(engine, tmp_path).complete(requests("one", "two")))
    again = dict(cached(engine, tmp_path).complete(requests("two", "one", "three")))
    assert [request.text for request in engine.asked] == ["two", "one", "three"]
    assert (again[0], again[1]) == (first[1], first[0])


def test_what_another_run_paid_for_is_not_paid_again(tmp_path):
    engine = Scripted()
    [(_, first)] = cached(engine, tmp_path).complete(requests("one"))
    [(_, own)] = cached(engine, tmp_path).complete(requests("one"))
    [(_, others)] = cached(engine, tmp_path, run="other").complete(requests("one"))
    [(_, twin)] = cached(engine, tmp_path).complete(requests("one", photo="twin.jpg"))
    assert (first.paid, own.paid, others.paid, twin.paid) == (True, True, False, False)
    assert others.replies == first.replies == ("one", "one")


def test_failures_are_not_kept(tmp_path):
    assert isinstance(dict(cached(Scripted(frozenset(["one"])), tmp_path).complete(requests("one")))[0], PhotoError)
    assert dict(cached(Scripted(), tmp_path).complete(requests("one")))[0].replies


@pytest.mark.parametrize(
    "other",
    [
        {"text": "two"},
        {"image": b"other"},
        {"samples": 3},
    ],
)
def test_what_is_asked_otherwise_is_asked(tmp_path, other):
    engine = Scripted()
    asked = {"photo": "a.jpg", "prompt": "zero-shot", "text": "one", "image": b"jpeg", "samples": 2}
    for changed in ({}, other):
        list(cached(engine, tmp_path).complete([Request(**asked | changed)]))
    assert len(engine.asked) == 2


def test_another_temperature_is_asked_for(tmp_path):
    engine = Scripted()
    for temperature in (1.2, 0.7):
        list(cached(engine, tmp_path, sampling=Sampling(temperature)).complete(requests("one")))
    assert len(engine.asked) == 2


def test_a_cache_of_another_model_is_refused(tmp_path):
    cached(Scripted(), tmp_path)
    with pytest.raises(UsageError, match=r"--reply-cache .*: holds replies of m, not of n; name another folder"):
        cached(Scripted(), tmp_path, model="n")
    (tmp_path / "cache.json").write_text("[1]")
    with pytest.raises(UsageError, match="holds replies of something else"):
        cached(Scripted(), tmp_path)


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"null", b'{"replies": 3, "run": 1, "photo": 2}'])
def test_a_damaged_reply_is_asked_for_anew(tmp_path, damage):
    engine = Scripted()
    list(cached(engine, tmp_path).complete(requests("one")))
    [file] = tmp_path.glob("*/*.json")
    file.write_bytes(damage)
    assert dict(cached(engine, tmp_path).complete(requests("one")))[0].replies == ("one", "one")
    assert len(engine.asked) == 2


def budgeted(budget: float, before: Spending | None = None) -> tuple[Budgeted, Scripted]:
    """A thousand prompt tokens and a hundred of replies are 0.002 at these prices."""
    engine = Scripted()
    return Budgeted(engine, generation(prices=Prices(1.0, 10.0), budget=budget), before or Spending()), engine


def test_a_budget_is_not_overdrawn():
    asking, engine = budgeted(0.2)
    many = requests(*map(str, range(200)))
    with pytest.raises(
        UsageError, match=r"--generation-budget 0.2: is used up .*run the same command with more to go on"
    ):
        list(asking.complete(many))
    assert 0.1 < asking.spent <= 0.2
    assert asking.spent == pytest.approx(0.002 * len(engine.asked))


def test_what_was_spent_before_counts():
    asking, engine = budgeted(0.2, Spending(100, 199_000, 0))
    with pytest.raises(UsageError, match=r"0.199 are spent"):
        list(asking.complete(requests("one")))
    assert not engine.asked


@settings(max_examples=20)
@given(st.integers(1, 40), st.floats(0.001, 0.3))
def test_whatever_the_budget_it_holds(count, budget):
    asking, _ = budgeted(budget)
    with contextlib.suppress(UsageError):
        list(asking.complete(requests(*map(str, range(count)))))
    assert asking.spent <= budget + 1e-9
