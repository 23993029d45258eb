"""A model that was saved in an earlier format is read for good. A new format gets a folder of its own in tests/models; the old ones stay."""

import json
from pathlib import Path

import numpy as np
import pytest

from cvqvae.integration import CVQVAE
from cvqvae.simulation import simulate
from cvqvae.storage import FORMAT

MODELS = Path(__file__).with_name("models")


def test_every_format_so_far_is_kept():
    assert sorted(path.name for path in MODELS.iterdir()) == [f"format-{i}" for i in range(1, FORMAT + 1)]
    assert sum(path.stat().st_size for path in MODELS.rglob("*.*")) < 50_000 * FORMAT


@pytest.mark.parametrize("number", range(1, FORMAT + 1))
@pytest.mark.filterwarnings("ignore")
def test_a_model_of_an_earlier_format_embeds_and_translates(number):
    folder = MODELS / f"format-{number}"
    assert json.loads((folder / "model.json").read_text())["format"] == number
    cells = simulate(n_cells=60, n_genes=150, n_peaks=200)
    model = CVQVAE.load(folder, device="cpu")
    embedded = model.embed(cells).obsm["X_cvqvae"]
    assert embedded.shape == (cells.n_obs, 3) and np.isfinite(embedded).all() and np.ptp(embedded, axis=0).all()
    assert model.translate(cells["rna"], to="atac").n_vars == len(model.transforms["atac"].feature_names)
