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
SLOW = ["test_runs.py", "test_interrupted.py", "test_new_cells.py", "test_workers.py", "test_backed.py", "test_strangers.py", "test_training.py", "test_metacells.py"]


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: SLOW.index(item.path.name) if item.path.name in SLOW else len(SLOW))


@pytest.fixture(scope="session")
def root():
    return ROOT
