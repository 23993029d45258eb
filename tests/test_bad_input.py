"""Every kind of bad input ends in an error that names the place and the remedy, before any work, and leaves the caller's objects alone."""

import re
import time

import pytest
from bad_cells import KINDS, contents


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@pytest.mark.filterwarnings("ignore")
def test_bad_input_is_refused_by_name(kind, tmp_path):
    call, objects = kind.make(tmp_path)
    before, started = [contents(thing) for thing in objects], time.perf_counter()
    with pytest.raises(kind.raises) as refusal:
        call()
    assert time.perf_counter() - started < 5
    message = str(refusal.value)
    for words in kind.says.split(" & "):
        assert re.search(words, message), f"{words!r} is not in: {message}"
    assert [contents(thing) for thing in objects] == before
    assert not (tmp_path / "out").exists()


def test_the_catalogue_is_large():
    assert len({kind.name for kind in KINDS}) == len(KINDS) > 100
