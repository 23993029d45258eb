"""Figures show what they were given, leave it as it was, and are written whole."""

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from cvqvae.figures import (
    best_rows, code_purity, palette, plot_code_usage, plot_history, plot_integration, plot_scores, plot_umaps, save_figure, style_scores,
    umap_coordinates,
)  # fmt: skip
from cvqvae.integration import CVQVAE
from cvqvae.simulation import simulate

TABLE = pd.DataFrame({"nmi": [0.61, 0.70, 0.9], "trajectory": [0.5, np.nan, 0.4], "foscttm": [0.48, 0.03, 0.01]}, index=["raw", "ours", "random"])


@pytest.fixture(autouse=True)
def nothing_left_open():
    yield
    assert plt.get_fignums() == []


@pytest.mark.parametrize("n_types", [1, 8, 41])
def test_every_point_and_every_type_is_drawn(n_types):
    coordinates = np.random.default_rng(0).normal(size=(300, 2))
    types = pd.Series([f"type {i % n_types}" for i in range(300)])
    before = types.copy()
    figure = plot_umaps({"a": coordinates, "b": coordinates}, {"type": types})
    assert [len(ax.collections[0].get_offsets()) for ax in figure.axes[:2]] == [300, 300]
    assert len(figure.axes[2].get_legend().get_texts()) == n_types
    assert len(set(palette(n_types))) == n_types
    assert types.equals(before)


def test_umap_is_repeatable():
    z = np.random.default_rng(0).normal(size=(80, 5))
    assert np.array_equal(umap_coordinates(z), umap_coordinates(z))


def test_best_is_bold_and_random_never_is():
    best = best_rows(TABLE)
    assert best["nmi"].tolist() == [False, True, False]
    assert best["foscttm"].tolist() == [False, True, False]
    assert best["trajectory"].tolist() == [True, False, False]
    drawn = {text.get_text(): text.get_fontweight() for text in plot_scores(TABLE).axes[0].texts}
    assert drawn["0.700"] == "bold" and drawn["0.900"] == "normal" and "–" in drawn
    assert style_scores(TABLE).to_html().count("font-weight: bold") == 1


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


def test_purity_of_codes():
    sizes, purity = code_purity(pd.Series([0, 0, 0, 5]), pd.Series(["a", "a", "b", "b"]))
    assert sizes.tolist() == [3, 1] and np.allclose(purity, [2 / 3, 1])
