"""The metrics against scIB 1.1.7 on the same input, the published NMI of Open Problems, and the invariants of each measure."""

import pickle
import tracemalloc
import warnings
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from local_data import DATA
import scanpy as sc
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from sklearn.metrics import silhouette_samples

from cvqvae.alignment import foscttm, label_transfer
from cvqvae.biology import space_graph
from cvqvae.cells import DataError
from cvqvae.ground_truth import MetricAbsent, Truth, raw_joint, raw_stacked, rows_of
from cvqvae.measures import (
    batch_asw,
    cell_cycle,
    explained_share,
    graph_connectivity,
    ilisi,
    label_asw,
    neighbour_graph,
    nmi,
    partitions,
    silhouette_widths,
    trajectory,
)
from cvqvae.metrics import ADDED, METRICS, add_metric, evaluate, score_embedding, score_table, totals
from cvqvae.partitions import diffusion_space
from cvqvae.simulation import simulate

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import scib

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def cells():
    """600 cells: five types, three batches, a pseudotime on 60 %, a cell cycle; as AnnData with its graph."""
    rng = np.random.default_rng(0)
    labels = rng.choice(list("abcde"), 600)
    cycle = rng.normal(size=(600, 2))
    z = rng.normal(size=(5, 8))[np.searchsorted(list("abcde"), labels)] + rng.normal(size=(600, 8))
    z[:, :2] += 0.5 * cycle
    pseudotime = np.where(rng.uniform(size=600) < 0.6, z[:, 0] + 0.2 * rng.normal(size=600), np.nan)
    obs = pd.DataFrame({"label": pd.Categorical(labels), "batch": pd.Categorical(rng.choice(["x", "y", "w"], 600)), "pt": pseudotime})
    obs["S_score"], obs["G2M_score"] = cycle.T
    obs.index = obs.index.astype(str)
    adata = anndata.AnnData(z.astype(np.float32), obs=obs, obsm={"X_emb": z.astype(np.float32)})
    sc.pp.neighbors(adata, use_rep="X_emb")
    return adata


@pytest.fixture(scope="module")
def graph(cells):
    return neighbour_graph(cells.obsm["X_emb"])


def column(cells, name):
    return cells.obs[name].astype(str).to_numpy()


def truth_of(n=120, seed=0):
    rng = np.random.default_rng(seed)
    return Truth(
        labels=rng.choice(["B", "T", "NK"], n).astype(object),
        batch=rng.choice(["one", "two"], n).astype(object),
        cycle=rng.normal(size=(n, 2)),
        pseudotimes={"rna": rng.uniform(size=n), "atac": rng.uniform(size=n)},
        components={"rna": rng.normal(size=(n, 8)), "atac": rng.normal(size=(n, 5))},
    )


# --- the same numbers as scIB -------------------------------------------------------------------------------------------------


def test_graph_is_scanpys(cells, graph):
    assert abs(graph - cells.obsp["connectivities"]).max() == 0


def test_nmi_is_scibs(cells, graph):
    adata = cells.copy()
    scib.cl.opt_louvain(adata, label_key="label", cluster_key="cluster", verbose=False)
    assert nmi(graph, column(cells, "label")) == pytest.approx(scib.me.nmi(adata, "cluster", "label"), abs=1e-12)


def test_every_louvain_partition_is_scanpys(cells, graph):
    adata = cells.copy()
    for resolution, found in partitions(graph, resolutions=5):
        sc.tl.louvain(adata, resolution=resolution, key_added="cluster")
        assert adata.obs["cluster"].astype(int).tolist() == list(found)


def test_leiden_agrees_with_scanpys_leiden(cells, graph):
    adata, labels = cells.copy(), column(cells, "label")
    scores = []
    for resolution, _ in partitions(graph):
        sc.tl.leiden(adata, resolution=resolution, key_added="cluster", flavor="igraph", n_iterations=2, directed=False)
        scores.append(scib.me.nmi(adata, "cluster", "label"))
    assert nmi(graph, labels, clustering="leiden") == pytest.approx(max(scores), abs=0.03)


def test_leiden_leaves_igraph_random_state_to_the_caller(graph):
    first, second = (list(partitions(graph, 3, "leiden")) for _ in range(2))
    assert first == second


def test_silhouettes_are_scibs(cells):
    z, labels, batch = cells.obsm["X_emb"], column(cells, "label"), column(cells, "batch")
    assert label_asw(z, labels) == pytest.approx(scib.me.silhouette(cells, "label", "X_emb"), abs=1e-6)
    assert batch_asw(z, batch, labels) == pytest.approx(scib.me.silhouette_batch(cells, "batch", "label", "X_emb", verbose=False), abs=1e-6)


def test_graph_connectivity_is_scibs(cells, graph):
    assert graph_connectivity(graph, column(cells, "label")) == pytest.approx(scib.me.graph_connectivity(cells, "label"), abs=1e-12)


@pytest.mark.parametrize("batch_key", [None, "batch"])
def test_trajectory_is_scibs(cells, graph, batch_key):
    reference = scib.me.trajectory_conservation(cells.copy(), cells.copy(), "label", "pt", batch_key=batch_key)
    batch = None if batch_key is None else column(cells, batch_key)
    assert trajectory(graph, cells.obs["pt"].to_numpy(), column(cells, "label"), batch) == pytest.approx(reference, abs=1e-9)


@pytest.mark.parametrize("width", [20, 70])
def test_cell_cycle_is_scibs(cells, width):
    rng = np.random.default_rng(1)
    cycle = cells.obs[["S_score", "G2M_score"]].to_numpy()
    before = (rng.normal(size=(600, width)) + 0.3 * cycle @ rng.normal(size=(2, width))).astype(np.float32)
    pre = anndata.AnnData(before, obs=cells.obs.copy())
    reference = scib.me.cell_cycle(pre, cells, "batch", embed="X_emb", recompute_cc=False, organism="human")
    assert cell_cycle(before, cells.obsm["X_emb"], cycle, column(cells, "batch")) == pytest.approx(reference, abs=1e-5)


@pytest.mark.parametrize("name, published", [("multiome", 0.5604), ("cite", 0.7168)])
def test_published_open_problems_nmi(name, published):
    folder = (DATA or Path("absent")) / "oracle"
    if not folder.is_dir():
        pytest.skip(f"no Open Problems predictions: {folder} is absent (set CVQVAE_DATA)")
    prediction, solution = (anndata.read_h5ad(folder / f"op_{name}.{part}.h5ad") for part in ("prediction", "solution"))
    z = np.asarray(prediction.X.toarray() if hasattr(prediction.X, "toarray") else prediction.X)
    labels = solution.obs["cell_type"].astype(str).to_numpy()
    assert round(nmi(neighbour_graph(z), labels), 4) == published


def test_lost_root_of_a_published_prediction_is_absent_where_scib_returns_zero():
    folder = (DATA or Path("absent")) / "oracle"
    if not folder.is_dir():
        pytest.skip(f"no Open Problems predictions: {folder} is absent (set CVQVAE_DATA)")
    z = anndata.read_h5ad(folder / "op_cite.prediction.h5ad").X
    solution = anndata.read_h5ad(folder / "op_cite.solution.h5ad")
    graph, labels = neighbour_graph(np.asarray(z.toarray() if hasattr(z, "toarray") else z)), solution.obs["cell_type"].astype(str)
    with pytest.raises(MetricAbsent, match="largest connected piece"):
        trajectory(graph, solution.obs["pseudotime_order_GEX"].to_numpy(), labels.to_numpy())


# --- absent, never zero -------------------------------------------------------------------------------------------------------


def test_a_component_of_eleven_cells_has_a_trajectory_and_ten_have_none():
    line = np.linspace(0, 1, 11)
    graph = neighbour_graph(np.column_stack([line, line**2]))
    assert trajectory(graph, line, np.repeat("cell", 11)) > 0.9
    with pytest.raises(MetricAbsent, match="11 cells or more"):
        trajectory(graph, np.where(line > 0, line, np.nan), np.repeat("cell", 11))


def test_nothing_known_is_absent_with_reasons():
    table = score_embedding(np.random.default_rng(0).normal(size=(50, 4)), Truth(kept=np.ones(50, dtype=bool)))
    assert table["value"].isna().all() and (table["reason"] != "").all()


def test_ilisi_is_that_of_its_definition():
    rng = np.random.default_rng(0)
    z, batch = rng.normal(size=(130, 4)), rng.choice(["a", "b", "c"], 130, p=[0.5, 0.3, 0.2])
    z[batch == "b"] += 1
    expected = []
    for cell in z:
        distances = np.linalg.norm(z - cell, axis=1)
        near = np.argsort(distances)[1:91]  # the cell itself is the first

        def weights(slope, distances=distances[near]):
            weight = np.exp(-slope * distances)
            return weight / weight.sum()

        slope = brentq(lambda slope: -np.sum(weights(slope) * np.log(weights(slope))) - np.log(30), 1e-6, 100)
        simpson = sum(weights(slope)[batch[near] == name].sum() ** 2 for name in "abc")
        expected.append((1 / simpson - 1) / 2)
    assert ilisi(z, batch) == pytest.approx(np.mean(expected), abs=1e-4)
    assert ilisi(z * 1e6, batch) == pytest.approx(np.mean(expected), abs=1e-4)
    with pytest.raises(MetricAbsent, match="only one batch"):
        ilisi(z, np.repeat("a", 130))


@pytest.mark.parametrize("n", [3, 7, 40])
def test_ilisi_of_few_or_equal_cells_is_a_number(n):
    batch, rng = np.arange(n) % 2, np.random.default_rng(0)
    assert all(0 <= ilisi(z, batch) <= 1 for z in (np.zeros((n, 3)), rng.normal(size=(n, 3)), 1e9 * rng.normal(size=(n, 3))))


def test_mixing_of_batches_needs_no_cell_types_and_is_in_no_total():
    rng = np.random.default_rng(0)
    truth = Truth(batch=np.tile(["lab 1", "lab 2"], 60))
    mixed, apart = rng.normal(size=(120, 4)), rng.normal(size=(120, 4)) + 50 * np.tile([0, 1], 60)[:, None]
    scores = evaluate({"mixed": {"first": mixed, "second": mixed, "joint": mixed}, "apart": {"first": apart, "second": apart, "joint": apart}}, truth)
    for view in ("stacked", "joint"):
        table = score_table(scores, view)
        assert table.loc["mixed", "ilisi"] > 0.8 > 0.01 > table.loc["apart", "ilisi"] and table.loc["random", "ilisi"] > 0.8
        assert not {"score", "op_mean", "batch"} & set(table)
    one = score_embedding(mixed, Truth(batch=np.repeat("lab", 120))).set_index("metric")
    assert one.loc["ilisi", "reason"] == "there is only one batch"
    values = dict.fromkeys(METRICS, 0.5)
    assert totals(values | {"ilisi": 0.0}) == totals(values | {"ilisi": 1.0})


def test_one_batch_leaves_the_batch_group_to_graph_connectivity():
    truth = truth_of()
    truth.batch[:] = "one"
    table = score_embedding(truth.components["rna"], truth).set_index("metric")
    assert np.isnan(table.loc["batch_asw", "value"]) and "one batch" in table.loc["batch_asw", "reason"]
    assert table.loc["batch", "value"] == table.loc["graph_connectivity", "value"]
    assert "batch_asw" in table.loc["score", "reason"]


@pytest.mark.parametrize("view", ["joint", "stacked"])
def test_noise_has_no_score_where_there_is_one_cell_type(view):
    labels, batch = np.repeat("T", 120).astype(object), truth_of().batch
    for kept in (None, np.arange(120) > 0):
        truth = Truth(labels=np.where(np.arange(120) > 0, labels, "B"), batch=batch, kept=kept) if kept is not None else Truth(labels=labels, batch=batch)
        scores = evaluate({}, truth, views=(view,), resolutions=2).set_index("metric")
        for name in ("nmi", "label_asw", "biology", "score", "op_mean") + (("label_transfer", "label_transfer_back") if view == "stacked" else ()):
            assert np.isnan(scores.loc[name, "value"]) and scores.loc[name, "reason"], name
        assert "at least 2 cell types are needed, found 1" in scores.loc["nmi", "reason"] and np.isfinite(scores.loc["batch", "value"])
        assert "score_shared" not in scores.index or np.isnan(scores.loc["score_shared", "value"])


@pytest.mark.parametrize("known", [0, 1, 2])
def test_hardly_any_label_is_absent_with_a_reason(known):
    truth = truth_of()
    truth.labels[known:] = None
    scores = evaluate({"model": {"first": truth.components["rna"], "second": truth.components["rna"], "joint": truth.components["rna"]}}, truth, resolutions=2)
    joint = scores[scores["view"] == "joint"]
    assert joint["value"].isna().all() and (joint["reason"] != "").all()


def test_a_wrong_column_is_told_beside_a_column_whose_name_is_a_number():
    mdata = simulate(n_cells=60, n_genes=300, n_peaks=300)
    mdata.obs[3] = 1
    with pytest.raises(DataError, match="batch_key='lane' is not an obs column. Columns are: 3, G2M_score"):
        Truth.from_mudata(mdata, batch_key="lane")


def test_a_column_of_labels_that_is_empty_is_none():
    mdata = simulate(n_cells=60, n_genes=300, n_peaks=300, seed=0)
    mdata.obs["type"] = pd.Series([None] * 60, mdata.obs_names, dtype=object)
    truth = Truth.from_mudata(mdata, "batch", "type")
    assert truth.labels is None and truth.reasons["labels"] == "the column 'type' is empty (labels_key)" and truth.kept.all()


def test_missing_and_ignored_labels_are_not_scored():
    truth = truth_of()
    truth.kept = np.arange(120) < 90
    z = np.random.default_rng(1).normal(size=(120, 4))
    poisoned = np.where(truth.kept[:, None], z, 1000)
    columns = ["metric", "value"]
    pd.testing.assert_frame_equal(score_embedding(z, truth)[columns], score_embedding(poisoned, truth)[columns])


# --- two views ----------------------------------------------------------------------------------------------------------------


def test_stacked_rows():
    truth = truth_of()
    rows = rows_of(truth, "stacked")
    assert rows.labels.tolist() == truth.labels.tolist() * 2
    assert np.isfinite(rows.pseudotimes["rna"]).nonzero()[0].tolist() == list(range(120))
    assert np.isfinite(rows.pseudotimes["atac"]).nonzero()[0].tolist() == list(range(120, 240))
    assert np.array_equal(rows.before, np.concatenate([truth.components["rna"]] * 2))
    truth.cycle_before = "view"
    assert rows_of(truth, "stacked").before.shape == (240, 5) and rows_of(truth, "joint").before.shape == (120, 13)


def test_cell_cycle_is_compared_with_the_rna_or_with_the_view_when_asked():
    truth = truth_of()
    twice = np.concatenate([truth.components["rna"]] * 2)
    values = score_embedding(twice, truth, "stacked", resolutions=2).set_index("metric")["value"]
    assert values["cell_cycle"] == pytest.approx(1, abs=1e-5)
    truth.cycle_before = "view"
    raw = score_table(evaluate({}, truth, resolutions=2, views=("stacked",))).loc["raw", "cell_cycle"]
    assert raw == pytest.approx(1, abs=1e-5)
    assert score_embedding(twice, truth, "stacked", resolutions=2).set_index("metric")["value"]["cell_cycle"] < 0.9


def test_truth_is_not_changed_by_scoring():
    truth = truth_of()
    before = {name: values.copy() for name, values in truth.components.items()}
    evaluate({"model": {"joint": truth.components["rna"]}}, truth, resolutions=2)
    assert all(np.array_equal(before[name], truth.components[name]) for name in before)


def test_evaluate_always_has_raw_and_random_and_says_what_a_method_lacks():
    truth = truth_of()
    scores = evaluate({"model": {"joint": truth.components["rna"]}}, truth, resolutions=2)
    assert set(scores["method"]) == {"model", "raw", "random"}
    lacking = scores[(scores["method"] == "model") & (scores["view"] == "stacked")]
    assert lacking["reason"].str.contains("no first and second embedding").any()
    assert list(score_table(scores, "joint").index) == ["model", "raw", "random"]


@pytest.mark.parametrize("name", ["raw", "random"])
def test_a_method_is_not_replaced_by_a_row_of_the_same_name(name):
    truth = truth_of()
    with pytest.raises(DataError, match=f"a row '{name}' of its own.*another name"):
        evaluate({"model": {"joint": truth.components["rna"]}, name: {"joint": truth.components["atac"]}}, truth, resolutions=2)


def test_labels_in_the_place_of_an_embedding_are_told():
    z, labels = np.random.default_rng(0).normal(size=(20, 3)), np.repeat(["a", "b"], 10)
    with pytest.raises(DataError, match=r"shape \(20, 3\): are they in the place of an embedding"):
        label_transfer(z, labels, z)


@pytest.mark.parametrize("name", ["nmi", "score", "score_shared", "biology", "foscttm", "label_transfer_back"])
def test_no_metric_takes_the_name_of_another_row(name):
    with pytest.raises(DataError, match=f"{name!r} is a metric already"):
        add_metric(name, lambda z, rows: 0.0)
    found = evaluate({"model": {"joint": np.eye(40), "first": np.eye(40), "second": np.eye(40)}}, Truth(labels=np.repeat(["B", "T"], 20)), resolutions=1)
    assert name in {*found["metric"]} and name not in ADDED


def test_scoring_leaves_numpys_global_generator_alone():
    mdata = simulate(n_cells=120, n_genes=300, n_peaks=300, seed=0)
    for table in (mdata, *mdata.mod.values()):
        table.obs = table.obs.drop(columns=["S_score", "G2M_score"], errors="ignore")
    z, drawn = np.random.default_rng(0).normal(size=(120, 4)), []
    for score in (False, True):
        np.random.seed(7)
        if score:
            truth = Truth.from_mudata(mdata, "batch", "cell_type")
            assert truth.cycle is not None
            evaluate({"noise": {"joint": z}}, truth, views=("joint",), resolutions=2)
        drawn.append(np.random.uniform(size=3).tolist())
    assert drawn[0] == drawn[1]


def test_scoring_leaves_it_to_the_caller_how_numbers_are_printed():
    truth, z = truth_of(), np.random.default_rng(0).normal(size=(len(truth_of()), 4))
    before = np.get_printoptions()
    scores = evaluate({"noise": {"joint": z}}, truth, views=("joint",), resolutions=1)
    assert scores.set_index(["method", "metric"]).loc[("raw", "trajectory"), "value"] > 0
    diffusion_space(z), space_graph(z, pd.Series(np.arange(len(z)) % 3))
    assert np.get_printoptions() == before


def test_modalities_that_are_called_as_in_the_truth_may_come_in_any_order():
    truth, rng = truth_of(), np.random.default_rng(1)
    truth.pseudotimes["rna"][:60] = np.nan
    parts = {name: rng.normal(size=(len(truth), 4)) for name in ("rna", "atac")}
    one, other = (evaluate({"model": {name: parts[name] for name in names}}, truth, resolutions=2) for names in (("rna", "atac"), ("atac", "rna")))
    pd.testing.assert_frame_equal(one, other)


def test_evaluate_repeats_itself():
    truth = truth_of()
    first, second = (evaluate({}, truth, seed=3, resolutions=2) for _ in range(2))
    pd.testing.assert_frame_equal(first, second)


def test_random_scores_low_biology_and_high_batch_asw():
    table = score_table(evaluate({}, truth_of(600), resolutions=5), "stacked").loc["random"]
    assert table["nmi"] < 0.1 and table["batch_asw"] > 0.9 and 0.45 < table["foscttm"] < 0.55


def test_shared_score_drops_what_one_method_lacks():
    truth = truth_of()
    scores = evaluate({}, truth, views=("joint",), resolutions=2)
    wide = score_table(scores, "joint")
    present = wide.reindex(columns=list(METRICS)).dropna(axis="columns")
    expected = totals(present.loc["raw"].to_dict() | {name: np.nan for name in METRICS if name not in present})["score"][0]
    assert wide.loc["raw", "score_shared"] == pytest.approx(expected)


def test_wrong_shapes_are_data_errors():
    with pytest.raises(DataError, match="120 rows"):
        score_embedding(np.zeros((119, 3)), truth_of())
    with pytest.raises(DataError, match="'joint'"):
        score_embedding(np.zeros((120, 3)), truth_of(), view="both")


# --- invariants ---------------------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 6), st.floats(0.01, 100))
def test_silhouettes_equal_sklearn_and_ignore_scale(seed, groups, scale):
    rng = np.random.default_rng(seed)
    z, labels = rng.normal(size=(60, 3)), np.append(np.arange(groups), rng.integers(0, groups, 60 - groups))
    widths = silhouette_widths(z, labels)
    np.testing.assert_allclose(widths, silhouette_samples(z, labels), atol=1e-7)
    np.testing.assert_allclose(silhouette_widths(z * scale + 7, labels), widths, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31))
def test_foscttm_ignores_rotation_and_cell_order(seed):
    rng = np.random.default_rng(seed)
    first = rng.normal(size=(40, 4))
    second = first + rng.normal(size=(40, 4))
    rotation, order = np.linalg.qr(rng.normal(size=(4, 4)))[0], rng.permutation(40)
    value = foscttm(first, second)
    assert 0 <= value <= 1
    assert foscttm((first @ rotation)[order] + 3, (second @ rotation)[order] + 3, block=7) == pytest.approx(value, abs=1e-9)


def test_a_collapsed_space_has_chance_alignment():
    codes = np.repeat(np.eye(4), 25, axis=0)
    assert foscttm(np.zeros((100, 4)), np.zeros((100, 4))) == 0.5
    assert foscttm(codes, codes) == pytest.approx(24 / 99 / 2)


def test_alignment_never_holds_the_full_matrix():
    z = np.random.default_rng(0).normal(size=(8000, 8))
    labels = np.repeat(["a", "b"], 4000)
    tracemalloc.start()
    foscttm(z, z[::-1], block=256), label_transfer(z, z[::-1], labels)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8000 * 8000 * 4 / 3


def test_explained_share_ignores_rotation():
    rng = np.random.default_rng(0)
    values, covariates = rng.normal(size=(100, 5)), rng.normal(size=(100, 2))
    rotation = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    assert explained_share(values @ rotation + 9, covariates) == pytest.approx(explained_share(values, covariates))


def test_raw_blocks_weigh_the_same_whatever_their_scale():
    components = truth_of().components
    scaled = components | {"rna": 100 * components["rna"]}
    np.testing.assert_allclose(raw_joint(scaled), raw_joint(components), atol=1e-5)
    assert raw_stacked(components).shape == (240, 5)


def test_sampled_silhouettes_stay_within_the_stated_error(cells):
    z, labels = cells.obsm["X_emb"], column(cells, "label")
    exact = label_asw(z, labels)
    samples = [label_asw(z, labels, max_cells=100, seed=seed) for seed in range(20)]
    assert abs(np.mean(samples) - exact) < 0.02 and exact.error == 0
    assert np.std(samples) == pytest.approx(np.mean([sample.error for sample in samples]), rel=0.5)


def test_a_sampled_score_says_so_and_travels_between_processes(cells):
    z, truth = cells.obsm["X_emb"], Truth(labels=column(cells, "label"), batch=column(cells, "batch"))
    table = evaluate({"a": {"first": z, "second": z + 1, "joint": z}}, truth, resolutions=1, max_cells=50).set_index(["method", "view", "metric"])
    for name in ("label_asw", "batch_asw", "foscttm", "label_transfer", "label_transfer_back"):
        assert "rows measured, standard error" in table.loc[("a", "stacked", name), "reason"]
    value = label_asw(z, truth.labels, max_cells=50)
    again = pickle.loads(pickle.dumps(value))
    assert (again, again.error, again.note) == (value, value.error, value.note) and value.error > 0


def test_foscttm_of_a_sample_is_that_of_its_queries(cells):
    first = cells.obsm["X_emb"]
    second = first + np.random.default_rng(3).normal(size=first.shape)
    exact, sampled = foscttm(first, second), foscttm(first, second, max_cells=200, seed=1)
    assert sampled.measured == 200 and exact.error == 0 and 0 < abs(sampled - exact) < 3 * sampled.error


def test_the_papers_table_1():
    rows = {
        0.840: (0.780, 0.569, 0.883, 0.880, 0.883, 0.982),
        0.832: (0.780, 0.591, 0.847, 0.887, 0.870, 0.963),
        0.533: (0.415, 0.446, 0.430, 0.284, 0.888, 0.597),
    }
    for score, values in rows.items():
        found = totals(dict(zip(METRICS, values)) | {"trajectory_batch": np.nan})
        assert found["score"][0] == pytest.approx(score, abs=1e-3)
