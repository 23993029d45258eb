"""Figures show what they were given, leave it as it was, and are written whole."""

import io
import re
import subprocess
import sys
import warnings
from types import SimpleNamespace

import mudata
import numpy as np
import pandas as pd
import pytest
from IPython.core.pylabtools import print_figure
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex, to_rgb
from scipy.spatial.distance import cdist

from cvqvae.cells import DataError
from cvqvae.collapse import plot_losses, plot_units
from cvqvae.compiled import import_umap
from cvqvae.curves import code_purity, plot_code_usage, plot_history, usage_label
from cvqvae.figures import (
    MISSING_COLOUR, contrast, filled, group_colours, palette, plot_integration, plot_umaps, save_figure, sentence_figure, short_names, umap_coordinates,
)
from cvqvae.integration import CVQVAE
from cvqvae.score_figures import about_columns, absence_notes, best_rows, plot_scores, reasons, style_scores, without_repeats
from cvqvae.simulation import simulate
from cvqvae.tables import ORDER, about_table, benchmark_table

TABLE = pd.DataFrame({"nmi": [0.61, 0.70, 0.9], "trajectory": [0.5, np.nan, 0.4], "foscttm": [0.48, 0.03, 0.01]}, index=["raw", "ours", "random"])


@pytest.fixture(autouse=True)
def nothing_left_open():
    yield
    assert plt.get_fignums() == []


@pytest.mark.parametrize("n_types", [1, 8, 9, 41])
def test_every_point_and_every_type_is_drawn(n_types):
    coordinates = np.random.default_rng(0).normal(size=(300, 2))
    types = pd.Series([f"type {i % n_types}" for i in range(300)])
    before = types.copy()
    figure = plot_umaps({"a": coordinates, "b": coordinates}, {"type": types})
    assert [len(ax.collections[0].get_offsets()) for ax in figure.axes[:2]] == [300, 300]
    assert len(figure.axes[2].get_legend().get_texts()) == n_types
    assert len(set(palette(n_types))) == n_types
    assert types.equals(before)


def test_a_long_legend_moves_no_panel():
    coordinates = np.random.default_rng(0).normal(size=(300, 2))
    groups = {"type": pd.Series([f"a long name of type {i % 41}" for i in range(300)]), "batch": pd.Series([f"batch {i % 2}" for i in range(300)])}
    figure = plot_umaps({name: coordinates for name in "abc"}, groups)
    figure.savefig(io.BytesIO())
    row = [ax.get_position().bounds for ax in figure.axes[:3]]
    assert len({round(width, 3) for _, _, width, _ in row}) == 1
    assert round(row[1][0] - row[0][0], 3) == round(row[2][0] - row[1][0], 3)


def test_umap_is_repeatable():
    z = np.random.default_rng(0).normal(size=(80, 5))
    assert np.array_equal(umap_coordinates(z), umap_coordinates(z))


def test_clouds_that_lie_apart_are_laid_out_without_a_word(recwarn):
    "How umap starts them is nothing that a biologist could change."
    z = 1e3 * np.eye(8)[np.repeat(np.arange(8), 30)] + np.random.default_rng(0).normal(size=(240, 8))
    assert np.isfinite(umap_coordinates(z)).all()
    assert not [one for one in recwarn if "fully connected" in str(one.message)]


def test_a_umap_has_exact_neighbours_without_a_warning_and_searches_among_many_rows(monkeypatch):
    umap = import_umap()
    z = np.random.default_rng(0).normal(size=(120, 5)).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isfinite(umap_coordinates(z)).all()
    given = []
    monkeypatch.setattr(umap, "UMAP", lambda precomputed_knn, **_: given.append(precomputed_knn) or SimpleNamespace(fit_transform=lambda rows: rows))
    umap_coordinates(z)
    umap_coordinates(np.zeros((20_001, 2)))
    (near, distances), none = given
    assert (near[:, 0] == np.arange(120)).all() and near.shape == (120, 15) and not any(none)
    np.testing.assert_allclose(distances, np.sort(cdist(z, z), axis=1)[:, :15], atol=1e-3)


def test_best_is_bold_and_random_never_is():
    best = best_rows(TABLE)
    assert best["nmi"].tolist() == [False, True, False]
    assert best["foscttm"].tolist() == [False, True, False]
    assert best["trajectory"].tolist() == [True, False, False]
    drawn = {text.get_text(): text.get_fontweight() for text in plot_scores(TABLE).axes[0].texts}
    assert drawn["0.700"] == "bold" and drawn["0.900"] == "normal" and "–" in drawn
    html = style_scores(TABLE).to_html()
    bold = html.split("font-weight: bold")[0].rsplit("}", 1)[-1]  # the selectors before the one bold rule
    assert html.count("font-weight: bold") == 1 and all(f"row{i}_col{j}" in bold for i, j in ((1, 0), (0, 1), (1, 2)))
    assert bold.count("#T_") == 3


def test_why_a_number_is_missing_stands_below_the_table():
    columns = ["method", "view", "metric", "group", "value", "reason"]
    rows = [("raw", "stacked", "trajectory", "biology", np.nan, "no pseudotime"), ("ours", "stacked", "trajectory", "biology", np.nan, "no pseudotime"),
            ("ours", "joint", "nmi", "biology", np.nan, "no labels"), ("ours", "joint", "trajectory", "biology", np.nan, "no labels"),
            ("raw", "joint", "nmi", "biology", 0.5, "")]  # fmt: skip
    notes = absence_notes(pd.DataFrame(rows, columns=columns), "stacked")
    assert notes == ["TC: no pseudotime"]
    assert absence_notes(pd.DataFrame(rows, columns=columns), "joint") == ["NMI, TC (ours): no labels"]
    assert "no pseudotime" in plot_scores(TABLE, notes=notes).axes[0].get_xlabel()


@pytest.mark.parametrize("columns", [["foscttm"], ["foscttm", "nmi"], list(TABLE)])
def test_long_notes_stay_below_a_narrow_table(columns, tmp_path):
    note = "none of NMI, cell-type ASW, CC, TC, batch ASW, graph conn. could be computed; " * 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_figure(plot_scores(TABLE[columns], "stacked", [note] * 4), tmp_path / "scores")
    assert plot_scores(TABLE, notes=[note]).axes[0].get_xlabel().startswith("not measurable:")
    height, width = plt.imread(tmp_path / "scores.png").shape[:2]
    assert width < 150 * 6.5 and height < 150 * 8


def test_reasons_are_told_in_the_names_of_the_columns():
    row = ("ours", "joint", "op_mean", "without nmi, label_asw; none of batch_asw could be computed")
    rows = pd.DataFrame([row], columns=["method", "view", "metric", "reason"])
    assert reasons(rows).iloc[0].tolist() == ["ours", "joint", "mean of six", "without NMI, cell-type ASW; none of batch ASW could be computed"]


def test_a_repeated_score_is_left_out_and_every_column_is_explained():
    table = pd.DataFrame({"score": [0.5, np.nan], "score_shared": [0.5, np.nan]}, index=["ours", "raw"])
    assert list(without_repeats(table)) == ["score"] and list(without_repeats(table + [0, 0.1])) == list(table)
    assert about_columns(TABLE).count("\n- ") == TABLE.shape[1] - 1 and "**FOSCTTM** (0 to 1, less is better)" in about_columns(TABLE)


def test_every_column_of_a_comparison_says_what_it_means_and_where_it_is_best():
    rows = [("ours", 0, "joint", metric, "any", 0.5, "") for metric in ORDER] + [("ours", 0, "run", cost, "cost", 1.0, "") for cost in ("seconds", "peak_gib")]
    scores = pd.DataFrame(rows, columns=["method", "seed", "view", "metric", "group", "value", "reason"])
    columns = benchmark_table(scores, "joint").columns.drop("note")
    lines = about_table(scores, "joint").splitlines()
    assert [line[4 : line.index("**", 4)] for line in lines] == list(columns)
    assert all("more is better" in line or "less is better" in line for line in lines)


def test_places_of_a_picture_are_kept_where_asked():
    mdata = simulate(n_cells=60, n_genes=300, n_peaks=300, seed=0)
    for name, adata in mdata.mod.items():
        adata.obsm["X_pca" if name == "rna" else "X_lsi"] = adata.obsm["X_cvqvae"] = np.random.default_rng(0).normal(size=(60, 3))
    plot_integration(mdata, max_cells=40)
    assert "X_umap" not in mdata["rna"].obsm
    drawn = plot_integration(mdata, max_cells=40, keep=True).axes[1].collections[0].get_offsets()
    places = np.vstack([adata.obsm["X_umap"] for adata in mdata.mod.values()])
    assert places.dtype == np.float32 and np.isfinite(places).all(1).sum() == len(drawn) == 80
    assert np.allclose(np.sort(places[np.isfinite(places).all(1)], axis=0), np.sort(np.asarray(drawn), axis=0))


def test_a_map_that_came_with_the_cells_is_kept_and_our_own_makes_way(tmp_path, recwarn):
    mdata = simulate(n_cells=60, n_genes=300, n_peaks=300, seed=0)
    for name, adata in mdata.mod.items():
        adata.obsm["X_pca" if name == "rna" else "X_lsi"] = adata.obsm["X_cvqvae"] = np.random.default_rng(0).normal(size=(60, 3))
    mdata["rna"].obsm["X_umap"] = own = np.random.default_rng(1).normal(size=(60, 2))
    plot_integration(mdata)
    assert np.array_equal(mdata["rna"].obsm["X_umap"], own) and not [w for w in recwarn if "set aside" in str(w.message)]
    with pytest.warns(UserWarning, match=r"obsm\['X_umap'\] of 'rna' \(kept as X_umap_given\) came with the cells and is set aside"):
        plot_integration(mdata, max_cells=40, keep=True)
    assert np.array_equal(mdata["rna"].obsm["X_umap_given"], own) and "X_umap_given" not in mdata["atac"].obsm
    mdata.write(tmp_path / "integrated.h5mu")
    again = mudata.read_h5mu(tmp_path / "integrated.h5mu")
    recwarn.clear()
    plot_integration(again, keep=True, seed=1)
    assert not [w for w in recwarn if "set aside" in str(w.message)]
    assert np.array_equal(again["rna"].obsm["X_umap_given"], own) and np.isfinite(again["rna"].obsm["X_umap"]).all()


def test_longer_bars_are_better_in_every_column():
    bars = {round(bar.get_x()): [] for bar in plot_scores(TABLE).axes[0].patches}
    for bar in plot_scores(TABLE).axes[0].patches:
        bars[round(bar.get_x())].append(bar.get_width())
    assert bars[0][1] > bars[0][0] and bars[2][1] > bars[2][0]


def test_cells_without_a_label_are_grey_and_named():
    types = pd.Series(["T", None, "B", np.nan])
    assert list(group_colours(types).items())[-1] == ("missing", MISSING_COLOUR)
    figure = plot_umaps({"a": np.zeros((4, 2))}, {"type": types})
    colours = figure.axes[0].collections[0].get_facecolors()
    assert np.allclose(colours[:2, :3], 0xDD / 255) and not np.allclose(colours[2:, :3], 0xDD / 255)
    assert [text.get_text() for text in figure.axes[1].get_legend().get_texts()] == ["B", "T", "missing"]


def lab(colour):
    "CIE L*a*b* of a colour."
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ linear / [0.9505, 1, 1.089]
    root = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * root[1] - 16, 500 * (root[0] - root[1]), 200 * (root[1] - root[2])])


def test_every_group_is_seen_on_white_and_is_not_the_next_one():
    assert contrast("#ffffff") == pytest.approx(1) and contrast("#000000") == pytest.approx(21)
    for n in range(2, 103):
        colours = palette(n)
        assert len(set(colours)) == n and min(map(contrast, colours)) >= 1.6, n
        places = np.array([lab(colour) for colour in [*colours, MISSING_COLOUR]])
        apart = cdist(places, places)[np.triu_indices(n + 1, 1)].min()
        assert apart > (9 if n <= 60 else 4), (n, apart)
    assert len(palette(300)) == 300


def test_colours_that_scanpy_left_are_kept():
    mdata = simulate(n_cells=60, n_genes=300, n_peaks=300, seed=0)
    types = list(mdata["rna"].obs["cell_type"].cat.categories)
    for adata in mdata.mod.values():
        adata.obsm["X_pca" if adata is mdata["rna"] else "X_lsi"] = adata.obsm["X_cvqvae"] = np.random.default_rng(0).normal(size=(60, 3))
    own = {name: f"#0000{i:02x}" for i, name in enumerate(types, 10)}
    for colours, kept in ((list(own.values()), True), (["red"], False), (["no colour"] * len(types), False)):
        mdata["rna"].uns["cell_type_colors"] = np.array(colours)
        handles = plot_integration(mdata, "cell_type").axes[-2].get_legend().legend_handles
        drawn = {handle.get_label(): to_hex(handle.get_color()) for handle in handles}
        assert (drawn == {name: own[name] for name in drawn}) is kept


def test_numbers_of_clusters_stay_whole_where_some_cells_have_none():
    clusters = pd.Series([10.0, 2.0, np.nan, 0.0])
    for column in (clusters, clusters.astype("category"), clusters.astype(object)):
        assert list(group_colours(filled(column))) == ["0", "2", "10", "missing"]
        figure = plot_umaps({"a": np.zeros((4, 2))}, {"cluster": column})
        assert [text.get_text() for text in figure.axes[1].get_legend().get_texts()] == ["0", "2", "10", "missing"]
    assert filled(pd.Series([0.5, np.nan])).tolist()[0] == 0.5


@pytest.mark.parametrize("key", ["labels_key", "batch_key"])
def test_a_measurement_is_no_column_of_groups(key):
    mdata = simulate(n_cells=60, n_genes=300, n_peaks=300)
    with pytest.raises(DataError, match="obs.'pseudotime'. has 60 (cell types|batches) for 60 cells: is it a barcode or a measurement"):
        plot_integration(mdata, **{key: "pseudotime"})


def test_a_failed_save_leaves_nothing(tmp_path, monkeypatch):
    figure = plot_scores(TABLE)

    def broken(path, **_):
        path.write_text("half")
        raise OSError("disk full")

    monkeypatch.setattr(figure, "savefig", broken)
    with pytest.raises(OSError, match="disk full"):
        save_figure(figure, tmp_path / "scores")
    assert list(tmp_path.iterdir()) == []


def test_only_picture_suffixes_are_dropped(tmp_path):
    names = [path.name for name in ("umap.v2", "umap.png") for path in save_figure(plot_scores(TABLE), tmp_path / name)]
    assert names == ["umap.v2.png", "umap.v2.pdf", "umap.png", "umap.pdf"]


def test_dollar_signs_in_names_are_no_formulas(tmp_path):
    names = ["$a$ and $b$", "$\\frac{$"]
    groups = {"cell type": pd.Series(names * 30)}
    figures = [plot_umaps({names[1]: np.zeros((60, 2))}, groups), plot_scores(TABLE.set_axis([*names, "random"]), names[1], names)]
    for figure in figures:
        save_figure(figure, tmp_path / "names")
    legend = figures[0].subfigs[1].axes[0].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == names[::-1] and not any(text.get_parse_math() for text in legend.get_texts())


def test_numbers_of_logarithmic_axes_need_no_formulas(tmp_path):
    codes = pd.DataFrame({"$\\frac{$": np.repeat(range(8), [1, 2, 3, 5, 8, 40, 41, 400])})
    figure = plot_code_usage(codes, pd.Series(["a"] * 500))
    save_figure(figure, tmp_path / "codes")
    ticks = [text.get_text() for ax, axis in zip(figure.axes, ("yaxis", "xaxis")) for text in getattr(ax, axis).get_ticklabels()]
    assert {"10", "100"} <= set(ticks) and "$" not in "".join(ticks)


def test_a_whole_integration_in_pictures(tmp_path):
    mdata = simulate(n_cells=120, seed=0)
    model = CVQVAE(mdata, preset="paper", batch_key="batch", epochs=3, hidden=(16,), n_codes=16, n_components=8, device="cpu").fit(progress=False)
    model.embed()
    figure = plot_integration(mdata, "cell_type", "batch")
    assert len(figure.axes[0].collections[0].get_offsets()) == 240
    curves = plot_history(model.history)
    assert np.allclose(curves.axes[0].lines[0].get_ydata(), model.history["train_loss"])
    usage = plot_code_usage(model.codes(), mdata.obs["cell_type"])
    assert sum(usage.axes[0].lines[0].get_ydata()) == 120
    assert all(path.stat().st_size > 1000 for path in save_figure(curves, tmp_path / "curves"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.pdf", "curves.png"]


def history_of(n_modalities, joint, split="train_"):
    "What `CVQVAE.history` holds of a training: terms that fall, codes in use that rise."
    sources = [str(i + 1) for i in range(n_modalities)] + ["joint"] * joint
    epochs, table = np.arange(1, 31), {}
    for term in ("loss", "alignment", *(f"{term}_{source}" for term in ("reconstruction", "commitment") for source in sources)):
        table[f"train_{term}"] = 1 / epochs
        table |= {f"{split}{term}": 2 / epochs}
    for source in sources:
        table |= {f"codes_used_{source}": 10.0 * epochs, f"perplexity_{source}": 5.0 * epochs}
    return pd.DataFrame({"epoch": epochs, **table})


def legends_over_panels(figure):
    "Legends that share room with the inside of a panel, and those that reach out of the figure."
    figure.draw_without_rendering()
    legends = [*figure.legends, *(ax.get_legend() for ax in figure.axes if ax.get_legend())]
    boxes = [legend.get_window_extent().padded(-1) for legend in legends]
    return [box for box in boxes if any(box.overlaps(ax.bbox) for ax in figure.axes) or not figure.bbox.contains(*box.p0) or not figure.bbox.contains(*box.p1)]


@pytest.mark.parametrize("split", ["train_", "val_"])
@pytest.mark.parametrize("joint", [False, True], ids=["paper", "default"])
@pytest.mark.parametrize("names", [["rna", "atac"], ["rna", "atac", "protein"]])
def test_no_legend_lies_over_a_line(names, joint, split):
    history = history_of(len(names), joint, split)
    figure = plot_history(history, names)
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["whole model", *names, *["joint"] * joint, *["validation"] * (split == "val_")]
    assert legends_over_panels(figure) == [] and legends_over_panels(plot_losses({"a": history, "b": history})) == []
    codes = pd.DataFrame({name: np.arange(60) % (5 + i) for i, name in enumerate([*names, *["joint"] * joint])})
    assert legends_over_panels(plot_code_usage(codes, pd.Series(["a", "b"] * 30), 2048)) == []


def test_a_colour_stays_with_its_modality():
    figure = plot_history(history_of(2, True))
    for ax in figure.axes[1:]:
        drawn = [line.get_color() for line in ax.lines]
        assert list(dict.fromkeys(drawn)) in (["#555555"], [line.get_color() for line in figure.legends[0].get_lines()][1:])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["whole model", "modality 1", "modality 2", "joint"]


def test_labels_that_reach_out_of_a_figure_are_not_cut(tmp_path):
    figure = plt.figure(figsize=(1, 1))
    figure.text(0.5, 0.5, "a label that is far too long for its figure")
    plt.close(figure)
    assert plt.imread(save_figure(figure, tmp_path / "long")[0]).shape[1] > 300


def test_purity_of_codes():
    assert usage_label("rna", np.array([3, 3, 3]), 8) == "rna: 3 of 8 codes, perplexity 3"
    sizes, purity = code_purity(pd.Series([0, 0, 0, 5, 5]), pd.Series(["a", "a", "b", "b", None]))
    assert sizes.tolist() == [3, 1] and np.allclose(purity, [2 / 3, 1])


def test_a_sentence_is_a_picture_in_a_notebook(recwarn):
    assert print_figure(sentence_figure("No feature is specific to a group.")) is not None  # IPython shows nothing of a figure without axes
    assert not recwarn.list


def test_a_figure_without_a_layout_has_none_when_it_was_saved(tmp_path, recwarn):
    figure = sentence_figure("No feature is specific to a group.")
    for name in ("once", "again"):
        save_figure(figure, tmp_path / name)
    assert figure.get_layout_engine() is None and not recwarn.list


def test_names_that_begin_alike_are_cut_where_they_differ():
    peak = "ELANE / chr3-4082297-4082760"
    assert short_names([peak, "KLF1"], 26) == [peak[:25] + "…", "KLF1"]
    first, second = short_names([peak, f"{peak} (2)"], 26)
    assert first != second and second.endswith("(2)") and max(map(len, (first, second))) <= 26
    assert short_names([peak, peak, "KLF1"], 26)[0] == short_names([peak, peak, "KLF1"], 26)[1] != peak


def test_a_line_under_another_shows_at_its_edges():
    same = pd.DataFrame({"rna": [0, 0, 1, 2], "joint": [0, 0, 1, 2]})
    under, above = plot_code_usage(same).axes[0].lines
    assert under.get_linewidth() > above.get_linewidth()


TALK = {"axes.linewidth": 1.875, "xtick.major.size": 9, "ytick.minor.size": 6, "patch.linewidth": 1.5, "font.size": 18, "axes.facecolor": "black"}
UNITS = pd.DataFrame({"variant": "cvae", "source": "rna", "unit": range(8), "variance": np.geomspace(1e-4, 1, 8), "kl": np.arange(8.0)})


@pytest.mark.parametrize("draw", [lambda: plot_losses({"a": history_of(2, False)}), lambda: plot_units(UNITS), lambda: plot_scores(TABLE)])
def test_figures_look_alike_whatever_was_set_before(draw, tmp_path):
    plain = plt.imread(save_figure(draw(), tmp_path / "plain")[0])
    with plt.rc_context(TALK):  # as seaborn's `set_context("talk")`, which scib calls when it is imported
        drawn = plt.imread(save_figure(draw(), tmp_path / "talk")[0])
    assert np.array_equal(plain, drawn)


def test_scoring_leaves_the_look_of_figures_alone():
    program = """
import matplotlib, pandas, sys
from cvqvae.ground_truth import MetricAbsent, cycle_genes
before = dict(matplotlib.rcParams)
try:
    cycle_genes(pandas.Index(["PCNA"]), "human")
except MetricAbsent:
    assert "scib" in sys.modules
    print({name: value for name, value in matplotlib.rcParams.items() if value != before[name]})
"""
    result = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "{}"


def test_a_figure_for_print_has_fine_points_and_text_that_can_be_edited(tmp_path):
    coordinates = np.random.default_rng(0).uniform(size=(500, 2))
    figure = plot_umaps({"a": coordinates}, {"type": pd.Series(["x"] * 500)})
    page = save_figure(figure, tmp_path / "map")[1].read_bytes()
    assert b"/Type3" not in page and b"/FontFile2" in page  # which is TrueType
    inches = np.ptp(figure.axes[0].transData.transform(coordinates)[:, 0]) / figure.dpi
    assert max(int(width) for width in re.findall(rb"/Width (\d+)", page)) > 295 * inches


def test_a_map_says_that_it_is_a_umap():
    figure = plot_umaps({"a": np.zeros((9, 2))}, {"type": pd.Series(["x"] * 9)})
    assert (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) == ("UMAP 1", "UMAP 2")
