"""Recipes by name: the field's systems and baselines, and the papers that they are from."""

from collections.abc import Callable

from geoloc.candidates.options import Generation, Sampling
from geoloc.ranking.choosers import Density, Generated, Light, Top1, Verification
from geoloc.ranking.rankers import GeoRanker
from geoloc.recipes.recipe import Recipe, Retrieval


def geoclip() -> Recipe:
    """GeoCLIP (Vivanco et al. 2023, §3): the gallery coordinate, or the reference, that is most similar to the photo."""
    return Recipe("geoclip")


def lknn() -> Recipe:
    """[L]kNN (Vo et al. 2017, §4.2): where the photo's neighbours are densest, with CLIP's vectors."""
    return Recipe("lknn", scorers=(Density(),))


def light() -> Recipe:
    """Pinpoint's one-step reranker: a small network puts places in order by their evidence. Wants --light-ranker from train_light.py, and
    the indexes that it learned with."""
    return Recipe("light", scorers=(Light(),))


def georanker() -> Recipe:
    """GeoRanker (§3.2, §3.4, §4.1) as published for IM2GPS3K: 12 retrieved and 3 generated places in the order of a vision-language
    model. Wants --ranker-model and --ranker-adapter, and a --generator-model with its --generator-endpoint."""
    return Recipe("georanker", generation=Generation(candidates=3), scorers=(Top1(), GeoRanker(candidates=12)))


def georanker_yfcc4k() -> Recipe:
    """The same as published for YFCC4K (§4.1): 14 retrieved and 5 generated."""
    return Recipe("georanker-yfcc4k", generation=Generation(candidates=5), scorers=(Top1(), GeoRanker(candidates=14)))


def georanker_retrieved() -> Recipe:
    """GeoRanker of retrieved places alone (its ablation "w/o generated", Table 2), which sends no photo anywhere."""
    return Recipe("georanker-retrieved", scorers=(Top1(), GeoRanker()))


def g3() -> Recipe:
    """G3 (§3.2-3.4, and its code): candidates of four prompts, with 0, 5, 10 and 15 references, five each (geo-diversification),
    and the first retrieved one; the best match in location space (geo-verification). Wants its alignment as --encoder, an --index
    made with it, and a --generator-model with its --generator-endpoint."""
    prompts = ("references-5", "references-10", "references-15", "zero-shot")
    return Recipe("g3", generation=Generation(prompts, candidates=5), scorers=(Verification(retrieved=1),))


def img2loc() -> Recipe:
    """Img2Loc (Zhou et al. 2024, §3, and its code): what a model says that is told the 16 most and the 16 least similar references.
    Wants an --index of CLIP vectors, and a --generator-model with its --generator-endpoint."""
    sampling = Sampling(temperature=None, max_tokens=300)
    return Recipe(
        "img2loc", generation=Generation(("img2loc",), candidates=1, sampling=sampling), scorers=(Generated(),)
    )


def prompting() -> Recipe:
    """GeoRanker's baseline "Prompting" (§4.5): a model chooses among the retrieved and generated candidates, which are listed."""
    return Recipe("prompting", generation=Generation(("zero-shot", "choose"), candidates=3), scorers=(Generated(),))


def geosurge() -> Recipe:
    """GeoSURGE (§III), on a frozen encoder's vectors and without its semantic fusion: the most probable of learned cells in a
    hierarchy. Wants --index from train_geocells.py, as the next four do."""
    return Recipe("geosurge", retrieval=Retrieval(cells=True))


def planet() -> Recipe:
    """PlaNet (Weyand et al. 2016): a classifier of cells."""
    return Recipe("planet", retrieval=Retrieval(cells=True))


def isns() -> Recipe:
    """ISNs' base network (Müller-Budack et al. 2018, §3.3): three partitions, multiplied down the hierarchy, without scene labels."""
    return Recipe("isns", retrieval=Retrieval(cells=True))


def cplanet() -> Recipe:
    """CPlaNet (Seo et al. 2018): classifiers of several partitions, whose scores are added up where their cells intersect."""
    return Recipe("cplanet", retrieval=Retrieval(cells=True))


def pigeon() -> Recipe:
    """PIGEON (Haas et al. 2024, §3.2): a classifier of cells that learns from how near each is."""
    return Recipe("pigeon", retrieval=Retrieval(cells=True))


def lite() -> Recipe:
    """A weak encoder that runs on any CPU and needs no hub, for demonstrations and tests. Wants an --index of photos."""
    return Recipe("lite", encoder="lite")


_ALL = (geoclip, lknn, light, georanker, georanker_yfcc4k, georanker_retrieved, g3, img2loc, prompting)
_ALL += (geosurge, planet, isns, cplanet, pigeon, lite)
RECIPES: dict[str, Callable[[], Recipe]] = {recipe.__name__.replace("_", "-"): recipe for recipe in _ALL}
