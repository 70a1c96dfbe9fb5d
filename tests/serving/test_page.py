"""The page in a real browser; needs Chromium and the extra ``browser``."""

import csv
import json

import httpx
import pytest

from tests.browser import axe
from tests.serving.conftest import KEY


@pytest.fixture(params=["desk", "phone"])
def page(request, browser, address):
    phone = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True, "color_scheme": "dark"}
    context = browser.new_context(**(phone if request.param == "phone" else {"accept_downloads": True}))
    page = context.new_page()
    page.wrong, page.asked = [], []
    page.on("pageerror", lambda error: page.wrong.append(str(error)))
    page.on("request", lambda asked: page.asked.append(asked.url))
    page.goto(address)
    yield page
    context.close()


def test_a_photo_is_answered(page, address, toy, tmp_path):
    photos = sorted(path for path in (toy / "archive").rglob("*.jpg") if path.stat().st_size > 5000)[:2]
    page.set_input_files("#files", photos[0])
    page.get_by_label("API key").fill("wrong")
    page.get_by_text("Ask with this key").click()
    page.get_by_text("does not know this key").wait_for()
    page.get_by_label("API key").fill(KEY)
    page.get_by_label("API key").press("Enter")
    page.locator("#candidates li").first.wait_for()
    assert page.locator("#candidates li img").first.evaluate(
        "async image => { await image.decode(); return image.width }"
    )
    assert "neither is calibrated" in page.locator("#sure").text_content()
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "image/jpeg"}
    asked = httpx.post(f"{address}/v1/geolocate", content=photos[0].read_bytes(), headers=headers, timeout=60)
    answer = asked.json()["estimate"]
    assert page.locator("#candidates li").count() == len(asked.json()["candidates"]) > 3
    headline = page.locator("#place").text_content()
    assert headline == answer["headline"]
    if answer["radius_km"] > 200:  # no region, let alone a city
        assert answer["place"].split(",")[0] not in headline
    page.locator("#map canvas").first.wait_for(state="attached")

    page.locator("#candidates li").nth(2).hover()
    assert page.locator("#candidates li.marked b").text_content() == "3"
    with page.expect_download() as download:
        page.get_by_text("Download GeoJSON").click()
    assert download.value.suggested_filename == f"{photos[0].name}.geojson"
    features = json.loads(download.value.path().read_text())["features"]
    assert [feature["properties"]["role"] for feature in features[:3]] == ["estimate", "radius", "candidate"]

    (tmp_path / "no.jpg").write_bytes(b"none")
    page.set_input_files("#files", [photos[1], tmp_path / "no.jpg"])
    failed = page.locator("#photos button", has_text="not_an_image")
    failed.wait_for()
    assert failed.get_attribute("title") == "no.jpg"
    assert page.locator("#photos button").count() == 3
    page.get_by_text("3 photos, 1 without an answer").wait_for()
    page.set_input_files("#files", photos)  # which have their answers
    assert page.locator("#photos button").count() == 3
    with page.expect_download() as download:
        page.get_by_text("All as CSV").click()
    told = list(csv.DictReader(download.value.path().read_text().splitlines()))
    assert [row["file"] for row in told] == [photos[0].name, photos[1].name, "no.jpg"]
    assert float(told[0]["lat"]) == pytest.approx(answer["lat"])
    assert told[2]["problem"].startswith("not_an_image")
    with page.expect_download() as download:
        page.get_by_text("All as GeoJSON").click()
    assert len(json.loads(download.value.path().read_text())["features"]) == 2
    assert page.locator("#scale").text_content().endswith(" km")
    elsewhere = page.get_by_text("Open on OpenStreetMap").get_attribute("href")
    assert elsewhere.startswith("https://www.openstreetmap.org/?mlat=")
    assert page.get_by_text("as OpenAPI").get_attribute("href") == "/openapi.json"
    assert axe(page) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.wrong == []
    assert all(url.startswith((address, "blob:", "data:")) for url in page.asked)


def test_a_heic_without_a_type_is_tried_and_photos_can_be_called_off(page, tmp_path):
    page.set_input_files("#files", {"name": "a.HEIC", "mimeType": "application/octet-stream", "buffer": b"none"})
    page.get_by_text("The service asks for a key").wait_for()
    page.get_by_label("API key").fill(KEY)
    page.get_by_label("API key").press("Enter")
    page.get_by_text("a.HEIC: not_an_image").wait_for()
    page.set_input_files("#files", {"name": "a.txt", "mimeType": "text/plain", "buffer": b"none"})
    page.get_by_text("a.txt is no photo.").wait_for()
    page.route("**/v1/geolocate*", lambda route: None)  # an answer that does not come
    many = [{"name": f"{number}.jpg", "mimeType": "image/jpeg", "buffer": b"none"} for number in range(3)]
    page.set_input_files("#files", many)
    page.get_by_text("Stop asking").click()
    page.get_by_text("Stopped; 3 not asked.").wait_for()
    assert page.locator("#photos button", has_text="not asked").count() == 3
    assert page.wrong == []
