"""A few inputs of the fuzzer, read or refused by name. `python tests/fuzz/run.py FOLDER --runs 20000` looks for others, guided by coverage."""

import random
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).with_name("fuzz")))

from targets import TARGETS, Choices, edited, try_bytes, valid_files  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def valid(tmp_path_factory):
    return valid_files(tmp_path_factory.mktemp("valid"))


@pytest.mark.parametrize("name", TARGETS)
def test_edited_input_is_read_or_refused(name, valid, tmp_path):
    target, chance = TARGETS[name], random.Random(0)
    whole = tmp_path / target.whole
    (shutil.copytree if (valid / target.whole).is_dir() else shutil.copyfile)(valid / target.whole, whole)
    target.use(whole)  # what is in order is accepted
    seeds = target.seeds(valid)
    outcomes = [try_bytes(name, valid, data) for data in [*seeds[:: max(1, len(seeds) // 8)], *(chance.randbytes(24) for _ in range(16))]]
    assert "refused" in outcomes


def test_the_same_bytes_make_the_same_edit():
    tree = {"a": [1, {"b": None}], "c": "text"}
    edits = [repr(edited(tree, Choices(bytes([i, 2 * i % 256, 7, i, 3])))) for i in range(60)]
    assert edits == [repr(edited(tree, Choices(bytes([i, 2 * i % 256, 7, i, 3])))) for i in range(60)]
    assert len(set(edits)) > 1 and tree == {"a": [1, {"b": None}], "c": "text"}
