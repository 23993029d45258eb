"""Kept-back cells never reach the model, and their scores are those of their own embedding."""

import numpy as np
import pytest
from anndata import AnnData
from mudata import MuData

from cvqvae import held_out
from cvqvae.benchmark import run_benchmark
from cvqvae.cells import DataError
from cvqvae.held_out import _crossed_labels, held_out_scores, keep_back
from cvqvae.peers import Task
from cvqvae.scjoint import label_codes
from cvqvae.simulation import simulate
from cvqvae.translators import with_incomplete

SMALL = dict(hidden=(16,), n_latent=8, n_codes=16, n_components=8, epochs=3, device="cpu", evaluation={"resolutions": 2})


@pytest.fixture(scope="module")
def mdata():
    return simulate(n_cells=240, seed=2, n_genes=300, n_peaks=500)


def test_both_parts_hold_every_cell_once(mdata):
    train, back = keep_back(mdata, 0.3, seed=1)
    assert sorted([*train.obs_names, *back.obs_names]) == sorted(mdata.obs_names) and back.n_obs == round(0.3 * mdata.n_obs)
    assert not keep_back(mdata, 0.3, seed=2)[1].obs_names.equals(back.obs_names)


@pytest.mark.parametrize("wish", [dict(share=0), dict(share=1), dict(batch="batch9", batch_key="batch")])
def test_a_part_without_cells_is_refused(mdata, wish):
    with pytest.raises(DataError, match="keeps back"):
        keep_back(mdata, **wish)


def test_the_model_is_fitted_on_the_training_cells_alone(mdata, monkeypatch):
    seen = []
    original = held_out.CVQVAE

    class Spy(original):
        def __init__(self, data, **settings):
            seen.append(set(data.obs_names))
            super().__init__(data, **settings)

    monkeypatch.setattr(held_out, "CVQVAE", Spy)
    scores = held_out_scores(mdata, 0.25, batch_key="batch", labels_key="cell_type", **SMALL)
    assert len(seen) == 1 and seen[0].isdisjoint(keep_back(mdata, 0.25)[1].obs_names)
    assert set(scores["method"]) == {"cvqvae", "cca", "raw", "random"}
    crossed = scores[scores["group"] == "held-out"]
    assert set(crossed["metric"]) == {"rna_to_atac", "atac_to_rna"} and crossed["value"].between(0, 1).all()


def test_the_same_seed_gives_the_same_scores(mdata):
    runs = [held_out_scores(mdata, batch="batch2", batch_key="batch", **SMALL) for _ in range(2)]
    assert np.array_equal(runs[0]["value"], runs[1]["value"], equal_nan=True)


def test_cells_without_a_label_are_no_mistakes():
    cells = simulate(n_cells=120, n_genes=200, n_peaks=300, seed=0)
    for adata in cells.mod.values():
        adata.obsm["X_cvqvae"] = np.eye(20)[cells.obs["cell_type"].cat.codes]
    some = cells.copy()
    some.obs["cell_type"] = some.obs["cell_type"].astype(object).where(np.arange(some.n_obs) % 2 == 0)
    common = cells.obs["cell_type"].map(cells.obs["cell_type"].value_counts()).astype(int) > 7  # 15 neighbours vote
    rows = _crossed_labels(cells[common.to_numpy()].copy(), some[common.to_numpy()].copy(), ("rna", "atac"), "cell_type")
    assert [row[4] for row in rows] == [1.0, 1.0]


def in_modalities(mdata):
    parts = {name: AnnData(a.X.copy(), obs=a.obs[["cell_type", "batch"]].copy(), var=a.var.copy()) for name, a in mdata.mod.items()}
    return MuData(parts)


def test_columns_of_the_modalities_will_do_everywhere(mdata, tmp_path):
    columns, both = dict(batch_key="batch", labels_key="cell_type"), in_modalities(mdata)
    assert "batch" not in both.obs and "cell_type" not in both.obs
    here, there = (held_out_scores(m, 0.25, **columns, **SMALL) for m in (mdata, both))
    assert np.array_equal(here["value"][here["group"] == "held-out"], there["value"][there["group"] == "held-out"])
    quick = {"hidden": (16,), "n_latent": 8, "n_codes": 16}
    scores = run_benchmark(both, ["cca", "cvqvae-paper"], (0,), tmp_path, epochs=1, options={"cvqvae-paper": quick}, evaluation={"resolutions": 1}, **columns)
    assert scores.query("metric == 'batch_asw' and view == 'joint'")["value"].notna().all()
    assert label_codes(Task(both), "cell_type")[1] == mdata.obs["cell_type"].nunique()
    all_cells, rows = with_incomplete(Task(both, "batch"), in_modalities(mdata), "rna", "atac")
    assert list(all_cells.batches()[rows]) == list(mdata.obs["batch"].astype(str))


def test_a_wrong_name_of_labels_is_told_before_the_training(mdata, monkeypatch):
    monkeypatch.setattr(held_out, "CVQVAE", None)
    with pytest.raises(DataError, match="labels_key='celltype' is not an obs column"):
        held_out_scores(mdata, labels_key="celltype", **SMALL)
