"""Recipes by name: the field's systems and baselines, and the papers that they are from."""

from collections.abc import Callable

from geoloc.ranking.choosers import Density, Top1
from geoloc.ranking.rankers import GeoRanker
from geoloc.recipes.recipe import Recipe


def geoclip() -> Recipe:
    """GeoCLIP (Vivanco et al. 2023, §3): the gallery coordinate, or the reference, that is most similar to the photo."""
    return Recipe("geoclip")


def lknn() -> Recipe:
    """[L]kNN (Vo et al. 2017, §4.2): where the photo's neighbours are densest, with CLIP's vectors."""
    return Recipe("lknn", scorers=(Density(),))


def georanker() -> Recipe:
    """GeoRanker (§3.2): retrieved places in the order of a vision-language model. Wants --ranker-model and --ranker-adapter."""
    return Recipe("georanker", scorers=(Top1(), GeoRanker()))


def lite() -> Recipe:
    """A weak encoder that runs on any CPU and needs no hub, for demonstrations and tests. Wants an --index of photos."""
    return Recipe("lite", encoder="lite")


RECIPES: dict[str, Callable[[], Recipe]] = {recipe.__name__: recipe for recipe in (geoclip, lknn, georanker, lite)}
