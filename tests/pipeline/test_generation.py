"""The archive job with candidates from a model, on a real cluster, against an endpoint over HTTP."""

import dataclasses
import json
from collections import Counter

import pytest

from geoloc.errors import UsageError
from geoloc.pipeline.archive import geotag_archive
from geoloc.pipeline.job_options import ArchiveOptions
from geoloc.recipes.options import RecipeOptions
from geoloc.storage import Folder
from geoloc.toy.archive import write_archive
from tests.candidates.servers import Response, endpoint, error, replied
from tests.conftest import with_recipe
from tests.pipeline.archives import rows_of

pytestmark = pytest.mark.usefixtures("ray_cluster")


@pytest.fixture(scope="module")
def archive(planet, tmp_path_factory):
    root = tmp_path_factory.mktemp("generated")
    write_archive(root / "archive", root / "truth.csv", planet, 24)
    return root


@pytest.fixture
def options(archive, toy_index, tmp_path) -> ArchiveOptions:
    recipe = {"recipe": "img2loc", "encoder": "lite", "index": str(toy_index), "generator_model": "some-model"}
    return ArchiveOptions(str(archive / "archive"), str(tmp_path / "out"), RecipeOptions(**recipe), context="off")


def test_georanker_ranks_retrieved_and_generated_candidates(options, toy_base, toy_adapter, caplog, tmp_path):
    caplog.set_level("INFO", "geoloc")
    with endpoint() as server:
        recipe = {
            "recipe": "georanker",
            "generator_endpoint": server.url,
            "candidates": 16,
            "generator_prices": (2.5, 10.0),
        }
        recipe |= {"ranker_model": str(toy_base), "ranker_adapter": str(toy_adapter)}
        assert geotag_archive(with_recipe(options, **recipe)) == 0
    located = [row for row in rows_of(options) if row["status"] == "located"]
    for row in located:
        assert row["method"] == "georanker"
        assert Counter(c["source"] for c in row["candidates"]) == {"retrieved": 12, "generated": 1}
        [generated] = [c for c in row["candidates"] if c["source"] == "generated"]
        assert generated["prompts"] == ["zero-shot"] * 3
        assert generated["score"] is not None
        assert row["generation"]["prompt_tokens"] == 300
    assert "some-model at http://127.0.0.1" in caplog.text
    assert "1 generator actor (models elsewhere" in caplog.text
    assert f"Candidates of a model: {len(located)} photos asked about" in caplog.text
    assert "1.35 a thousand photos" in caplog.text  # 300 tokens at 2.5 and 60 at 10 a million
    assert b"Candidates of a model" in Folder(options.output).read("report.html")
    settings = json.loads(Folder(options.output).read("run.json"))["settings"]["method"]["generation"]
    assert (settings["prompts"], settings["candidates"], settings["model"]) == (["zero-shot"], 3, "some-model")


@pytest.mark.slow
def test_cut_off_again_and_again_no_reply_is_paid_twice(options):
    """One call in five fails. The key is refused amid the work, then the budget is used up, then one photo is refused: the same
    command goes on, and that photo is asked about again where that is wanted."""
    key_expires, ill = {8}, []

    def script(body: dict, number: int) -> Response:
        if len(server.paid) in key_expires:
            key_expires.discard(len(server.paid))
            return error(401, "the key has expired")
        messages = json.dumps(body["messages"])
        if len(server.paid) > 16 and not ill:
            ill.append(messages)
        if messages in ill:
            return error(418, "teapot")
        return error(503, "busy", {"Retry-After": "0.1"}) if number % 5 == 4 else replied(body)

    with endpoint(script) as server:
        asking = with_recipe(options, generator_endpoint=server.url, generator_concurrency=2)
        with pytest.raises(UsageError, match="wants a key"):
            geotag_archive(asking)
        before, prices = len(server.paid), {"generator_prices": (1000.0, 0.0), "generation_budget": 1.6}  # 0.3 a photo
        with pytest.raises(UsageError, match=r"--generation-budget 1\.6: is used up"):
            geotag_archive(with_recipe(asking, **prices))
        assert 300 * (len(server.paid) - before - 1) / 1000 <= 1.6
        assert geotag_archive(asking) == 0
        kinds = Counter((row["method"], row["error_kind"]) for row in rows_of(options) if row["status"] == "located")
        assert kinds["generated (generation failed)", "refused"] == 1
        assert set(kinds) == {("generated (generation failed)", "refused"), ("generated", None)}
        ill[:] = ["nothing"]
        photos = dataclasses.replace(asking.photos, retry=("refused",))
        assert geotag_archive(dataclasses.replace(asking, photos=photos)) == 0
        rows = rows_of(options)
        assert len(rows) == len({row["id"] for row in rows}) == 24
        located = [row for row in rows if row["status"] == "located"]
        assert {(row["method"], row["error_kind"]) for row in located} == {("generated", None)}
        checks = 4  # each start asks about a grey picture, which is not kept
        assert len(server.paid) == len(located) + checks
        assert len({messages for messages, _ in server.paid}) == len(located) + 1
        assert sum(row["generation"]["prompt_tokens"] for row in located) == 300 * len(located)


@pytest.mark.parametrize(
    ("response", "match"),
    [
        (error(401, "no"), "wants a key"),
        (error(500, "image input is not supported"), "does not answer about a picture"),
        (Response(body=b"{}"), "does not answer about a picture"),
    ],
)
def test_an_endpoint_that_cannot_serve_stops_before_any_photo(options, response, match):
    with endpoint(lambda body, number: response) as server, pytest.raises(UsageError, match=match):
        geotag_archive(with_recipe(options, generator_endpoint=server.url))
    assert not Folder(options.output).exists("geotags")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({}, "--generator-endpoint: --generator endpoint needs it"),
        ({"generator_endpoint": "nowhere"}, "--generator-endpoint nowhere: is no http"),
        ({"generator": "transformers", "generator_model": "/nowhere"}, "--generator-model /nowhere: cannot be loaded"),
        ({"generator": "published"}, "--generator-replies: --generator published needs it"),
        ({"recipe": "lite"}, "--generator-model some-model: recipe lite asks no model"),
        (
            {"generator_endpoint": "http://x/v1", "candidates": 8},
            "--candidates 8: its prompts tell the 16 most similar",
        ),
    ],
)
def test_a_generator_that_cannot_be_used(options, change, match):
    with pytest.raises(UsageError, match=match):
        geotag_archive(with_recipe(options, **change))


@pytest.mark.slow
def test_published_candidates_stand_in_for_the_model(options, archive, tmp_path):
    photos = sorted(path.name for path in (archive / "archive").rglob("*") if path.is_file())
    lines = [f'"{name}","[(48.8566, 2.3522), (0.0, 0.0)]"' for name in photos]
    (tmp_path / "zs.csv").write_text("\n".join(["IMG_ID,zs_gps_lis", *lines]))
    recipe = {"generator": "published", "generator_replies": str(tmp_path / "zs.csv"), "prompts": ("zero-shot",)}
    assert geotag_archive(with_recipe(options, generated_candidates=2, **recipe)) == 0
    located = [row for row in rows_of(options) if row["status"] == "located"]
    assert {(row["lat"], row["lon"]) for row in located} == {(48.8566, 2.3522)}
    assert {row["generation"]["unread"] for row in located} == {1}
    assert not Folder(options.output).exists("replies")


def test_a_dry_run_tells_what_it_would_cost_and_asks_nobody(options, caplog):
    caplog.set_level("INFO", "geoloc")
    with endpoint() as server:
        asking = with_recipe(options, generator_endpoint=server.url, generator_prices=(2.5, 10.0), generate_share=0.5)
        assert geotag_archive(dataclasses.replace(asking, dry_run=True)) == 0
        assert not server.asked
    assert not Folder(options.output).names()
    assert "Photos: 24" in caplog.text
    assert f"some-model at {server.url}; photos are sent there" in caplog.text
    assert "If 50% of them are asked about, by the lengths of prompts, pictures and replies: 12 requests" in caplog.text
    assert "a thousand photos" in caplog.text
