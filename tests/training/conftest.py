"""A ranker's training set, made without a cluster."""

from pathlib import Path

import pyarrow as pa
import pytest

from geoloc.storage import Folder


@pytest.fixture(scope="session")
def georanking(toy, toy_index, tmp_path_factory) -> Path:
    """Of 30 of the toy's references, with 7 of the others each, of which 4 are ranked."""
    from geoloc.encoders.config import encoder_config
    from geoloc.encoders.image import ImageEncoder
    from geoloc.estimate.retriever import Retriever
    from geoloc.photos.examine import DecodeOptions
    from geoloc.photos.load import LoadOptions, PhotoLoader
    from geoloc.pipeline.georanking import PARTS
    from geoloc.pipeline.run import SUCCESS
    from geoloc.ranking.georanking import GeoRanking, Retrieved
    from geoloc.ranking.options import GeoRankingOptions
    from geoloc.results.parts import Parts
    from geoloc.schema import MANIFEST

    folder = Folder(str(tmp_path_factory.mktemp("georanking")))
    options = GeoRankingOptions(references=7, ranked=4)
    retriever = Retriever(ImageEncoder(encoder_config("lite")), [Folder(str(toy_index))])
    maker, view = GeoRanking(Retrieved(retriever, options), options), retriever.view
    loader = PhotoLoader(LoadOptions(DecodeOptions(view, need_position=True, thumbnail_px=448)))
    files = sorted(str(path) for path in (toy / "references").rglob("*.jpg"))[::2]
    photos = pa.Table.from_pylist([{"id": n, "uri": file} for n, file in enumerate(files)], MANIFEST)
    for batch in loader.load(photos, batch_rows=8):
        Parts(folder / PARTS).add(maker.build(batch))
    folder.write(SUCCESS, b"")
    return Path(folder.path())
