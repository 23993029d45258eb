"""Where the tests that use real cells find them: `CVQVAE_DATA`, or the folder beside the repository."""

import os
from pathlib import Path

import pytest

PLACES = (os.environ.get("CVQVAE_DATA"), Path(__file__).parents[2] / "shared" / "data")
DATA = next((Path(place) for place in PLACES if place and Path(place).is_dir()), None)
needs_data = pytest.mark.skipif(DATA is None, reason="no real cells here: set CVQVAE_DATA to their folder")
