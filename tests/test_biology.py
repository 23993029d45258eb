"""Markers, pseudotime and transferred labels: right on cells whose truth is known, clear where they cannot be had."""

import warnings

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from cvqvae.biology import (
    find_root, gene_expression, growth_tree, marker_table, plot_genes, plot_pseudotime, plot_reliability, pseudotime, reached_cells, reliability, space_graph,
    specific_genes, time_agreement, vote_labels,
)  # fmt: skip
from cvqvae.cells import DataError
from cvqvae.checks import cells_per_group, in_order, whole_numbers
from cvqvae.code_names import asked_features, feature_values, modality_markers
from cvqvae.code_usage import group_graph
from cvqvae.figures import filled, group_colours
from cvqvae.simulation import simulate


@pytest.fixture(scope="module")
def mdata():
    return simulate(n_cells=400, seed=4)


@pytest.fixture(scope="module")
def chain():
    rng = np.random.default_rng(0)
    truth = np.sort(rng.uniform(0, 3, 300))
    z = np.column_stack([truth * 10, rng.normal(0, 0.3, (300, 4))])
    groups = pd.Series(np.array(["early", "middle", "late"])[np.minimum(truth.astype(int), 2)], index=[f"c{i}" for i in range(300)])
    return z, groups, pd.Series(truth, index=groups.index)


def test_a_planted_marker_is_found_first(mdata):
    expression = gene_expression(mdata)
    groups = pd.Series(np.where(np.arange(400) < 60, "few", "many"), index=mdata.obs_names)
    planted = expression.copy()
    column = planted.var_names[7]
    values = planted.X.tolil()
    values[:, 7] = np.where(np.arange(400) < 60, 3.0, 0.0)[:, None]
    planted.X = values.tocsr()
    table = marker_table(planted, groups)
    first = table[table["group"] == "few"].iloc[0]
    assert first["gene"] == column and first["share_in"] == 1 and first["share_out"] == 0
    assert specific_genes(table, 1) == [column]


def test_cells_without_a_type_and_small_types_have_no_markers(mdata):
    types = mdata.obs["cell_type"].astype(object).copy()
    types[types == "HSC"] = None
    rare = types.index[types == "Monocyte"][:-3]
    types[rare] = "Naive B"
    table = marker_table(gene_expression(mdata), types)
    assert not {"HSC", "None", "nan", "Monocyte"} & set(table["group"])


def test_unknown_genes_are_named(mdata):
    with pytest.raises(DataError, match="NOSUCHGENE"):
        plot_genes(np.zeros((400, 2)), gene_expression(mdata), ["NOSUCHGENE"])


def test_markers_need_rna(mdata):
    only = type(mdata)({"atac": mdata["atac"]})
    with pytest.raises(DataError, match="need RNA"):
        gene_expression(only)


def test_pseudotime_follows_a_chain_and_its_arrows_point_forward(chain):
    z, groups, truth = chain
    space = space_graph(z, groups)
    time = pseudotime(space, "early")
    assert time.corr(truth, method="spearman") > 0.95 and time.min() == 0 and time.max() == 1
    assert pseudotime(space, "late").corr(truth, method="spearman") < -0.95
    tree = growth_tree(space, time)
    assert set(zip(tree["source"], tree["target"])) == {("early", "middle"), ("middle", "late")}


def test_the_root_is_ringed_in_every_panel(chain):
    z, groups, truth = chain
    space = space_graph(z, groups)
    times = {"late": pseudotime(space, "late")}
    roots = {"late": space.uns["iroot"]}
    times["early"], roots["early"] = pseudotime(space, "early"), space.uns["iroot"]
    panels = {name: (z[:, [0, i]], time) for i, (name, time) in enumerate(times.items(), 1)}
    panels["not reached"] = (z[:, :2], truth * np.nan)
    figure = plot_pseudotime(panels)
    panels_drawn = {ax.get_title(): ax for ax in figure.axes}
    for name, (coordinates, _) in panels.items():
        marks = [line.get_xydata()[0].tolist() for line in panels_drawn[name].lines]
        assert marks == ([] if name == "not reached" else 3 * [coordinates[roots[name]].tolist()])
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["root cell"]


def test_arrows_of_growth_begin_and_end_at_cells(chain):
    z, groups, truth = chain
    places = z[:, :2] + np.outer(np.arange(len(z)) % 2, [1000.0, 0.0])  # every type lies in two clouds
    tree = growth_tree(space_graph(z, groups), truth)
    figure = plot_pseudotime({"integrated": (places, truth)}, {"integrated": tree}, groups)
    ends = [end for arrow in figure.axes[0].texts for end in (arrow.xy, arrow.xyann)]
    assert len(ends) == 4 and all((places == end).all(1).any() for end in ends)


def test_an_island_has_no_pseudotime(chain):
    z, groups, _ = chain
    far = np.vstack([z, z[:40] + 1e4])
    named = pd.concat([groups, pd.Series("island", index=[f"i{i}" for i in range(40)])])
    space = space_graph(far, named)
    time = pseudotime(space, "early")
    assert time[named == "island"].isna().all() and time[named != "island"].notna().all()
    assert "island" not in set(growth_tree(space, time)[["source", "target"]].to_numpy().ravel())


@pytest.mark.parametrize("n_islands", [2, 5, 24])
def test_types_that_lie_apart_have_a_pseudotime_of_the_root_alone_and_no_arrows(n_islands):
    "More islands than diffusion components: their eigenvectors cannot be found at once, and PAGA has no edge to read."
    rng, island = np.random.default_rng(0), np.repeat(np.arange(n_islands), 40)
    groups = pd.Series(island, index=[f"c{i}" for i in range(len(island))]).map("type {}".format)
    z = 1e3 * np.eye(n_islands)[island]
    z[:, 0] += np.tile(np.linspace(0, 40, 40), n_islands)
    space = space_graph(z + 0.1 * rng.normal(size=z.shape), groups)
    time = pseudotime(space, "type 1")
    own = (groups == "type 1").to_numpy()
    assert time[own].notna().all() and time[~own].isna().all() and own[space.uns["iroot"]] and time.iloc[space.uns["iroot"]] == 0
    assert abs(time[own].corr(pd.Series(z[own, 0], time.index[own]), method="spearman")) > 0.95
    assert growth_tree(space, time).empty and group_graph(z, groups).empty


def test_the_root_is_given_by_a_reference_or_guessed_and_said_so(mdata):
    types = mdata.obs["cell_type"].astype(str)
    assert find_root(mdata, types, mdata.obs["pseudotime"])[0] == "HSC"
    name, how = find_root(mdata, types)
    assert name in set(types) and how.startswith("guessed")


def test_the_largest_point_of_reliability_is_not_cut_at_the_edge():
    "Where nearly all labels are sure and right, it lies in the corner."
    table = pd.DataFrame({"cells": [5, 995], "confidence": [0.5, 1.0], "accuracy": [0.4, 1.0]}, index=["0.0 to 0.5", "0.9 to 1.0"])
    figure = plot_reliability({"rna to atac": table})
    (axes,) = figure.axes
    (points,) = axes.collections
    figure.draw_without_rendering()
    assert not points.get_clip_on() and points.get_offsets()[1].tolist() == [1.0, 1.0]


def test_confident_labels_are_right_more_often():
    rng = np.random.default_rng(0)
    labels = pd.Series(rng.choice(["a", "b"], 2000))
    z = labels.map({"a": 0.0, "b": 1.5}).to_numpy()[:, None] + rng.normal(size=(2000, 1))
    found = vote_labels(z[:1000], labels[:1000], z[1000:])
    table = reliability(found, labels[1000:])
    assert table["cells"].sum() == 1000 and list(table.index) == ["0.0 to 0.5", "0.5 to 0.7", "0.7 to 0.9", "0.9 to 1.0"]
    assert table["accuracy"].dropna().is_monotonic_increasing
    assert np.allclose(table.loc["0.9 to 1.0", ["confidence", "accuracy"]].astype(float), 0.95, atol=0.08)


def test_expression_is_normalised_and_leaves_the_cells_alone(mdata):
    before = mdata["rna"].X.copy()
    expression = gene_expression(mdata, least_share=0)
    assert isinstance(expression, AnnData) and np.allclose(np.expm1(expression.X).sum(1), 1e4, rtol=1e-3)
    assert (mdata["rna"].X != before).nnz == 0


@pytest.mark.parametrize("dtype", ["float64", "float32", "object", "category", "Float64"])
def test_numbered_clusters_with_a_gap_are_whole_numbers_in_their_order(dtype):
    clusters = pd.Series([10.0, 2.0, None, 0.0]).astype(dtype)
    assert list(group_colours(filled(clusters))) == ["0", "2", "10", "missing"]
    assert whole_numbers(pd.Series([0.5, 1.0, None]).astype(dtype)).dropna().tolist() == [0.5, 1.0]
    assert in_order(["code 18: b", "code 8: b", "cluster 10", "cluster 9", "x"]) == ["cluster 9", "cluster 10", "code 8: b", "code 18: b", "x"]
    table = cells_per_group(pd.Series(["T 10", "T 2", "T 2"]), pd.Series([10.0, 9.0, 10.0]))
    assert (list(table.index), list(table), table.loc["T 2"].tolist()) == (["T 2", "T 10"], ["9", "10"], [1, 1])


def test_markers_of_numbered_clusters_stand_in_the_order_of_the_numbers(mdata):
    table = marker_table(gene_expression(mdata), mdata.obs["cell_type"].map({"HSC": "2", "Erythroblast": "10", "Monocyte": "1"}))
    assert table["group"].drop_duplicates().tolist() == ["1", "2", "10"]


def test_what_a_root_reaches_is_told_per_space_and_correlations_say_on_how_many_cells_they_rest(chain):
    _, groups, truth = chain
    half = truth.where(groups != "late").where(truth > 0.5)
    table = reached_cells({"all": truth, "half": half}, groups)
    assert table.loc["all"].tolist() == [300, 300, "", ""]
    assert table.loc["half"].tolist() == [half.notna().sum(), 300, "late", "early"]
    rho, n = time_agreement(pd.DataFrame({"all": truth, "half": half, "other": truth.where(groups == "late")}))
    assert n.loc["all"].tolist() == [300, half.notna().sum(), (groups == "late").sum()] and n.loc["half", "other"] == 0
    assert rho.loc["all", "half"] == 1 and np.isnan(rho.loc["half", "other"])


@pytest.fixture(scope="module")
def cite():
    return simulate(n_cells=300, kind="protein", seed=4)


def test_a_planted_protein_is_found_first_by_the_cells_that_show_it(cite):
    groups = pd.Series(np.where(np.arange(300) < 60, "few", "many"), index=cite.obs_names)
    planted = cite.copy()
    counts = planted["protein"].X.toarray() if hasattr(planted["protein"].X, "toarray") else planted["protein"].X.copy()
    counts[:, 7] = np.where(np.arange(300) < 60, 500, 5)
    planted["protein"].X = counts
    table = modality_markers(feature_values(planted), groups)
    first = table[(table["modality"] == "protein") & (table["group"] == "few")].iloc[0]
    assert first["gene"] == planted["protein"].var_names[7] and first["share_in"] > 0.95 and first["share_out"] < 0.05
    assert first["log2_fold_change"] == pytest.approx(np.log2(501 / 6), abs=0.6)


def test_markers_of_peaks_leave_out_small_groups_and_cells_without_one(mdata):
    types = mdata.obs["cell_type"].astype(object).where(mdata.obs["cell_type"] != "HSC")
    rare = types.index[types == "Monocyte"][:-3]
    types[rare] = "Naive B"
    table = modality_markers(feature_values(mdata), types).query("modality == 'atac'")
    assert len(table) and not {"HSC", "", "nan", "Monocyte"} & set(table["group"])


def test_proteins_can_be_asked_for_beside_genes_of_the_same_name(cite):
    values = feature_values(cite)
    assert "CD4" in values["rna"].var_names and "CD4" in values["protein"].var_names
    assert list(asked_features(values, ["CD4"]).var_names) == ["CD4 (rna)", "CD4 (protein)"]
    only = asked_features(values, ["protein:CD4", "LYZ"])
    assert list(only.var_names) == ["CD4 (protein)", "LYZ"]
    assert np.allclose(only.X[:, 0], np.asarray(values["protein"][:, "CD4"].X).ravel())
    with pytest.raises(DataError, match="rna and protein that enough cells show: NOSUCH"):
        asked_features(values, ["CD4", "NOSUCH"])


def test_a_modality_without_markers_is_no_remark_of_pandas(mdata):
    values = feature_values(mdata)
    values["rna"].X = values["rna"].X * 0
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*concatenation with empty")
        table = modality_markers(values, mdata.obs["cell_type"])
    assert set(table["modality"]) == {"atac"} and "log2_fold_change" in table
