import numpy as np
import pytest
import torch

from geoloc.errors import UsageError
from geoloc.geocells.inference import posterior
from geoloc.geocells.methods import METHODS, GeocellChoices, GeocellOptions
from geoloc.geocells.model import TEMPERATURE, Geocells

LINEAGE = torch.tensor([[0, 0], [0, 1], [1, 2]])
"""Two cells, of which the first is divided in two."""


@pytest.fixture
def model() -> Geocells:
    torch.manual_seed(0)
    return Geocells(8, [2, 3], width=4).requires_grad_(False)


def reference(model: Geocells, vector: np.ndarray) -> list[np.ndarray]:
    """Cosines of one photo with the cells of each partition, from the formulas."""
    unit = vector / np.linalg.norm(vector)
    scaled = (unit - unit.mean()) / np.sqrt(unit.var() + 1e-5)
    photo = model.image.weight.numpy() @ scaled + model.image.bias.numpy()
    return [
        np.array([cell @ photo / np.linalg.norm(cell) / np.linalg.norm(photo) for cell in cells.numpy()])
        for cells in model.cells
    ]


def softmax(values: np.ndarray) -> np.ndarray:
    return np.exp(values) / np.exp(values).sum()


def test_a_place_scores_as_the_product_of_the_cells_it_is_in(model, random):
    vectors = random.normal(size=(5, 8)).astype(np.float32)
    photos = model.photos(torch.from_numpy(vectors))
    for combine in ("product", "sum", "literal", "finest"):
        found = posterior(model, photos, LINEAGE, combine).exp().numpy()
        for row, vector in enumerate(vectors):
            cosines = reference(model, vector)
            coarse, fine = (softmax(of_level / TEMPERATURE) for of_level in cosines)
            expected = {
                "product": [np.sqrt(coarse[a] * fine[b]) for a, b in LINEAGE.tolist()],
                "sum": [coarse[a] + fine[b] for a, b in LINEAGE.tolist()],
                "finest": [fine[b] for _, b in LINEAGE.tolist()],
                "literal": [
                    np.sqrt(max(cosines[0][a], 1e-12) * max(cosines[1][b], 1e-12)) for a, b in LINEAGE.tolist()
                ],
            }[combine]
            np.testing.assert_allclose(found[row], expected / np.sum(expected), rtol=2e-3, atol=1e-6)


def test_two_negative_cosines_are_no_match():
    """The raw product of the paper's text would make them win (GeoSURGE §III-D)."""
    model = Geocells(2, [2, 2], width=2).requires_grad_(False)
    model.image.weight.copy_(torch.eye(2))
    model.image.bias.zero_()
    for cells in model.cells:
        cells.copy_(torch.tensor([[-0.9, -0.1], [0.2, 0.1]]))
    photos = model.photos(torch.tensor([[3.0, 1.0]]))  # [1, -1] when it is normalised
    cosines = [float(model.cosines(photos, 0)[0, n]) for n in (0, 1)]
    assert cosines[0] < 0 < cosines[1]
    assert cosines[0] ** 2 > cosines[1] ** 2
    for combine in ("product", "literal"):
        assert posterior(model, photos, torch.tensor([[0, 0], [1, 1]]), combine).argmax() == 1


def test_a_classifier_is_a_linear_layer(random):
    model = Geocells(8, [3], head="classifier").requires_grad_(False)
    vector = random.normal(size=8).astype(np.float32)
    unit = vector / np.linalg.norm(vector)
    scaled = (unit - unit.mean()) / np.sqrt(unit.var() + 1e-5)
    expected = model.classes[0].weight.numpy() @ scaled + model.classes[0].bias.numpy()
    photos = model.photos(torch.from_numpy(vector[None]))
    np.testing.assert_allclose(model.logits(photos, 0)[0].numpy(), expected, rtol=1e-4)
    np.testing.assert_allclose(model.logits(photos, 0, torch.tensor([2, 0]))[0].numpy(), expected[[2, 0]], rtol=1e-4)


def test_its_size_is_the_papers():
    """An embedding of 768 for each cell, and a temperature for each partition; CLIP's 1,024 features in front (§IV)."""
    sizes = [100, 300, 700]
    model = Geocells(1024, sizes)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == sum(sizes) * 768 + 3 + (1024 * 768 + 768) + 2 * 1024
    assert model.sizes == tuple(sizes)


def test_methods_are_what_their_papers_say():
    for options in METHODS.values():
        options.check()
    assert len(METHODS["geosurge"].most) == 7
    assert GeocellChoices("planet", most=(9,), fewest=3).options() == GeocellOptions(
        most=(9,), fewest=3, head="classifier", combine="finest"
    )


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"most": (100, 200)}, "--most 100 200: must be numbers that fall"),
        ({"fewest": 500}, "--fewest 500: .* below the smallest of --most, 500"),
        ({"smoothing_km": 65}, "add --negatives all-cells"),
        ({"method": "planet", "combine": "literal"}, "which --head classifier has none of"),
        ({"turned": True, "combine": "literal"}, "--turned: goes with neither"),
        ({"start_level": 31}, "--start-level 31"),
        ({"width": 0}, "--width 0"),
        ({"smoothing_km": -1}, "--smoothing-km -1"),
    ],
)
def test_options_that_do_not_go_together(changes, match):
    with pytest.raises(UsageError, match=match):
        GeocellChoices(**changes).options().check()
