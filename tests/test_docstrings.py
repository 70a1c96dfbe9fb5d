"""The examples in docstrings are true."""

import doctest
import importlib
from pathlib import Path

import pytest

import geoloc

PACKAGE = Path(geoloc.__file__).parent
WITH_EXAMPLES = [file for file in sorted(PACKAGE.rglob("*.py")) if ">>> " in file.read_text()]


@pytest.mark.parametrize("file", WITH_EXAMPLES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_examples(file):
    module = importlib.import_module(".".join(["geoloc", *file.relative_to(PACKAGE).with_suffix("").parts]))
    found = doctest.testmod(module)
    assert found.attempted
    assert not found.failed
