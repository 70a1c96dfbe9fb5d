import hashlib

import pytest

from geoloc.candidates.prompts import prompt
from geoloc.errors import UsageError

SIMILAR = [(n + 0.5, -n - 0.25) for n in range(16)]
DISSIMILAR = [(-lat, -lon) for lat, lon in SIMILAR]


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        # of what the released code sends (G3's llm_predict.py, GeoRanker's lvlm_zs_predict.py, Img2Loc's img2loc_GPT4V.py)
        ("zero-shot", "aca15194f854fdfd160f4522996b0821607575fc720718988a658c75e9898e35"),
        ("references-15", "45aaf43a83c8d5981dca7f2bcf61decd94cd99ea83ca633e4782411760579109"),
        ("img2loc", "0252b8006c2b820f07491aa411a7b4b7547cea4e81aeeb0b612ce2962d5f6290"),
        ("img2loc-zero-shot", "39982bfb2d14804fcc1566e7dc0f716d3abb04fc183542ee931298bb9fdc3404"),
    ],
)
def test_published_prompts_are_the_published_bytes(name, digest):
    written = prompt(name).write(SIMILAR, DISSIMILAR)
    assert hashlib.sha256(written.encode()).hexdigest() == digest


def test_references_are_told_as_many_as_the_name_says():
    written = prompt("references-2").write(SIMILAR, DISSIMILAR)
    assert "similar images: ['[0.5, -0.25]', '[1.5, -1.25]']," in written
    assert "dissimilar images: ['[-0.5, 0.25]', '[-1.5, 1.25]']." in written


def test_places_to_choose_from_are_numbered_from_one():
    written = prompt("choose").write(dissimilar=[(7.5, 8.5)], places=[(1.5, 2.5), (3.5, 4.5)])
    assert "\n1. 1.5, 2.5\n2. 3.5, 4.5\n" in written
    assert "not taken near these: (7.5, 8.5)." in written


@pytest.mark.parametrize("name", ["references-0", "references-", "references-5000", "zeroshot", ""])
def test_unknown_prompt(name):
    with pytest.raises(UsageError, match=f"--prompts {name}"):
        prompt(name)
