"""A recipe's stages, for whatever requests are there. Without Ray."""

import pyarrow as pa
from PIL import Image

from geoloc.estimate.locator import Locator
from geoloc.photos.views import Picture
from geoloc.recipes.method import Method
from geoloc.schema import LOCATED, PICTURE, packed
from geoloc.serving.options import S3, ModelOptions
from geoloc.storage import Folder, cache_folder


def find_method(options: ModelOptions) -> Method:
    """With its index on this machine. Raises UsageError."""
    return Method.find(options.read(S3), Folder(str(cache_folder()), S3))


class Retrieval:
    """The first stage: rows of LOADED to rows of LOCATED, with ``picture`` where they are to be ranked."""

    def __init__(self, options: ModelOptions, device: str = "cpu", threads: int = 1) -> None:
        """Raises UsageError where the options do not go together."""
        method = find_method(options)
        self._locator = Locator.load(method.locator_options(), device, threads)
        self.index, encoder = self._locator.retriever.index, self._locator.retriever.encoder
        method.check_encoder(encoder.fingerprint)
        known = method.facts(encoder.view, encoder.dimension, encoder.fingerprint)
        method.check_calibration(known.weights)
        self.view, self.picture_view = known.view, known.picture_view
        self.facts = {
            "recipe": method.recipe.name,
            "encoder": method.config.name,
            "model": method.config.model,
            "weights": known.weights,
            "candidates": method.recipe.retrieval.candidates,
            "scorers": [method.recipe.chooser.name, *(ranker.name for ranker in method.recipe.rankers)],
            "index": {
                "fingerprint": method.index_fingerprint,
                "kind": "+".join(info.kind for info in method.infos),
                "rows": sum(info.rows for info in method.infos),
            },
            "calibrated": method.recipe.calibration is not None,
        }

    def locate(self, loaded: list[pa.Table]) -> list[pa.Table]:
        return _rows(self._locator.locate(pa.concat_tables(loaded)))


class Ranking:
    """The stages behind it: rows of LOCATED to rows of LOCATED."""

    def __init__(self, options: ModelOptions, device: str = "cpu", threads: int = 1) -> None:
        self._method = find_method(options)
        self._sample = _sample(self._method)
        self._answers = [stage.build(device, threads) for stage in self._method.stages()[1:]]

    def rank(self, located: list[pa.Table]) -> list[pa.Table]:
        table = pa.concat_tables(located)
        for answer in self._answers:
            table = answer(table)
        return _rows(table)

    def check(self, requests: list[None]) -> list[str | None]:
        """What is wrong when the rankers are to rank a sample."""
        answers = self.rank([self._sample] * len(requests))
        return [answer["error"][0].as_py() for answer in answers]


def _sample(method: Method) -> pa.Table:
    """A row of LOCATED, with ``picture``, to be ranked: a grey picture, and the index's first places."""
    index, view = method.open_index(), method.recipe.rankers[0].probe(method.s3).view
    places = [
        {"lat": index.lat[n], "lon": index.lon[n], "score": 0.0, "similarity": 0.0, "reference_id": n}
        for n in range(method.recipe.retrieval.candidates)
    ]
    grey = packed(view.of(Picture.of(Image.new("RGB", (64, 64), "grey"))))
    row = {"status": "located", "method": "check", "candidates": places, "picture": grey}
    fields = [field for field in LOCATED if field.name not in ("geometry", "bbox")]
    return pa.Table.from_pylist([row], pa.schema([*fields, pa.field("picture", PICTURE)]))


def _rows(table: pa.Table) -> list[pa.Table]:
    return [table.slice(row, 1) for row in range(table.num_rows)]
