"""The page in a real browser; needs Chromium and the extra ``browser``."""

import json
import shutil

import httpx
import pytest

from tests.serving.conftest import KEY

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def browser():
    library = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("needs Chromium")
    with library.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


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
    features = json.loads(download.value.path().read_text())["features"]
    assert [feature["properties"]["role"] for feature in features[:3]] == ["estimate", "radius", "candidate"]

    (tmp_path / "no.jpg").write_bytes(b"none")
    page.set_input_files("#files", [photos[1], tmp_path / "no.jpg"])
    page.get_by_text("no.jpg: not_an_image").wait_for()
    assert page.locator("#photos button").count() == 2
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.wrong == []
    assert all(url.startswith((address, "blob:", "data:")) for url in page.asked)
