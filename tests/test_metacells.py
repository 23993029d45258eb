"""Metacells keep every cell and every count, mean the same in any order of rows, and are better than chance."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_hex
from mudata import MuData

from cvqvae import CVQVAE
from cvqvae.cells import DataError
from cvqvae.code_names import feature_names, specific_features
from cvqvae.code_usage import effective_groups, group_graph, nearest_codes, plot_group_graph, plot_usage, usage_table
from cvqvae.datasets import read_any
from cvqvae.explorer import export_explorer
from cvqvae.metacells import CodeCells, code_cells, code_groups, merge_codes, metacells, sum_counts, ward_merges
from cvqvae.partitions import compactness, diffusion_space, label_shares, partition_summary, partition_table, purity, separation
from cvqvae.simulation import simulate

SMALL = dict(hidden=(32,), n_latent=8, n_codes=64, n_components=12, device="cpu", epochs=24)


def trained(mdata, **settings):
    return CVQVAE(mdata, batch_key="batch", **(SMALL | settings)).fit(progress=False)


@pytest.fixture(scope="module")
def model():
    return trained(simulate(n_cells=300, seed=3, n_genes=400, n_peaks=800))


@pytest.fixture(scope="module")
def meta(model):
    return metacells(model, labels_key="cell_type", target_size=20)


def dense(matrix):
    return matrix.toarray() if sp.issparse(matrix) else np.asarray(matrix)


def test_counts_are_conserved_to_the_unit(model, meta):
    for name, adata in model.mdata.mod.items():
        counts = adata.layers["counts"] if "counts" in adata.layers else adata.X
        assert np.array_equal(dense(meta[name].X).sum(0), dense(counts).sum(0, dtype=np.float64))
        one = model.mdata.obs["metacell"] == "M001"
        assert np.array_equal(dense(meta[name]["M001"].X)[0], dense(counts[one.to_numpy()]).sum(0, dtype=np.float64))
        assert meta[name].var_names.equals(adata.var_names)


def test_counts_beyond_single_precision_are_conserved(model):
    large = model.mdata.copy()
    large["rna"].layers["counts"] = sp.csr_matrix(np.full(large["rna"].shape, 16_777_215, np.float32))
    groups = pd.Series("all", index=large.obs_names)
    assert (sum_counts(large, groups)["rna"].X.toarray() == 300 * 16_777_215).all()


@pytest.mark.parametrize("wish", [dict(target_size=20), dict(n_metacells=7), dict(target_size=20, refine="cells"), dict(n_metacells=1)])
def test_every_cell_is_in_exactly_one_metacell(model, wish):
    groups = code_groups(model, **wish)
    assert groups.index.equals(model.mdata.obs_names) and groups.notna().all()
    sizes = groups.value_counts()
    assert sizes.sum() == 300 and sizes.min() >= 10 and sizes["M000"] == sizes.max()
    assert len(sizes) <= wish.get("n_metacells", 15)


def test_a_code_is_never_divided_unless_cells_refine(model):
    codes = model.codes()["joint"]
    assert (pd.crosstab(codes, code_groups(model, target_size=20)) > 0).sum(axis=1).max() == 1


def test_purity_and_compactness_beat_random_groups_of_the_same_sizes(model, meta):
    groups, labels = model.mdata.obs["metacell"].astype(str), model.mdata.obs["cell_type"]
    chance = pd.Series(np.random.default_rng(0).permutation(groups), index=groups.index)
    space = diffusion_space(code_cells(model).z)
    real, random = (partition_summary(partition_table(g, space, labels)) for g in (groups, chance))
    assert real["purity"] > random["purity"] + 0.1 and real["compactness"] < 0.5 * random["compactness"]
    assert np.allclose(meta.obs["purity"], purity(groups, labels)["purity"])


def test_the_order_of_rows_does_not_matter(model):
    order = np.random.default_rng(1).permutation(300)
    shuffled = model.mdata[order].copy()
    for wish in (dict(target_size=20), dict(target_size=20, refine="cells")):
        straight, mixed = code_groups(model, model.mdata.copy(), **wish), code_groups(model, shuffled, **wish)
        assert straight.astype(str).equals(mixed.astype(str).reindex(straight.index))


def test_only_the_named_slot_of_the_cells_changes(model):
    cells = model.mdata.copy()
    before, obs = set(cells.uns) | set(cells.obsm), set(cells.obs) - {"metacell"}
    metacells(model, cells, target_size=50)
    assert set(cells.obs) - obs == {"metacell"} and set(cells.uns) | set(cells.obsm) == before


def test_metacells_survive_a_file(meta, tmp_path):
    import mudata

    meta.write(tmp_path / "metacells.h5mu")
    again = mudata.read(tmp_path / "metacells.h5mu")
    assert again.obs["name"].astype(str).tolist() == meta.obs["name"].tolist()
    assert np.allclose(again.obsm["batch_shares"], meta.obsm["batch_shares"])


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        (dict(n_metacells=0), "between 1 and"),
        (dict(n_metacells=301), "between 1 and"),
        (dict(target_size=0), "target_size"),
        (dict(target_size=5, min_size=9), "min_size"),
        (dict(refine="both"), "refine"),
        (dict(source="protein"), "choose one of joint, rna, atac"),
        (dict(labels_key="nothing"), "labels_key='nothing' is not an obs column"),
        (dict(batch_key="lane"), "batch_key='lane' is not an obs column"),
    ],
)
def test_bad_wishes_are_refused_before_anything_is_written(model, wish, message):
    cells = model.mdata.copy()
    cells.obs = cells.obs.drop(columns="metacell", errors="ignore")
    with pytest.raises(DataError, match=message):
        metacells(model, cells, **wish)
    assert "metacell" not in cells.obs


def test_more_metacells_than_codes_warns_and_gives_the_codes(model):
    with pytest.warns(UserWarning, match="larger n_codes"):
        groups = code_groups(model, n_metacells=250, min_size=1)
    assert groups.nunique() == model.codes()["joint"].nunique()


def test_models_without_joint_codes_or_without_cells(model, tmp_path):
    mdata = simulate(n_cells=120, seed=5, n_genes=200, n_peaks=300)
    paper = trained(mdata, preset="paper", epochs=2)
    with pytest.warns(UserWarning):
        by_code = code_groups(paper, n_metacells=60, min_size=1)
    assert by_code.nunique() == paper.codes()["rna"].nunique()
    with pytest.raises(DataError, match="no codes"):
        code_groups(trained(mdata, variant="cvae", epochs=1))
    model.save(tmp_path / "model")
    loaded = CVQVAE.load(tmp_path / "model")
    with pytest.raises(DataError, match="no cells of its own"):
        metacells(loaded)
    with pytest.raises(DataError, match="a trained model: give it first, .* not MuData alone"):
        metacells(model.mdata)
    assert code_groups(loaded, model.mdata, target_size=20).equals(code_groups(model, model.mdata, target_size=20))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=25), st.integers(1, 30), st.integers(0, 50))
def test_merging_partitions_codes_whatever_their_sizes(sizes, n_groups, min_size):
    sizes = np.array(sizes)
    centre = np.random.default_rng(len(sizes)).normal(size=(len(sizes), 3))
    codes = CodeCells(np.repeat(centre, sizes, axis=0), np.repeat(np.arange(len(sizes)), sizes), np.arange(len(sizes)), centre, sizes)
    group = merge_codes(codes, n_groups, min_size)
    totals = np.bincount(group, sizes)
    assert group.shape == sizes.shape and set(group) == set(range(len(totals))) and totals.sum() == sizes.sum()
    assert len(totals) == 1 or (totals.min() >= min_size and len(totals) <= n_groups)


def test_weighted_ward_is_ward_over_repeated_points():
    from scipy.cluster.hierarchy import fcluster, linkage

    rng = np.random.default_rng(2)
    centre, size = rng.normal(size=(30, 4)), rng.integers(1, 9, 30)
    group = np.arange(30)
    for i, j in ward_merges(centre, size)[:23]:
        group[group == j] = i
    points = fcluster(linkage(np.repeat(centre, size, axis=0), "ward"), 7, "maxclust")
    first = np.concatenate([[0], np.cumsum(size)[:-1]])
    pairs = pd.crosstab(group, points[first]) > 0
    assert pairs.sum(axis=0).eq(1).all() and pairs.sum(axis=1).eq(1).all()


def test_measures_of_known_groups():
    names = pd.Index(list("abcd"))
    groups, space = pd.Series(["x", "x", "y", "y"], index=names), np.array([[0.0, 0], [2, 0], [10, 0], [10, 4]])
    assert compactness(groups, space).to_dict() == {"x": 1.0, "y": 4.0}
    assert np.allclose(separation(groups, space), np.sqrt(81 + 4))
    labels = pd.Series(["t", "b", "t", None], index=names)
    assert purity(groups, labels)["purity"].to_dict() == {"x": 0.5, "y": 1.0}
    with pytest.raises(DataError, match="same order"):
        label_shares(groups, labels.iloc[::-1])


def test_islands_do_not_break_the_diffusion_space():
    rng = np.random.default_rng(0)
    space = diffusion_space(np.vstack([rng.normal(0, 1, (80, 3)), rng.normal(1e4, 1, (80, 3))]))
    assert np.isfinite(space).all() and space.shape[1] >= 5


@pytest.mark.parametrize("n_islands", [12, 60])
def test_many_islands_each_keep_a_diffusion_component_of_their_own(n_islands):
    "More of them than components that are asked for: every eigenvalue that a search for ten would find is 1, if it ends."
    island = np.repeat(np.arange(n_islands), 40)
    space = diffusion_space(1e3 * np.eye(n_islands)[island] + np.random.default_rng(0).normal(size=(len(island), n_islands)))
    here = pd.DataFrame(space != 0).groupby(island).any()
    assert (here.sum(axis=1) > 0).all() and (here.sum() == 1).all() and np.isfinite(space).all()
    table = partition_table(pd.Series(2 * island + np.tile([0, 1], len(island) // 2), [f"c{i}" for i in range(len(island))]), space)
    assert (table["compactness"] > 0).all() and (table["separation"] > 0).all()
    alone = separation(pd.Series(np.where(island < 2, 2 * island + np.arange(len(island)) % 2, island + 2)), space)
    assert alone[:4].notna().all() and alone[4:].isna().all()  # whole islands lie at the origin of each other's components, and infinitely far apart


def test_a_planted_feature_gives_the_name(model):
    planted = model.mdata.copy()
    chosen = pd.Series(np.where(np.arange(300) < 40, "few", "many"), index=planted.obs_names)
    counts = planted["rna"].layers["counts"].tolil()
    counts[:, 7] = np.where(np.arange(300) < 40, 5, 0)[:, None]
    planted["rna"].layers["counts"] = counts.tocsr()
    features = specific_features(planted, chosen)
    best = features[(features["modality"] == "rna") & (features["group"] == "few")].iloc[0]
    assert best["feature"] == planted["rna"].var_names[7] and best["specificity"] == 1
    assert feature_names(features, chosen, ["rna", "atac"])["few"].startswith(best["feature"])


def test_usage_counts_every_cell_once(model, meta):
    usage = usage_table(model.mdata.obs["metacell"], model.mdata.obs["batch"])
    assert usage.to_numpy().sum() == 300 and usage.sum(axis=1).to_dict() == meta.obs["size"].to_dict()
    even = pd.DataFrame({"a": [5, 5], "b": [9, 0]})
    assert np.allclose(effective_groups(even)["effective_groups"], [2, 1])


def test_neighbouring_codes_and_connected_groups(model, meta):
    near = nearest_codes(model, 3)
    assert (near["code"] != near["neighbor"]).all() and (near.groupby("code")["distance"].diff().dropna() >= 0).all()
    assert set(near["code"]) == set(model.codes()["joint"])
    edges = group_graph(code_cells(model).z, model.mdata.obs["metacell"])
    assert set(edges["source"]) | set(edges["target"]) <= set(meta.obs_names) and (edges["source"] != edges["target"]).all()


def test_a_group_has_the_colour_that_its_label_has_elsewhere(model, meta):
    z, groups = code_cells(model).z, model.mdata.obs["metacell"]
    told = {label: f"#0000{i:02x}" for i, label in enumerate(meta.obs["label"].unique(), 1)}
    figure = plot_group_graph(z[:, :2], groups, group_graph(z, groups), meta.obs["label"], colours=told)
    drawn = [to_hex(colour) for colour in figure.axes[0].collections[-1].get_facecolors()]
    assert drawn == meta.obs["label"].reindex(sorted(meta.obs_names)).map(told).tolist()
    assert len(figure.axes[1].get_legend().get_texts()) == len(told)


def test_a_mosaic_has_metacells_and_neighbouring_codes(tmp_path):
    whole = simulate(n_cells=300, seed=3, n_genes=400, n_peaks=800)
    parts = {"rna": whole["rna"][:220].copy(), "atac": whole["atac"][80:].copy()}
    model = trained(parts, unpaired="keep")
    meta = metacells(model, labels_key="cell_type", n_metacells=6)
    assert meta.obs["size"].sum() == 300 and meta["rna"].obs["size"].sum() == meta["atac"].obs["size"].sum() == 220
    for name, adata in parts.items():
        assert meta[name].X.sum() == adata.X.sum()
    for source in ("joint", "rna", "atac"):
        assert set(nearest_codes(model, source=source)["code"]) == set(model.codes()[source].dropna())
    meta.write(tmp_path / "meta.h5mu")


def test_counts_on_disk_have_metacells_and_a_page(model, meta, tmp_path):
    plain = simulate(n_cells=300, seed=3, n_genes=400, n_peaks=800)
    plain.write(tmp_path / "cells.h5mu")
    backed = read_any(tmp_path / "cells.h5mu", backed=True)
    found = metacells(model, backed, labels_key="cell_type", target_size=20)
    assert found.obs["name"].tolist() == meta.obs["name"].tolist()
    assert all((found[name].X != meta[name].X).nnz == 0 for name in meta.mod)
    pages = [export_explorer(model.embed(cells), tmp_path / f"{i}.html", labels_key="cell_type").read_text() for i, cells in enumerate((backed, plain))]
    assert pages[0].split('"markers"')[1] == pages[1].split('"markers"')[1]


def test_a_single_code_has_no_neighbours():
    one = trained(simulate(n_cells=60, n_genes=200, n_peaks=300), n_codes=1)
    assert len(nearest_codes(one)) == 0 and metacells(one).n_obs == 1


def test_columns_of_the_modalities_are_those_of_the_cells(model, meta):
    cells = MuData({name: adata.copy() for name, adata in model.mdata.mod.items()})
    assert "batch" not in cells.obs
    found = metacells(model, cells, labels_key="cell_type", target_size=20)
    assert found.obs["purity"].equals(meta.obs["purity"]) and found.obsm["batch_shares"].equals(meta.obsm["batch_shares"])
    rna = cells["rna"].copy()
    assert metacells(model, rna, n_metacells=3).n_obs == rna.obs["metacell"].nunique()


def test_no_label_at_all_is_no_purity(model):
    cells = model.mdata.copy()
    cells.obs["unlabelled"] = np.nan
    found = metacells(model, cells, labels_key="unlabelled", n_metacells=5)
    assert found.obs["purity"].isna().all() and set(found.obs["label"]) == {"missing"}


def test_names_below_the_bars_of_groups_are_legible_and_say_where_they_are_cut():
    cells = [f"c{i}" for i in range(120)]
    groups = pd.Series([f"M{i % 60:03d}" for i in range(120)], index=cells)
    names = pd.Series({group: f"{group} / chr11-14485701-14486779" if i % 2 else group for i, group in enumerate(sorted(groups.unique()))})
    figure = plot_usage(groups, {"type": groups.str[:2]}, names)
    written = {text.get_text(): text for text in figure.axes[0].get_xticklabels()}
    assert len(written) == 60 and min(text.get_fontsize() for text in written.values()) >= 7
    assert {"M000", "M001 / chr11-14485701-1448"[:25] + "…"} <= set(written)
    figure.draw_without_rendering()
    boxes = sorted((text.get_window_extent() for text in written.values()), key=lambda box: box.x0)
    assert all((a.x0 + a.x1) / 2 + 7 * figure.dpi / 72 < (b.x0 + b.x1) / 2 + 1 for a, b in zip(boxes, boxes[1:]))  # a line of text each
