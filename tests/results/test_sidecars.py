import json
import os
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET

import pytest
from PIL import Image

from geoloc.photos.decode import PhotoFile
from geoloc.photos.metadata import Sidecar
from geoloc.results.sidecars import SidecarTree, is_ours, sidecar
from geoloc.storage import Folder
from geoloc.toy.archive import _exif
from tests.photos.test_metadata import ATTRIBUTES, takeout, xmp
from tests.results.test_results import PARIS, export, parts_of, results, row

needs_exiftool = pytest.mark.skipif(not shutil.which("exiftool"), reason="needs exiftool")


def tree(folder, **options) -> SidecarTree:
    return SidecarTree(Folder(str(folder)), "/photos", **options)


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.rglob("*.xmp"))


def test_a_sidecar_holds_the_estimate_as_precisely_as_it_is_known():
    data = sidecar(row(1, lat=-33.8568, lon=-151.2153, place={**PARIS, "city": '<O\'Brien & "sons">'}))
    description = ET.fromstring(data.split(b"?>", 1)[1].rsplit(b"<?xpacket", 1)[0])[0][0]
    values = {key.split("}")[-1]: value for key, value in description.attrib.items()}
    assert values["GPSLatitude"] == "33,51.6000000S"
    assert values["GPSLongitude"] == "151,13.2000000W"
    assert values["City"] == '<O\'Brien & "sons">'
    assert values["GPSHPositioningError"] == "12500/1"
    said = 'known place of "a<b>&.jpg", 3 minutes later'
    again = ET.fromstring(sidecar(row(1, because=said)).split(b"?>", 1)[1].rsplit(b"<?xpacket", 1)[0])[0][0]
    assert any(value.endswith(f", not a measurement, {said}") for value in again.attrib.values())
    assert b"City" not in sidecar(row(1, radius_km=26.0))
    assert b"City" not in sidecar(row(1, place=PARIS | {"city_km": 20.0}))
    assert b"State" not in sidecar(row(1, radius_km=201.0))
    assert b"Country" not in sidecar(row(1, radius_km=751.0))


def test_ours_are_renewed_and_withdrawn_and_others_left(tmp_path):
    (tmp_path / "é #0.jpg.xmp").write_text("mine")
    done = tree(tmp_path).update(list, [[row(0), row(1)], [row(2)]])
    assert done == {"written": 2, "held back, a sidecar of somebody else's being there": 1}
    assert (tmp_path / "é #0.jpg.xmp").read_text() == "mine"

    edited = tmp_path / "é #2.jpg.xmp"
    edited.write_bytes(edited.read_bytes().replace(b"Paris", b"Lutetia"))
    done = tree(tmp_path).update(list, [[row(1, lat=10.0), row(2)]])
    assert done == {"renewed": 1, "held back, a sidecar of somebody else's being there": 1}
    assert tree(tmp_path).update(list, [[row(1, lat=10.0)]]) == {"there already": 1}

    assert tree(tmp_path).update(list, [[row(3)]]) == {"written": 1, "withdrawn": 1}
    assert tree(tmp_path).take_back() == 1
    assert names(tmp_path) == ["é #0.jpg.xmp", "é #2.jpg.xmp"]


def test_photos_of_another_file_of_results_have_names_too(tmp_path):
    rows = [row(0, uri="/photos/x.jpg"), row(1, uri="/photos/y.jpg"), row(2, uri="/photos/x.heic")]
    done = tree(tmp_path, names="photo.xmp").update(list, [rows[:2], rows[2:]])
    assert done == {"written": 2, "held back, another photo having the same photo.xmp": 1}
    assert b"48,51" in (tmp_path / "x.xmp").read_bytes()


def test_a_folder_that_cannot_be_listed_is_not_empty(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.jpg.xmp").write_text("mine")
    one = tree(tmp_path)
    listed = one.folder.filesystem.ls

    def forbidden(path, **options):
        if str(path).endswith("/a"):
            raise PermissionError("Access Denied")
        return listed(path, **options)

    monkeypatch.setattr(one.folder.filesystem, "ls", forbidden)
    with pytest.raises(PermissionError):
        one.update(list, [[row(0, uri="/photos/a/x.jpg")]])
    assert (tmp_path / "a" / "x.jpg.xmp").read_text() == "mine"


def test_nothing_to_be_there_withdraws_all_of_ours(tmp_path):
    tree(tmp_path).update(list, [[row(0)]])
    assert tree(tmp_path).update(list, []) == {"withdrawn": 1}


def test_in_a_bucket(s3):
    s3.create_bucket(Bucket="sidecars")
    s3.put_object(Bucket="sidecars", Key="xmp/x 0.jpg.xmp", Body=b"mine")
    bucket = SidecarTree(Folder("s3://sidecars/xmp"), "/photos")
    rows = [row(n, uri=f"/photos/x {n}.jpg") for n in range(3)]
    assert bucket.update(list, [rows])["written"] == 2
    assert bucket.take_back() == 2
    assert [entry["Key"] for entry in s3.list_objects_v2(Bucket="sidecars")["Contents"]] == ["xmp/x 0.jpg.xmp"]


def test_both_ways_of_names(tmp_path):
    rows = [row(0, uri="/photos/a/x.jpg"), row(1, uri="/photos/a/x.heic"), row(2, uri="/photos/no-suffix")]
    tree(tmp_path / "one").update(list, [rows])
    assert names(tmp_path / "one") == ["no-suffix.xmp", "x.heic.xmp", "x.jpg.xmp"]
    done = tree(tmp_path / "two", names="photo.xmp").update(list, [rows])
    assert names(tmp_path / "two") == ["no-suffix.xmp", "x.xmp"]
    assert done["held back, another photo having the same photo.xmp"] == 1


def test_long_names_and_names_that_are_no_text(tmp_path):
    rows = [
        row(0, uri=f"/photos/{'ü' * 124}.jpg"),
        row(1, uri="/photos/\\udcff.jpg"),
        row(2, uri="/photos/../../x.jpg"),
        row(3, uri="/photos/a.tar/x\0.jpg"),
        row(4, uri=f"/photos/a.tar/{'d' * 300}/x.jpg"),
    ]
    done = tree(tmp_path / "xmp").update(list, [rows])
    assert done == {"held back, their names being too long for a file's, or none": 3, "written": 2}
    assert sorted(os.listdir(os.fsencode(tmp_path / "xmp"))) == [b"x.jpg.xmp", b"\xff.jpg.xmp"]


def test_our_own_sidecar_is_no_knowledge():
    data = sidecar(row(0))
    assert is_ours(data)
    assert PhotoFile(_jpeg()).carried.metadata("x.jpg", [Sidecar("x.jpg.xmp", data)]).position.state == "none"


def test_one_that_somebody_put_right_is_theirs():
    data = sidecar(row(0))
    lat = re.search(rb'exif:GPSLatitude="(.*?)"', data)[1]
    position = (
        PhotoFile(_jpeg()).carried.metadata("x.jpg", [Sidecar("x.jpg.xmp", data.replace(lat, b"48,10.5N"))]).position
    )
    assert (position.state, position.lat) == ("read", pytest.approx(48.175))


def _jpeg(**options) -> bytes:
    import io

    buffer = io.BytesIO()
    Image.new("RGB", (16, 8)).save(buffer, "JPEG", **options)
    return buffer.getvalue()


@needs_exiftool
def test_exiftool_reads_them(tmp_path):
    (tmp_path / "x.xmp").write_bytes(sidecar(row(1, place=PARIS | {"city": "Zürich"})))
    tags = json.loads(
        subprocess.run(["exiftool", "-n", "-json", tmp_path / "x.xmp"], capture_output=True, check=True).stdout
    )[0]
    assert (tags["GPSLatitude"], tags["GPSLongitude"], tags["GPSHPositioningError"]) == (48.86, 2.29, 12500)
    assert tags["City"] == "Zürich"


@needs_exiftool
def test_no_true_position_is_lost_by_exiftools_csv(tmp_path):
    """Photos of every state, the export as the README has it, and what stands in them afterwards."""
    sydney, nowhere = _exif(-33.8568, 151.2153, 0).tobytes(), _exif(0, 0, 0).tobytes()
    files = {
        "none.jpg": (_jpeg(), []),
        "exif.jpg": (_jpeg(exif=sydney), []),
        "xmp.jpg": (_jpeg(xmp=xmp(ATTRIBUTES)), []),
        "zero.jpg": (_jpeg(exif=nowhere), []),
        "contradicting.jpg": (_jpeg(exif=_exif(48.8, 2.3, 0).tobytes(), xmp=xmp(ATTRIBUTES)), []),
        "broken.jpg": (_jpeg(xmp=xmp(ATTRIBUTES).replace(b"</rdf:RDF>", b"")), []),
        "beside.jpg": (_jpeg(), [Sidecar("beside.jpg.xmp", xmp(ATTRIBUTES))]),
        "takeout.jpg": (_jpeg(), [Sidecar("takeout.jpg.json", takeout())]),
    }
    states, rows = {}, []
    for number, (name, (data, sidecars)) in enumerate(files.items()):
        (tmp_path / name).write_bytes(data)
        states[name] = PhotoFile(data).carried.metadata(name, sidecars).position
        # as --relocate would have it: everything is located, wherever it was
        rows.append(row(number, uri=str(tmp_path / name), gps=states[name].state))
    assert [states[name].state for name in files] == [
        "none", "read", "read", "implausible", "unreadable", "unreadable", "read", "read",
    ]  # fmt: skip
    before = {name: (tmp_path / name).read_bytes() for name in files}
    export("csv", parts_of(tmp_path, results(rows)), tmp_path, str(tmp_path))
    command = [
        "exiftool",
        "-q",
        "-overwrite_original",
        f"-csv={tmp_path}/geotags.csv",
        *(tmp_path / name for name in files),
    ]
    subprocess.run(command, capture_output=True)
    assert [name for name in files if (tmp_path / name).read_bytes() != before[name]] == ["none.jpg"]
    read = json.loads(subprocess.run(["exiftool", "-n", "-json", tmp_path / "none.jpg"], capture_output=True).stdout)[0]
    assert (read["GPSLatitude"], read["GPSLongitude"], read["Country"]) == (48.86, 2.29, "France")
    # and the next run does not take our word for the camera's
    assert PhotoFile((tmp_path / "none.jpg").read_bytes()).carried.metadata().position.state == "none"
