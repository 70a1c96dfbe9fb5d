"""Options that change a recipe's parts."""

import pytest

from geoloc.errors import UsageError
from geoloc.ranking.choosers import Density, Light, Top1
from geoloc.ranking.rankers import GeoRanker
from geoloc.recipes.named import georanker_retrieved, lite
from geoloc.recipes.options import RecipeOptions, vary
from geoloc.recipes.recipe import Recipe, Retrieval
from geoloc.storage import S3Options

S3 = S3Options()


def test_what_is_not_given_stays_as_the_recipe_has_it():
    assert RecipeOptions(recipe="lite").read(S3) == lite()
    assert RecipeOptions().read(S3).name == "geoclip"


def test_parts_are_replaced_one_by_one():
    options = RecipeOptions(
        recipe="georanker-retrieved",
        encoder="lite",
        index="i",
        candidates=9,
        chooser="density",
        density_sigma_km=100,
        ranker_model="m",
        ranker_adapter="a",
        skip_ranking_within_km=25,
        calibration="c",
    )
    scorers = (Density(100.0), GeoRanker("m", "a", skip_within_km=25.0))
    assert options.read(S3) == Recipe("georanker-retrieved", "lite", None, Retrieval(("i",), 9), scorers, "c")


def test_another_encoder_has_its_own_tower(tmp_path):
    (tmp_path / "r.yaml").write_text("encoder: geoclip\nmodel: local-dir:/clip")
    options = RecipeOptions(recipe=str(tmp_path / "r.yaml"), encoder="lite")
    assert (options.read(S3).encoder, options.read(S3).model) == ("lite", None)
    assert RecipeOptions(recipe=str(tmp_path / "r.yaml"), model="other").read(S3).model == "other"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"ranker_cache_gb": 3},
            "--ranker-cache-gb 3.0: recipe lite has no GeoRanker; --recipe georanker-retrieved has",
        ),
        ({"density_sigma_km": 3}, "--density-sigma-km 3: is about the chooser density; add --chooser density"),
    ],
)
def test_an_option_of_a_part_that_is_not_there(changes, message):
    with pytest.raises(UsageError, match=message):
        RecipeOptions(recipe="lite", **changes).read(S3)


def test_a_light_ranker_is_a_chooser():
    options = RecipeOptions(recipe="georanker-retrieved", light_ranker="folder", ranker_model="m", ranker_adapter="a")
    assert options.read(S3).scorers == (Light("folder"), GeoRanker("m", "a"))
    assert RecipeOptions(recipe="light", light_ranker="folder").read(S3).chooser == Light("folder")
    with pytest.raises(UsageError, match="--light-ranker folder: is about the chooser light, not top1"):
        RecipeOptions(recipe="lite", chooser="top1", light_ranker="folder").read(S3)
    with pytest.raises(UsageError, match=r"--parts image: a light ranker learned from all parts"):
        RecipeOptions(recipe="light", light_ranker="folder", parts="image").read(S3).check(S3)
    asking = RecipeOptions(recipe="img2loc", light_ranker="f", generator_model="m", generator_endpoint="http://x/v1")
    with pytest.raises(UsageError, match="--light-ranker f: knows no evidence for places that a model names"):
        asking.read(S3).check(S3)


def test_every_combination_has_a_name():
    assert vary(lite()) == [lite()]
    found = vary(georanker_retrieved(), ["top1", "density"], [5, 20], ["image"], 100.0)
    assert [recipe.name for recipe in found] == [
        "georanker-retrieved: top1 of 5 by image",
        "georanker-retrieved: top1 of 20 by image",
        "georanker-retrieved: density of 5 by image",
        "georanker-retrieved: density of 20 by image",
    ]
    assert [recipe.retrieval.candidates for recipe in found] == [5, 20, 5, 20]
    assert found[3].scorers == (Density(100.0), GeoRanker())
    assert found[0].scorers == (Top1(), GeoRanker())
