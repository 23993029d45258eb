"""What the tests share."""

from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]

# The same examples in every run, so that a change is not blamed for what it did not do;
# look for new ones with `pytest --hypothesis-profile=default`.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")


# Files whose tests take minutes begin first, so that no worker is left with one of them when the others have nothing to do any more.
SLOW = "test_runs test_interrupted test_new_cells test_workers test_backed test_strangers test_training test_metacells".split()


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: SLOW.index(item.path.stem) if item.path.stem in SLOW else len(SLOW))


@pytest.fixture(scope="session")
def root():
    return ROOT
