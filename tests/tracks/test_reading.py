"""Logs as receivers, telephones and Google write them."""

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from geoloc.errors import UsageError
from geoloc.tracks.reading import read_tracks
from geoloc.tracks.track import Track

NOON = datetime(2019, 7, 4, 12, tzinfo=UTC)
MINUTE = NOON.timestamp() / 60

GPX = """<?xml version="1.0"?><gpx version="1.1" creator="x" xmlns="http://www.topografix.com/GPX/1/1"><trk><trkseg>
<trkpt lat="48.10" lon="2.10"><time>2019-07-04T12:00:00Z</time></trkpt>
<trkpt lat="48.20" lon="2.20"><ele>7</ele><time>2019-07-04T14:05:00+02:00</time></trkpt>
{more}</trkseg></trk></gpx>"""
NMEA = """$GPRMC,120000.00,A,4806.000,N,00206.000,E,0.0,0.0,040719,,,A*58
$GPGGA,120100.00,4806.000,N,00206.000,E,1,08,0.9,10.0,M,46.9,M,,*5B
$GPRMC,120500.00,A,4812.000,N,00212.000,E,0.0,0.0,040719,,,A*5D
$GPRMC,120600.00,V,4812.000,N,00212.000,E,0.0,0.0,040719,,,N*46
$GPRMC,120700.00,A,4812.000,N,00212.000,E,0.0,0.0,040719,,,A*00
$GPRMC,120800.00,A,4807.038,,00206.000,E,0.0,0.0,040719,,,A*14
noise
"""
KML = """<?xml version="1.0"?><kml xmlns="http://www.opengis.net/kml/2.2" xmlns:gx="http://www.google.com/kml/ext/2.2"><Document>
<Placemark><gx:Track><when>2019-07-04T12:00:00Z</when><gx:coord>2.1 48.1 0</gx:coord></gx:Track></Placemark>
<Placemark><TimeStamp><when>2019-07-04T12:05:00Z</when></TimeStamp><Point><coordinates>2.2,48.2,0</coordinates></Point></Placemark>
<Placemark><Point><coordinates>9,9</coordinates></Point></Placemark></Document></kml>"""
RECORDS = {
    "locations": [
        {
            "latitudeE7": 481000000,
            "longitudeE7": 21000000,
            "timestampMs": str(int(NOON.timestamp() * 1000)),
            "accuracy": 20,
        },
        {"latitudeE7": 482000000, "longitudeE7": 22000000, "timestamp": "2019-07-04T12:05:00.000Z"},
        {"latitudeE7": 990000000, "longitudeE7": 22000000, "timestamp": "2019-07-04T12:06:00.000Z"},
        {"latitudeE7": 481000000, "longitudeE7": 21000000, "timestamp": "2019-07-04T12:07:00Z", "accuracy": 4000},
        "nothing",
    ]
}
SEMANTIC = {
    "timelineObjects": [
        {
            "placeVisit": {
                "location": {"latitudeE7": 481000000, "longitudeE7": 21000000},
                "duration": {"startTimestamp": "2019-07-04T12:00:00Z", "endTimestamp": "2019-07-04T12:04:00Z"},
            }
        },
        {
            "activitySegment": {
                "startLocation": {"latitudeE7": 481000000, "longitudeE7": 21000000},
                "endLocation": {"latitudeE7": 482000000, "longitudeE7": 22000000},
                "duration": {"startTimestamp": "2019-07-04T12:04:00Z", "endTimestamp": "2019-07-04T12:05:00Z"},
                "simplifiedRawPath": {
                    "points": [{"latE7": 481500000, "lngE7": 21500000, "timestamp": "2019-07-04T12:04:30Z"}]
                },
            }
        },
    ]
}
ANDROID = {
    "semanticSegments": [
        {
            "startTime": "2019-07-04T14:00:00.000+02:00",
            "endTime": "2019-07-04T14:05:00.000+02:00",
            "timelinePath": [{"point": "48.1°, 2.1°", "time": "2019-07-04T14:00:00.000+02:00"}],
            "activity": {"start": {"latLng": "48.1°, 2.1°"}, "end": {"latLng": "48.2°, 2.2°"}},
        }
    ],
    "rawSignals": [
        {"position": {"LatLng": "48.2°, 2.2°", "accuracyMeters": 13, "timestamp": "2019-07-04T12:05:00Z"}},
        {"wifiScan": {}},
    ],
}
IPHONE = [
    {
        "startTime": "2019-07-04T14:00:00.000+02:00",
        "endTime": "2019-07-04T14:05:00.000+02:00",
        "timelinePath": [{"point": "geo:48.200000,2.200000", "durationMinutesOffsetFromStartTime": "5"}],
    },
    {
        "startTime": "2019-07-04T13:50:00.000+02:00",
        "endTime": "2019-07-04T14:00:00.000+02:00",
        "visit": {"topCandidate": {"placeLocation": "geo:48.100000,2.100000"}},
    },
]


def read(folder: Path, name: str, text: str) -> tuple[Track, list[str]]:
    (folder / name).write_text(text)
    tracks, notes = read_tracks(str(folder))
    assert len(tracks) == 1
    return tracks[0], notes


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.gpx", GPX.format(more="")),
        ("A.NMEA", NMEA),
        ("a.kml", KML),
        ("Records.json", json.dumps(RECORDS)),
        ("2019_JULY.json", json.dumps(SEMANTIC)),
        ("Timeline.json", json.dumps(ANDROID)),
        ("location-history.json", json.dumps(IPHONE)),
    ],
)
def test_first_and_last_points(tmp_path, name, text):
    track, _ = read(tmp_path, name, text)
    ends = {float(minute): place for minute, place in zip(track.minutes.tolist(), track.places.tolist(), strict=True)}
    np.testing.assert_allclose(ends[MINUTE], [48.1, 2.1], atol=1e-6)
    np.testing.assert_allclose(ends[MINUTE + 5], [48.2, 2.2], atol=1e-6)
    assert track.minutes.max() == MINUTE + 5


def test_points_without_time_and_jumps_are_left_out_and_told(tmp_path):
    more = '<trkpt lat="-33" lon="151"><time>2019-07-04T12:06:00Z</time></trkpt>'
    more += '<trkpt lat="48.2" lon="2.2"><time>2019-07-04T12:07:00Z</time></trkpt><trkpt lat="48" lon="2"/>'
    track, notes = read(tmp_path, "a.gpx", GPX.format(more=more))
    assert track.minutes.tolist() == [MINUTE, MINUTE + 5, MINUTE + 7]
    assert "a.gpx: 2 of 5 points are left out" in notes[0]


def test_a_gpx_in_utf_16(tmp_path):
    (tmp_path / "a.gpx").write_bytes(GPX.format(more="").encode("utf-16"))
    assert len(read_tracks(str(tmp_path))[0][0]) == 2


def test_a_flight_is_no_jump():
    points = [(NOON.replace(hour=hour), lat, 2.0) for hour, lat in ((1, 48.0), (2, 40.0), (3, 33.0))]
    assert len(Track.of("flight", points)) == 3


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.gpx", "<gpx", "no GPX that can be read"),
        ("a.gpx", '<!DOCTYPE x [<!ENTITY a "b">]><gpx/>', "document type"),
        ("a.gpx", GPX.replace("<time>", "<x>").replace("</time>", "</x>").format(more=""), "points are left out"),
        ("a.kml", "<!DOCTYPE x []><kml/>", "no KML"),
        ("a.json", "[" * 100_000, "no JSON"),
        ("a.json", '{"type": "FeatureCollection"}', "no record of places"),
        ("a.nmea", "nothing here", "no sentence"),
        ("a.json", "[]", "has no points"),
    ],
)
def test_files_that_say_nothing_stop_the_job_with_a_reason(tmp_path, name, text, told):
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=r"--tracks .*no point there") as error:
        read_tracks(str(tmp_path))
    assert told in str(error.value)


def test_no_file_at_all(tmp_path):
    with pytest.raises(UsageError, match=r"holds no \.gpx"):
        read_tracks(str(tmp_path))


def test_one_file_is_a_folder_of_one(tmp_path):
    (tmp_path / "walk.gpx").write_text(GPX.format(more=""))
    tracks, _ = read_tracks(str(tmp_path / "walk.gpx"))
    assert [track.name for track in tracks] == ["walk.gpx"]


def test_a_hole_in_a_track_moves_no_time(tmp_path):
    coords = ["2.1 48.1 0", "", "2.2 48.2 0"]
    body = "".join(f"<when>2019-07-04T1{n}:00:00Z</when>" for n in range(2, 5))
    body += "".join(f"<gx:coord>{coord}</gx:coord>" for coord in coords)
    text = KML.split("<Placemark>")[0] + f"<Placemark><gx:Track>{body}</gx:Track></Placemark></Document></kml>"
    track, _ = read(tmp_path, "a.kml", text)
    assert track.minutes.tolist() == [MINUTE, MINUTE + 120]
    assert track.places.tolist() == [[48.1, 2.1], [48.2, 2.2]]


def test_a_visit_lasts_as_long_as_it_does(tmp_path):
    """Where its user was all the time, and not only at its ends."""
    visit = {"topCandidate": {"placeLocation": "geo:48.1,2.1"}}
    segment = {"startTime": "2019-07-04T12:00:00Z", "endTime": "2019-07-04T20:10:00Z", "visit": visit}
    track, _ = read(tmp_path, "Timeline.json", json.dumps({"semanticSegments": [segment]}))
    assert (track.minutes[0], track.minutes[-1]) == (MINUTE, MINUTE + 490)
    assert np.diff(track.minutes).max() <= 30
    assert np.unique(track.places, axis=0).tolist() == [[48.1, 2.1]]


def test_files_beside_logs_are_counted_and_not_listed(tmp_path):
    """Takeout has a .json beside every photo; and what is no number is no reason to stop."""
    (tmp_path / "walk.gpx").write_text(GPX.format(more=""))
    for number in range(40):
        (tmp_path / f"{number}.jpg.json").write_text('{"title": "x"}')
    (tmp_path / "huge.json").write_text(
        '{"locations": [{"timestamp": "2020-01-01T10:00:00Z", "latitudeE7": 1%s, "longitudeE7": 2}]}' % ("0" * 400)
    )
    tracks, notes = read_tracks(str(tmp_path))
    assert len(tracks) == 1
    assert len(notes) < 10
    assert "36 more files" in notes[-1]
