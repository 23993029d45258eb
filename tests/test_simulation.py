"""The simulator: known truth, realistic numbers, and room to grow."""

import tracemalloc

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import example, given, settings
from hypothesis import strategies as st
from limits import without_delay

from cvqvae import blood
from cvqvae.cells import DataError, counts_of, modality_kind
from cvqvae.simulation import count_blocks, poisson_sparse, simulate


@pytest.fixture(scope="module")
def demo():
    return simulate()


def test_demo_is_quick_sparse_and_declared(demo):
    with without_delay():
        simulate()
    assert [modality_kind(demo[name]) for name in demo.mod] == ["rna", "atac"]
    for adata in demo.mod.values():
        assert sp.issparse(adata.X) and adata.X.dtype == np.float32 and counts_of(adata).sum() > 0
    assert 0.02 < demo["atac"].X.nnz / np.prod(demo["atac"].shape) < 0.06


def test_same_seed_same_cells(demo):
    again, other = simulate(), simulate(seed=1)
    assert (again["atac"].X != demo["atac"].X).nnz == 0 and again.obs.equals(demo.obs)
    assert not other.obs["pseudotime"].equals(demo.obs["pseudotime"])


def test_truth_is_in_obs(demo):
    assert {"cell_type", "batch", "pseudotime", "S_score", "G2M_score", "phase"} <= set(demo.obs)
    assert demo.obs["pseudotime"].between(0, 1).all() and demo.obs["cell_type"].nunique() == len(blood.PARENT)
    top = demo.obs[["S_score", "G2M_score"]].idxmax(axis=1).str.removesuffix("_score")
    cycling = demo.obs["phase"] != "G1"
    assert (top[cycling] == demo.obs["phase"][cycling]).all()


def test_marker_gene_is_highest_in_its_type(demo):
    for gene, cell_type in {"LYZ": "Monocyte", "MS4A1": "Naive B", "HBB": "Erythroblast", "CD8A": "CD8 T"}.items():
        mean = pd.Series(np.asarray(demo["rna"][:, gene].X.todense()).ravel(), index=demo.obs_names).groupby(demo.obs["cell_type"], observed=True).mean()
        assert mean.idxmax() == cell_type


def test_cycling_cells_express_the_cycle_genes(demo):
    share = np.asarray(demo["rna"][:, [g for g in blood.G2M_GENES if g in demo["rna"].var_names]].X.sum(axis=1)).ravel()
    share = share / np.asarray(demo["rna"].X.sum(axis=1)).ravel()
    assert np.median(share[demo.obs["phase"] == "G2M"]) > 2 * np.median(share[demo.obs["phase"] == "G1"])


@pytest.mark.parametrize("gene", ["LYZ", "MS4A1", "HBB"])
def test_peaks_open_with_their_gene(gene):
    cells = simulate(noise=0, n_batches=1, n_peaks=20_000, atac_depth=4000)
    rna, atac = cells["rna"], cells["atac"]
    linked = ((atac.var["linked_gene"] == gene) & (atac.var["link_strength"] > 0.5)).to_numpy()
    open_share = np.asarray(atac.X[:, linked].sum(axis=1)).ravel() / np.asarray(atac.X.sum(axis=1)).ravel()
    expressed = np.asarray(rna[:, gene].X.todense()).ravel()
    assert linked.sum() > 1 and open_share[expressed > 3].mean() > 2 * open_share[expressed == 0].mean()


def test_batches_differ_in_depth_and_composition(demo):
    totals = pd.Series(np.asarray(demo["atac"].X.sum(axis=1)).ravel(), index=demo.obs_names)
    median = totals.groupby(demo.obs["batch"], observed=True).median()
    assert 0.4 < median["batch2"] / median["batch1"] < 0.8
    mix = pd.crosstab(demo.obs["batch"], demo.obs["cell_type"], normalize="index")
    assert (mix.iloc[0] - mix.iloc[1]).abs().sum() > 0.1


def test_protein_background_and_signal():
    cite = simulate(kind="protein", n_proteins=60)
    cd14 = np.asarray(cite["protein"][:, "CD14"].X.todense()).ravel()
    monocyte = (cite.obs["cell_type"] == "Monocyte").to_numpy()
    assert np.median(cd14[monocyte]) > 2 * np.median(cd14[~monocyte]) and np.median(cd14[~monocyte]) > 0
    assert cite["protein"].n_vars == 60 and modality_kind(cite["protein"]) == "protein"


WRONG = [({"kind": "metabolome"}, "'atac' or 'protein'"), ({"n_genes": 20}, "too few"), ({"n_cells": 0}, "at least"),
         ({"n_batches": 0}, "at least"), ({"noise": -1}, "noise")]


@pytest.mark.parametrize("wrong, message", WRONG)
def test_impossible_wishes(wrong, message):
    with pytest.raises(DataError, match=message):
        simulate(**wrong)


@settings(max_examples=15, deadline=None)
@example(n_cells=30, n_batches=1, noise=1e-277, kind="atac", seed=0)  # the shape of its gamma factor overflows single precision
@given(st.integers(30, 120), st.integers(1, 5), st.floats(0, 4), st.sampled_from(["atac", "protein"]), st.integers(0, 2**31))
def test_any_setting_gives_valid_pairs(n_cells, n_batches, noise, kind, seed):
    mdata = simulate(n_cells, kind, n_batches, noise, seed, n_genes=200, n_peaks=150, n_proteins=40)
    assert mdata.n_obs <= n_cells and list(mdata.mod) == ["rna", kind]
    assert all(adata.obs_names.equals(mdata.obs_names) for adata in mdata.mod.values())
    assert all((counts_of(adata).data > 0).all() for adata in mdata.mod.values())


@pytest.mark.parametrize("rate", [0.01, 0.5, 8.0])
def test_sparse_poisson_is_poisson(rate):
    counts = poisson_sparse(np.full((500, 600), rate, "float32"), np.random.default_rng(1)).toarray()
    assert abs(counts.mean() / rate - 1) < 5 / np.sqrt(counts.size * rate)
    assert abs(counts.var() / rate - 1) < 0.03 + 5 / np.sqrt(counts.size * rate)


def test_blocks_hold_memory_down():
    factors, loadings = np.ones((4000, 1), "float32"), np.zeros((1, 20_000), "float32")
    tracemalloc.start()
    counts = count_blocks(factors, loadings, np.full(4000, 400.0), np.random.default_rng(0), entries=1_000_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert counts.shape == (4000, 20_000)
    assert peak < 0.25 * 4 * counts.shape[0] * counts.shape[1]
