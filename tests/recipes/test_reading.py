"""Recipes from names, files, runs and functions, and back to plain data."""

import dataclasses
import json

import pytest
import yaml

from geoloc.errors import UsageError
from geoloc.ranking.choosers import Density, Top1, Verification
from geoloc.ranking.rankers import GeoRanker
from geoloc.recipes.named import RECIPES
from geoloc.recipes.reading import read_recipe, recipe_from_dict, recipe_to_dict
from geoloc.recipes.recipe import Recipe, Retrieval
from geoloc.storage import S3Options
from tests.recipes.third_party import NORTH, North

S3 = S3Options()


@pytest.mark.parametrize("name", RECIPES)
def test_named_recipes_are_what_they_are_called(name):
    recipe = read_recipe(name, S3)
    assert recipe.name == name
    assert recipe_from_dict(json.loads(json.dumps(recipe_to_dict(recipe))), "x") == recipe


def test_a_recipe_in_a_file_is_what_it_says(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        """
encoder: lite
retrieval: {index: s3://bucket/index, candidates: 15, parts: image+location}
scorers:
  - kind: density
    sigma_km: 300
  - {kind: georanker, model: base, adapter: s3://bucket/ranker, skip_within_km: 25}
calibration: s3://bucket/run
min_confidence: 25km:0.5
"""
    )
    expected = Recipe(
        "mine",
        "lite",
        None,
        Retrieval(("s3://bucket/index",), 15, "image+location"),
        (Density(300.0), GeoRanker("base", "s3://bucket/ranker", skip_within_km=25.0)),
        "s3://bucket/run",
        "25km:0.5",
    )
    assert read_recipe(str(tmp_path / "mine.yaml"), S3) == expected
    (tmp_path / "again.yaml").write_text(yaml.safe_dump(recipe_to_dict(expected)))
    assert read_recipe(str(tmp_path / "again.yaml"), S3) == expected
    (tmp_path / "run.json").write_text(json.dumps({"recipe": recipe_to_dict(expected), "settings": {}}))
    assert read_recipe(str(tmp_path / "run.json"), S3) == expected


def test_a_recipe_from_a_bucket(s3):
    s3.create_bucket(Bucket="recipes")
    s3.put_object(Bucket="recipes", Key="a/near.yml", Body=b"scorers: [verification]")
    assert read_recipe("s3://recipes/a/near.yml", S3) == Recipe("near", scorers=(Verification(),))


def test_anybodys_function_and_scorer():
    recipe = read_recipe("tests.recipes.third_party:north", S3)
    assert recipe.scorers == (Top1(), North(5.0))
    data = recipe_to_dict(recipe)
    assert data["scorers"] == [{"kind": "top1"}, {"kind": NORTH, "bias": 5.0, "most": None}]
    assert recipe_from_dict(data, "x") == recipe


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a", "it is not a mapping of names to values"),
        ("encodr: lite", r"encodr: there is no such entry; there is name, encoder, model, retrieval, scorers, calibr"),
        ("retrieval: {candidates: many}", "retrieval.candidates: 'many': Input should be a valid integer"),
        ("retrieval: 7", "retrieval is not a mapping"),
        ("scorers: top1", "scorers: is not a list"),
        (
            "scorers: [best]",
            r"scorers\[0\].kind: 'best': there is top1, density, verification, generated, light, georanker, or package",
        ),
        ("scorers: [{kind: density, width: 3}]", r"scorers\[0\].width: there is no such entry; there is sigma_km"),
        ("scorers: [{kind: 'no.such:Thing'}]", r"scorers\[0\].kind: no.such:Thing: cannot import it"),
        ("scorers: [{kind: [a]}]", r"scorers\[0\].kind: \['a'\]: there is top1"),
        ("scorers: [{kind: 'tests.recipes.third_party:Nameless'}]", "Nameless has no name"),
        ("scorers: [{kind: 'json:JSONDecoder'}]", r"scorers\[0\].kind: json:JSONDecoder: is no Scorer"),
        ("{", "cannot read it"),
    ],
)
def test_a_file_that_does_not_fit(tmp_path, text, message):
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(UsageError, match=rf"--recipe .*{message}"):
        read_recipe(str(tmp_path / "recipe.yaml"), S3).check(S3)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "best",
            "there is geoclip, lknn, light, georanker, georanker-yfcc4k, georanker-retrieved, g3, img2loc, prompting, "
            "geosurge, planet, isns, cplanet, pigeon, lite; or name a .yaml file",
        ),
        ("/nowhere/a.yaml", "no such file"),
        ("no.such.module:recipe", r"cannot import it .*; is it on PYTHONPATH\?"),
        ("json:nothing", "cannot import it"),
        ("antigravity.nothing:recipe", "cannot import it"),
        ("json:dumps", "gives no recipe"),
        ("json:JSONDecoder", "gives JSONDecoder, not a Recipe"),
    ],
)
def test_a_name_that_is_no_recipe(name, message):
    with pytest.raises(UsageError, match=rf"--recipe {name}: {message}"):
        read_recipe(name, S3)


def test_a_run_without_a_recipe(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(UsageError, match=r"--recipe .*run.json: holds no recipe; give the run.json of"):
        read_recipe(str(tmp_path / "run.json"), S3)


@pytest.mark.parametrize(
    ("scorers", "message"),
    [
        ((), "its scorers are none; a chooser can only be the first"),
        ((Top1(), Density()), "its scorers are top1, density; a chooser can only be the first"),
        ((North(), Top1()), "its scorers are north, top1; a chooser can only be the first"),
        (
            (North(), North(3.0)),
            "its scorers are called north, north; they need names of their own, other than candidates",
        ),
    ],
)
def test_scorers_that_do_not_go_together(scorers, message):
    with pytest.raises(UsageError, match=f"--recipe x: {message}"):
        Recipe("x", "lite", scorers=scorers).check(S3)


def test_a_ranker_alone_ranks_what_is_most_similar():
    recipe = Recipe("x", "lite", scorers=(North(),))
    recipe.check(S3)
    assert (recipe.chooser, recipe.rankers) == (Top1(), (North(),))


def test_each_ranker_has_what_the_one_before_it_ranked():
    first, second = North(most=9), dataclasses.replace(North(most=4))
    recipe = Recipe("x", "lite", scorers=(first, second), retrieval=Retrieval(candidates=12))
    assert [options.ranked for options in recipe.rank_options(S3)] == [9, 4]


def test_paths_mean_the_same_from_anywhere(tmp_path, monkeypatch):
    for name in ("index", "base", "lite", "geoclip"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    scorers = (Top1(), GeoRanker("base", "index"))
    recipe = Recipe("x", "geoclip", "local-dir:lite", Retrieval(("index",)), scorers, "s3://bucket/run").pinned(S3)
    assert (recipe.encoder, recipe.model) == ("geoclip", f"local-dir:{tmp_path}/lite")
    assert recipe.retrieval.index == (str(tmp_path / "index"),)
    assert recipe.scorers == (Top1(), GeoRanker(str(tmp_path / "base"), str(tmp_path / "index")))
    assert recipe.calibration == "s3://bucket/run"
