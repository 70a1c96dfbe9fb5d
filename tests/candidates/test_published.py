import pytest

from geoloc.candidates.engine import Completion, Request
from geoloc.candidates.published import Published
from geoloc.candidates.replies import parse
from geoloc.errors import PhotoError, UsageError
from geoloc.storage import S3Options

GEORANKER = (
    "IMG_ID,LAT,LON,zs_gps_lis\n"
    '104123223_7410c654ba_19_50355425@N00.jpg,1,2,"[(48.8566, 2.3522), (0.0, 0.0), (45.75, 4.85)]"\n'
    '45_77_3228511372.jpg,1,2,"[(-33.85, 151.21)]"\n'
)
G3 = (
    "IMG_ID,zs_0_latitude,zs_0_longitude,5_rag_0_latitude,5_rag_0_longitude,5_rag_1_latitude,5_rag_1_longitude\n"
    "a.jpg,48.8566,2.3522,45.75,4.85,0.0,0.0\n"
)


def read(tmp_path, content: str) -> Published:
    (tmp_path / "table.csv").write_text(content)
    return Published.read(str(tmp_path / "table.csv"), S3Options())


def ask(table: Published, photo: str, prompt: str = "zero-shot", samples: int = 5):
    [(_, answer)] = table.complete([Request(photo, prompt, "", b"", samples)])
    return answer


def places(answer: Completion) -> list[tuple[float, float] | None]:
    return [found and (found.lat, found.lon) for found in map(parse, answer.replies)]


def test_georankers_table(tmp_path):
    table = read(tmp_path, GEORANKER)
    found = ask(table, "s3://photos/im2gps3k/104123223_7410c654ba_19_50355425@N00.jpg")
    assert places(found) == [(48.8566, 2.3522), None, (45.75, 4.85)]  # (0, 0) is a reply that could not be read
    assert places(ask(table, "/yfcc4k/45_77_3228511372.jpg")) == [(-33.85, 151.21)]
    assert len(ask(table, "104123223_7410c654ba_19_50355425@N00.jpg", samples=1).replies) == 1
    assert found.requests == found.prompt_tokens == 0


def test_g3s_table(tmp_path):
    table = read(tmp_path, G3)
    assert table.prompts == ["references-5", "zero-shot"]
    assert places(ask(table, "x/a.jpg")) == [(48.8566, 2.3522)]
    assert places(ask(table, "x/a.jpg", "references-5")) == [(45.75, 4.85), None]


def test_a_photo_that_is_not_in_it(tmp_path):
    assert isinstance(ask(read(tmp_path, G3), "b.jpg"), PhotoError)


@pytest.mark.parametrize(
    "content",
    ["", "a,b\n1,2\n", "IMG_ID,LAT\nx,1\n", 'IMG_ID,zs_gps_lis\nx,"__import__(1)"\n', "IMG_ID,zs_gps_lis\nx,nothing\n"],
)
def test_no_such_table(tmp_path, content):
    with pytest.raises(UsageError, match=r"--generator-replies .*table.csv: "):
        read(tmp_path, content)


def test_no_such_file(tmp_path):
    with pytest.raises(UsageError, match="there is no such file"):
        Published.read(str(tmp_path / "nothing.csv"), S3Options())
