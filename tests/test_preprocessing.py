"""Components: repeatable, independent of the form of the input, sparse, and kept apart from the caller's counts."""

import subprocess
import sys
import textwrap
import warnings

import mudata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData
from hypothesis import given, settings
from hypothesis import strategies as st

from cvqvae.backed import open_modalities
from cvqvae.baselines import only_components
from cvqvae.canonical import CanonicalCorrelation
from cvqvae.cells import DataError
from cvqvae.components import ProteinComponents, RNAComponents
from cvqvae.ground_truth import cell_cycle_scores
from cvqvae.integration import CVQVAE
from cvqvae.labels import LabelTransfer
from cvqvae.lsi import ATACComponents, depth_correlation
from cvqvae.normalisation import centred_log_ratio, expected_spread, inverse_frequency, tf_idf
from cvqvae.parameters import Parameters, load_cells
from cvqvae.preprocessing import COMPONENTS, MARK, components_of, further_of, gene_scale_of, preprocess
from cvqvae.simulation import simulate

FORMS = {
    "csc": sp.csc_matrix,
    "coo_to_csr_int64": lambda m: sp.csr_matrix(m.tocoo(), dtype=np.int64),
    "float64": lambda m: m.astype(np.float64),
    "dense": lambda m: m.toarray(),
    "in_parts": lambda m: in_parts(m),
}


def in_parts(matrix):
    "The same matrix, where every entry above 1 is stored as 1 and the rest of it, as scipy allows."
    rows, columns = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr)), matrix.indices
    big = matrix.data > 1
    rows, columns = np.r_[rows, rows[big]], np.r_[columns, columns[big]]
    data = np.r_[np.where(big, 1, matrix.data), matrix.data[big] - 1].astype(np.float32)
    order = np.argsort(rows, kind="stable")
    ends = np.r_[0, np.cumsum(np.bincount(rows, minlength=matrix.shape[0]))]
    return sp.csr_matrix((data[order], columns[order], ends), matrix.shape)


@pytest.fixture(scope="module")
def rna_atac():
    return simulate(n_cells=300, kind="atac", seed=3)


@pytest.fixture(scope="module")
def rna_protein():
    return simulate(n_cells=300, kind="protein", seed=3)


def modality(mdata, kind):
    return next(a for name, a in mdata.mod.items() if name != "rna") if kind != "rna" else mdata["rna"]


@pytest.fixture(params=["rna", "atac", "protein"])
def fitted(request, rna_atac, rna_protein):
    adata = modality(rna_protein if request.param == "protein" else rna_atac, request.param)
    return COMPONENTS[request.param](n_components=12).fit(adata), adata


def test_form_of_the_matrix_does_not_matter(fitted):
    transform, adata = fitted
    expected = transform.transform(adata)
    for name, convert in FORMS.items():
        other = AnnData(convert(adata.X), obs=adata.obs, var=adata.var)
        found = type(transform)(12).fit(other).transform(other)
        assert np.allclose(found, expected, atol=2e-2), name
        assert found.dtype == np.float32


def test_entries_that_are_stored_in_parts_are_their_sum(fitted, tmp_path):
    transform, adata = fitted
    counts = in_parts(adata.X)
    assert counts.nnz > adata.X.nnz and abs(counts - adata.X).max() == 0
    other, stored = AnnData(counts.copy(), obs=adata.obs, var=adata.var), counts.data.copy()
    assert np.allclose(transform.transform(other), transform.transform(adata), atol=1e-5)
    assert np.array_equal(transform.normalise(counts).data, transform.normalise(adata.X).data) if transform.kind == "rna" else True
    assert np.array_equal(other.X.data, stored) and np.array_equal(counts.data, stored)
    other.write_h5ad(tmp_path / "parts.h5ad")
    assert np.allclose(transform.transform(open_modalities(tmp_path / "parts.h5ad")["X"]), transform.transform(adata), atol=1e-5)


def test_cell_cycle_of_entries_in_parts():
    s, g2m = "Mcm5 Pcna Tyms Fen1 Mcm2 Mcm4 Rrm1 Ung Gins2 Mcm6", "Hmgb2 Cdk1 Nusap1 Ube2c Birc5 Tpx2 Top2a Ndc80 Cks2 Nuf2"
    genes = pd.Index([*s.split(), *g2m.split(), *(f"Gene{i}" for i in range(60))])
    counts = sp.csr_matrix(np.random.default_rng(0).poisson(2.0, (40, len(genes))).astype(np.float32))
    whole, parts = (AnnData(m, var=pd.DataFrame(index=genes)) for m in (counts, in_parts(counts)))
    assert np.allclose(cell_cycle_scores(parts, "mouse"), cell_cycle_scores(whole, "mouse"))


def test_cells_keep_their_rows_and_their_values(fitted):
    transform, adata = fitted
    order = np.random.default_rng(0).permutation(adata.n_obs)
    assert np.allclose(transform.transform(adata[order].copy()), transform.transform(adata)[order], atol=1e-4)
    assert np.allclose(transform.transform(adata[:7].copy()), transform.transform(adata)[:7], atol=1e-4)


def test_state_round_trip_and_refit_are_exact(fitted):
    transform, adata = fitted
    again = type(transform).from_state(*transform.state())
    assert np.array_equal(again.transform(adata), transform.transform(adata))
    assert np.array_equal(type(transform)(12).fit(adata).transform(adata), transform.transform(adata))


def test_genes_are_divided_by_what_their_mean_lets_expect(rna_atac, tmp_path):
    rna = rna_atac["rna"]
    own, trend = RNAComponents(12).fit(rna), RNAComponents(12, gene_scale="trend").fit(rna)
    values = own.normalise(rna.X, rna.var_names.get_indexer(own.feature_names)).toarray()
    assert np.allclose(trend.arrays["std"], expected_spread(values.mean(0), values.std(0, ddof=1)), rtol=1e-3)
    assert np.allclose(own.arrays["std"], values.std(0, ddof=1), rtol=1e-3) and not np.allclose(trend.arrays["std"], own.arrays["std"], rtol=0.05)
    arrays, meta = trend.state()
    again = RNAComponents.from_state(arrays, meta)
    assert again.gene_scale == "trend" and np.array_equal(again.transform(rna), trend.transform(rna))
    assert np.array_equal(again.fit(rna).arrays["std"], trend.arrays["std"])  # fitted anew, it scales the same way
    assert RNAComponents.from_state(arrays, {key: value for key, value in meta.items() if key != "gene_scale"}).gene_scale == "std"  # a model of before
    rna.write(tmp_path / "rna.h5ad")
    stored = open_modalities(tmp_path / "rna.h5ad")["X"]
    assert np.allclose(RNAComponents(12, gene_scale="trend").fit_transform(stored), trend.transform(rna), atol=1e-3)


def test_few_genes_keep_their_own_scale(rna_atac):
    few = rna_atac["rna"][:, :40].copy()
    own, trend = RNAComponents(5).fit(few), RNAComponents(5, gene_scale="trend").fit(few)
    assert np.array_equal(own.arrays["std"], trend.arrays["std"])


def test_a_gene_that_varies_more_than_its_mean_lets_expect_counts_for_more():
    random = np.random.default_rng(0)
    means = random.uniform(0.3, 3, 200)
    counts = random.poisson(means, (400, 200))
    counts[:, 7] = random.poisson(np.where(np.arange(400) < 200, 0.1, 2 * means[7]))  # a marker of half of the cells
    adata = AnnData(sp.csr_matrix(counts, dtype=np.float32))
    first = {scale: RNAComponents(5, gene_scale=scale).fit(adata).arrays["loadings"][0] for scale in ("std", "trend")}
    assert abs(first["trend"][7]) > max(2 * abs(first["std"][7]), 0.5)


@pytest.mark.parametrize("preset, scale", [("default", "trend"), ("paper", "std")])
def test_presets_scale_genes_their_way(preset, scale):
    mdata = simulate(n_cells=120, n_genes=200, n_peaks=300)
    model = CVQVAE(mdata, preset=preset, n_components=5)
    assert (model.transforms["rna"].gene_scale, gene_scale_of(mdata["rna"])) == (scale, scale)


def test_further_components_stand_behind_the_leading_ones_and_do_not_move_them(fitted):
    transform, adata = fitted
    wider = type(transform)(12, n_further=7)
    leading, every = wider.fit_transform(adata), wider.transform(adata, further=True)
    assert every.shape[1] == wider.fitted.shape[1] == 19 and np.allclose(every, wider.fitted, atol=1e-3)
    for found in (leading, wider.transform(adata), every[:, :12]):
        assert np.allclose(found, transform.transform(adata), atol=1e-3)
    restored = wider.inverse_transform(leading)
    assert np.allclose(restored, transform.inverse_transform(leading), atol=1e-2)
    again = type(transform).from_state(*wider.state())
    assert np.array_equal(again.transform(adata, further=True), every) and again.fitted is None


def test_there_are_as_many_further_components_as_there_can_be(rna_protein):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        few = rna_protein["rna"][:30].copy()
        transform = RNAComponents(12, n_further=100)
        assert (transform.fit_transform(few).shape, transform.fitted.shape) == ((30, 12), (30, 29))
        protein = modality(rna_protein, "protein")
        every = ProteinComponents(n_components=200, n_further=100)
        assert every.fit_transform(protein).shape[1] == protein.n_vars - 1 and every.fitted is None


def test_inverse_has_the_features_and_follows_them(fitted):
    transform, adata = fitted
    restored = transform.inverse_transform(transform.transform(adata))
    assert restored.shape == (adata.n_obs, len(transform.feature_names))
    assert np.isfinite(restored).all()


def test_missing_features_are_reported_and_too_few_are_refused(fitted):
    transform, adata = fitted
    names = transform.feature_names
    with pytest.warns(UserWarning, match="count as closed" if transform.kind == "atac" else "count as average"):
        found = transform.transform(adata[:, names[: int(0.8 * len(names))]].copy())
    expected = transform.transform(adata)
    assert np.median([np.corrcoef(a, b)[0, 1] for a, b in zip(found.T[:3], expected.T[:3], strict=True)]) > 0.5
    with pytest.raises(DataError, match="same assay"):
        transform.transform(adata[:, names[: len(names) // 3]].copy())


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 12), st.integers(2, 8))
def test_tf_idf_by_its_formula(seed, n, p):
    counts = np.random.default_rng(seed).poisson(1.0, (n, p))
    idf = np.array([n / total if total else 0 for total in counts.sum(0)])
    frequency = counts / np.maximum(counts.sum(1, keepdims=True), 1) * idf
    expected = np.log1p(1e4 * frequency / np.maximum(frequency.sum(1, keepdims=True), 1e-12) * (frequency.sum(1, keepdims=True) > 0))
    assert np.allclose(tf_idf(sp.csr_matrix(counts), inverse_frequency(counts)).toarray(), expected, atol=1e-3)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_log_ratio_is_centred_and_keeps_the_order(seed):
    counts = np.random.default_rng(seed).poisson(5.0, (4, 6))
    ratio = centred_log_ratio(counts)
    assert np.allclose(ratio.mean(1), 0, atol=1e-5)
    assert (np.argsort(ratio, 1, kind="stable") == np.argsort(counts, 1, kind="stable")).all()


def test_components_are_capped_with_a_warning_where_something_is_lost(rna_protein):
    protein = modality(rna_protein, "protein")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # all proteins are in their components: nothing to warn of
        transform = ProteinComponents(n_components=200).fit(protein)
    assert transform.transform(protein).shape[1] == protein.n_vars - 1
    with pytest.warns(UserWarning, match="possible: using 19"):
        RNAComponents(50).fit(rna_protein["rna"][:20].copy())


def test_depth_is_taken_out_when_asked(rna_atac):
    atac = modality(rna_atac, "atac")
    depth = np.asarray(atac.X.sum(1)).ravel()
    kept = ATACComponents(12, drop_depth_components=True).fit(atac).transform(atac)
    every = ATACComponents(12).fit(atac).transform(atac)
    assert kept.shape[1] < every.shape[1]
    assert np.abs(depth_correlation(kept, depth)).max() < np.abs(depth_correlation(every, depth)).max()


@pytest.mark.parametrize("cells, asked", [(60, 1), (2, 50)])
def test_a_single_component_of_accessibility_is_refused(rna_atac, cells, asked):
    with pytest.raises(DataError, match="a single LSI component"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ATACComponents(asked).fit_transform(rna_atac["atac"][:cells].copy())


def test_callers_counts_stay_and_own_components_win():
    mdata = simulate(n_cells=120, seed=1)
    before = {name: a.X.copy() for name, a in mdata.mod.items()}
    mdata["rna"].obsm["X_pca"] = np.random.default_rng(0).normal(size=(120, 4)).astype("float32")
    with pytest.warns(UserWarning, match=r"obsm\['X_pca'\] of 'rna' is used as it is: features of 'rna' cannot be predicted"):
        transforms = preprocess(mdata, n_components=5)
    assert list(transforms) == [name for name in mdata.mod if name != "rna"]
    assert components_of(mdata["rna"]).shape == (120, 4)
    assert all((before[name] != a.X).nnz == 0 for name, a in mdata.mod.items())
    assert set(preprocess(mdata, n_components=5, recompute=True)) == set(mdata.mod)


def test_components_of_the_caller_win_where_an_earlier_call_has_written():
    mdata = simulate(n_cells=120, n_genes=200, n_peaks=300, seed=1)
    preprocess(mdata, n_components=5, n_further=3)
    own = mdata["rna"].obsm["X_pca"] = np.random.default_rng(0).normal(size=(mdata.n_obs, 5)).astype("float32")
    with pytest.warns(UserWarning, match=r"obsm\['X_pca'\] of 'rna' is used as it is"):
        assert list(preprocess(mdata, n_components=5, n_further=3)) == ["atac"]
    assert np.array_equal(mdata["rna"].obsm["X_pca"], own)
    assert further_of(mdata["rna"]).shape == (mdata.n_obs, 0), "components of before do not stand behind those of the caller"
    mdata["atac"].obsm["X_lsi"] = np.full((mdata.n_obs, 5), np.nan)
    with pytest.raises(DataError, match="X_lsi.*NaN"):
        preprocess(mdata, n_components=5)


def test_what_was_written_is_computed_again_in_files_selections_and_other_orders(tmp_path, recwarn):
    mdata = simulate(n_cells=1500, n_genes=200, n_peaks=300, seed=1)
    preprocess(mdata, n_components=5, n_further=3)
    mdata.write(tmp_path / "cells.h5mu")
    assert set(preprocess(mudata.read_h5mu(tmp_path / "cells.h5mu"), n_components=5)) == set(mdata.mod)
    for rows in (np.arange(mdata.n_obs)[::-1], np.arange(0, mdata.n_obs, 7), np.random.default_rng(0).permutation(mdata.n_obs)[:40]):
        assert set(preprocess(mdata[rows].copy(), n_components=5)) == set(mdata.mod)
    assert not [w for w in recwarn if "used as it is" in str(w.message)]
    assert all(len(hashes) <= 1000 for a in mdata.mod.values() for hashes in a.uns[MARK]["fingerprints"].values())
    for adata in mdata.mod.values():  # as releases of before have written it
        del adata.uns[MARK]["fingerprints"]
    mdata["rna"].obsm["X_pca"] = mdata["rna"].obsm["X_pca"][:, :2] + 1
    assert set(preprocess(mdata, n_components=5)) == set(mdata.mod)


def test_a_file_s_components_make_way_for_those_of_its_counts(tmp_path):
    mdata = simulate(n_cells=120, n_genes=200, n_peaks=300, seed=1)
    own = np.random.default_rng(0).normal(size=(mdata.n_obs, 4)).astype("float32")
    mdata["rna"].obsm["X_pca"] = own
    paths = {name: str(tmp_path / f"{name}.h5ad") for name in mdata.mod}
    for name, path in paths.items():
        mdata[name].write(path)
    with pytest.warns(UserWarning, match=r"obsm\['X_pca'\] of 'rna' \(kept as X_pca_given\) came with the cells and is set aside"):
        read = load_cells(Parameters(**paths))
    assert np.array_equal(read["rna"].obsm["X_pca_given"], own) and "X_pca" not in read["rna"].obsm
    assert set(preprocess(read, n_components=5)) == set(mdata.mod)


def test_a_model_of_components_says_what_new_ones_are_worth():
    mdata = simulate(n_cells=120, n_genes=200, n_peaks=300, seed=1)
    mdata["rna"].obsm["X_pca"] = np.random.default_rng(0).normal(size=(mdata.n_obs, 4)).astype("float32")
    with pytest.warns(UserWarning, match="used as it is"):
        model = CVQVAE(mdata, hidden=(8,), n_latent=4, n_codes=8, n_components=5, device="cpu").fit(1, progress=False)
    new = mdata[:30].copy()
    del new["rna"].obsm["X_pca"]
    with pytest.raises(DataError, match="cannot compute them for other cells: give obsm"):
        model.latents(new)
    new["rna"].obsm["X_pca"] = np.eye(new.n_obs, 4, dtype="float32")
    with pytest.warns(UserWarning, match="means something only if it is on the very same axes"):
        assert len(model.latents(new)["joint"].z) == new.n_obs


def test_components_without_counts_are_taken_in_silence(recwarn):
    mdata = simulate(n_cells=60, seed=1)
    preprocess(mdata, n_components=5)
    recwarn.clear()
    assert preprocess(only_components(mdata)) == {} and not [w for w in recwarn if "used as it is" in str(w.message)]


MEMORY = textwrap.dedent("""
    import tracemalloc, numpy as np, scipy.sparse as sp
    from anndata import AnnData
    from cvqvae.lsi import ATACComponents
    rng, per = np.random.default_rng(0), 2000
    columns = np.concatenate([np.sort(rng.choice(25000, per, replace=False)) for _ in range(7000)]).astype(np.int32)
    x = sp.csr_matrix((np.ones(columns.size, np.float32), columns, np.arange(7001, dtype=np.int32) * per), (7000, 25000))
    adata = AnnData(x)
    tracemalloc.start()
    transform = ATACComponents(50).fit(adata)
    transform.transform(adata)
    print(tracemalloc.get_traced_memory()[1] / (x.data.nbytes + x.indices.nbytes + x.indptr.nbytes))
""")


def test_accessibility_is_never_dense():
    run = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    assert 0.3 < float(run.stdout) < 2, "peak above the input itself (so < 3 with it), in multiples of the input"


def marks(mdata):
    "What `preprocess` may write, by its names."
    return {name: (set(adata.layers), set(adata.obsm), MARK in adata.uns) for name, adata in mdata.mod.items()}


@pytest.mark.parametrize("preset", ["default", "paper"])
@pytest.mark.parametrize("kind, name", [("atac", "rna"), ("atac", "atac"), ("protein", "protein")])
@pytest.mark.parametrize("depth", [False, True])
@pytest.mark.filterwarnings("ignore")
def test_cells_that_are_all_alike_are_refused_and_nothing_is_written(preset, kind, name, depth):
    "Also where only the depth differs, of which rounding leaves components of noise."
    mdata = simulate(n_cells=60, n_genes=150, n_peaks=150, kind=kind)
    per_cell = np.arange(mdata.n_obs) + 1 if depth else np.full(mdata.n_obs, 3)
    mdata[name].X = np.outer(per_cell, np.ones(mdata[name].n_vars)).astype(np.float32)
    before = marks(mdata)
    with pytest.raises(DataError, match=f"'{name}' does not vary between cells.*leave this modality out"):
        CVQVAE(mdata, preset=preset, n_components=5, device="cpu")
    assert marks(mdata) == before


@pytest.mark.parametrize("values, message", [(np.nan, "NaN or infinite"), (1.0, "does not vary")])
@pytest.mark.filterwarnings("ignore")
def test_unusable_further_components_are_refused_and_nothing_is_written(values, message):
    mdata = simulate(n_cells=60, n_genes=150, n_peaks=150)
    mdata["rna"].obsm["X_pca"] = np.random.default_rng(0).normal(size=(mdata.n_obs, 4))
    mdata["rna"].obsm["X_pca_further"] = np.full((mdata.n_obs, 3), values)
    before = marks(mdata)
    with pytest.raises(DataError, match=f"X_pca_further.* of 'rna'.*{message}"):
        CVQVAE(mdata, n_components=5, device="cpu")
    assert marks(mdata) == before


@pytest.mark.parametrize("kind, name", [("rna", "rna"), ("atac", "atac"), ("protein", "protein")])
def test_components_that_are_not_fitted_say_so(kind, name):
    cells, transform = simulate(n_cells=20, n_genes=150, n_peaks=150, kind="protein" if kind == "protein" else "atac")[name], COMPONENTS[kind]()
    called = {"transform": lambda: transform.transform(cells), "inverse_transform": lambda: transform.inverse_transform(np.zeros((2, 50))),
              "explained_variance_ratio": lambda: transform.explained_variance_ratio}  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for call in called.values():
            with pytest.raises(ValueError, match=rf"{type(transform).__name__} is not fitted yet: call fit\(adata\) first"):
                call()


def test_labels_and_directions_that_are_not_fitted_say_so():
    z = np.zeros((3, 4))
    for call in (lambda: LabelTransfer().predict(z), lambda: LabelTransfer().predict(z[:0]), lambda: LabelTransfer().calibrate(z, ["a", "b", "b"])):
        with pytest.raises(ValueError, match=r"knows no reference yet: call fit\(z, labels\) first"):
            call()
    with pytest.raises(ValueError, match=r"not fitted yet: call fit\(first, second\) first"):
        CanonicalCorrelation().transform(z, z)


def test_a_model_that_is_not_trained_is_not_saved(tmp_path):
    model = CVQVAE(simulate(n_cells=60, n_genes=150, n_peaks=150), n_components=5, device="cpu")
    with pytest.raises(ValueError, match=r"not trained yet: call fit\(\) first"):
        model.save(tmp_path / "model")
    assert not list(tmp_path.iterdir())
