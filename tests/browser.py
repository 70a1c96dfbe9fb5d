"""What tests of pages share; needs Chromium and the extra ``browser``."""

import shutil

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True, "color_scheme": "dark"}


@pytest.fixture(scope="module")  # while it is open, no other event loop can run in this thread
def browser():
    library = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("needs Chromium")
    with library.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def axe(page) -> list[str]:
    """What axe-core finds wrong with a page for those who see or hear it otherwise."""
    library = pytest.importorskip("axe_playwright_python.sync_playwright")
    found = library.Axe().run(page).response["violations"]
    return [f"{one['id']}: {one['nodes'][0]['html'][:200]}" for one in found]
