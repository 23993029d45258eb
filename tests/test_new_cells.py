"""Cells that a model has not seen, or not seen whole: mosaics, mapping, labels, translation, three modalities, files for others."""

import gzip
import tracemalloc
import re
import warnings
from dataclasses import replace
from functools import partial
from itertools import combinations, cycle, repeat

import matplotlib.pyplot as plt
import mudata
import nbformat
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp
import torch
from anndata import AnnData, concat, read_h5ad, read_zarr
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from mudata import MuData
from scipy.io import mmwrite

from cvqvae import translation
from cvqvae.apply import map_files, read_for, translate_files
from cvqvae.cells import KINDS, DataError
from cvqvae.command import main
from cvqvae.components import RNAComponents
from cvqvae.datasets import read_any
from cvqvae.exchange import dense_proteins, for_collection, to_anndata, to_open_problems
from cvqvae.ground_truth import Truth
from cvqvae.integration import CVQVAE
from cvqvae.labels import LabelTransfer, vote, worth_of_votes
from cvqvae.metacells import code_groups
from cvqvae.metrics import evaluate, score_embedding, score_table
from cvqvae.mosaic import batch_labels, groups_of, join_modalities, merged_obs, presence
from cvqvae.parameters import Parameters, load_cells
from cvqvae.simulation import simulate
from cvqvae.translation_scores import row_auroc, row_correlations, translation_scores

SMALL = dict(hidden=(32,), n_latent=8, n_codes=32, n_components=12, batch_size=64, epochs=6, device="cpu")


def shuffled(adata, seed=0):
    "The same cells, features in another order and beside strangers without a count."
    order = np.random.default_rng(seed).permutation(adata.n_vars)
    moved = adata[:, order].copy()
    counts = np.column_stack([moved.X.toarray(), np.zeros((adata.n_obs, 3), np.float32)])
    var = pd.DataFrame({"feature_types": moved.var["feature_types"].iloc[0]}, index=[*moved.var_names, "x1", "x2", "x3"])
    return AnnData(counts, obs=moved.obs.copy(), var=var)


@pytest.fixture(scope="module")
def cells():
    return simulate(n_cells=300, seed=0)


@pytest.fixture(scope="module")
def fitted(cells):
    return CVQVAE(cells[:200].copy(), batch_key="batch", **SMALL).fit(progress=False)


@pytest.fixture(scope="module")
def mosaic(cells):
    parts = {"rna": cells["rna"][:220].copy(), "atac": cells["atac"][80:].copy()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pieces = join_modalities(parts)
    return CVQVAE(pieces, batch_key="batch", unpaired="keep", **SMALL).fit(progress=False), pieces


@pytest.fixture(scope="module")
def published(cells):
    return CVQVAE(cells[:200].copy(), "paper", batch_key="batch", **SMALL).fit(progress=False)


# mapping -----------------------------------------------------------------------------------------------------------------------------


def unseen_batches(call, recwarn):
    "What a call says of batches that training has not seen."
    recwarn.clear()
    call()
    return [str(w.message) for w in recwarn if "training has not seen" in str(w.message)]


def test_batches_that_nothing_lines_up_are_named_once(published, fitted, cells, tmp_path, recwarn):
    new, known = cells[200:].copy(), cells[200:].copy()
    new.obs["batch"] = ["d10", "d2"] * 50
    (told,) = unseen_batches(lambda: published.embed(new), recwarn)
    assert "not seen 'd2', 'd10' of obs['batch']" in told and "preset 'default'" in told
    assert len(unseen_batches(lambda: published.translate(alone_in(new, "d2"), "atac"), recwarn)) == 1
    new.obs["batch"] = [f"d{i % 10}" for i in range(100)]
    assert "'d4' and 5 more of obs" in unseen_batches(lambda: published.embed(new), recwarn)[0]
    assert not unseen_batches(lambda: fitted.embed(new), recwarn)  # lined up
    assert not unseen_batches(lambda: published.embed(known), recwarn) and not unseen_batches(published.embed, recwarn)
    published.save(tmp_path / "model")
    assert len(unseen_batches(lambda: CVQVAE.load(tmp_path / "model", device="cpu").embed(new), recwarn)) == 1


def alone_in(mdata, batch):
    rna = mdata["rna"].copy()
    rna.obs["batch"] = batch
    return rna


def test_a_batch_is_the_same_however_its_number_is_held(cells):
    held = {"category": pd.Categorical([1.0, 2.0] * 30), "object": np.array([1.0, 2.0] * 30, object), "float": [1.0, 2.0] * 30, "text": ["1", "2"] * 30}
    some = cells[:60].copy()
    for values in held.values():
        some.obs["lane"] = values
        assert list(batch_labels(some, "lane").unique()) == ["1", "2"]


def test_cells_of_which_nothing_is_read_have_no_code(fitted, cells):
    others = simulate(n_cells=300, kind="protein", seed=0)["protein"]
    new = MuData({"rna": cells["rna"][:50].copy(), "protein": others[:80].copy()})
    codes, embedded = fitted.codes(new), fitted.embed(new)
    assert codes["joint"].isna().tolist() == embedded.obs["cvqvae_code"].isna().tolist() == [False] * 50 + [True] * 30
    with pytest.raises(DataError, match="30 of 80 cells have nothing that the model reads"):
        code_groups(fitted, new)


def test_what_becomes_of_a_batch_is_told_as_the_preset_does_it(published, fitted, cells):
    new = AnnData(cells["rna"].X, var=cells["rna"].var.copy())
    for model, fate in ((fitted, "lined up with the training cells$"), (published, "read as it is, because this model cannot line it up")):
        with pytest.raises(DataError, match=f"no such column: set it.*that training has not seen is {fate}"):
            model.embed(new.copy())


def test_mapping_does_not_move_the_reference(fitted, cells):
    reference = cells[:200].copy()
    before = fitted.latents(reference)["joint"]
    new = cells[200:].copy()
    new.obs["batch"] = "another"
    fitted.embed(new)
    after = fitted.latents(reference)["joint"]
    assert torch.equal(before.z, after.z) and torch.equal(before.codes, after.codes)
    assert np.isfinite(new.obsm["X_cvqvae"]).all()


def test_features_are_matched_by_name(fitted, cells):
    new = cells[200:]["rna"].copy()
    expected = fitted.latents(new)["rna"].z
    assert torch.allclose(fitted.latents(shuffled(new))["rna"].z, expected, atol=1e-4)
    report = fitted.reader.match(MuData({"rna": shuffled(new)})).loc["rna"]
    assert report["missing"] == 0 and report["extra"] == 3 + new.n_vars - report["model"]


def test_features_that_are_called_otherwise_are_counted_as_they_are_found(fitted, cells):
    new = cells[200:].copy()
    expected = fitted.reader.match(new)
    new["atac"].var_names = new["atac"].var_names.str.replace("-", ":", n=1)
    new["rna"].var["gene_ids"] = new["rna"].var_names
    new["rna"].var_names = [f"ENSG{i:011d}" for i in range(new["rna"].n_vars)]
    pd.testing.assert_frame_equal(fitted.reader.match(new), expected)
    assert (expected["found"] == expected["model"]).all()


def _with_ids(cells, versions, column=None):
    found = cells["rna"].copy()
    ids = [f"ENSG{i:011d}{version}" for i, version in zip(range(found.n_vars), versions)]
    if column:
        found.var[column] = ids
    else:
        found.var_names = ids
    return found


@pytest.mark.parametrize(
    "versions, column",
    [(repeat(""), None), (repeat(""), "gene_ids"), (cycle([".7", ".7", ".8"]), None), (repeat(".12"), "gene_id")],
    ids=["without", "without, in a column", "a third of them another", "another, in a column"],
)
def test_genes_are_found_whatever_the_version_of_their_id(cells, versions, column, recwarn):
    known = _with_ids(cells, repeat(".7"))
    components = RNAComponents(n_components=5).fit(known)
    recwarn.clear()
    np.testing.assert_array_equal(components.transform(_with_ids(cells, versions, column)), components.transform(known))
    assert not [told for told in recwarn if "missing" in str(told.message)]


def test_missing_features_are_told_and_too_many_refused(fitted, cells):
    new = cells[200:]["rna"]
    names = fitted.transforms["rna"].feature_names
    few = new[:, ~new.var_names.isin(names[:5])].copy()
    with pytest.warns(UserWarning, match="5 of .* features are missing"):
        fitted.embed(few)
    with pytest.warns(UserWarning, match="^1 of .* features is missing here and counts as"):
        fitted.embed(new[:, new.var_names != names[0]].copy())
    none = new.copy()
    none.var_names = [f"ENSG{i:011d}" for i in range(none.n_vars)]
    with pytest.raises(DataError, match="only 0 of .* same assay and genome"):
        fitted.embed(none)


@pytest.mark.parametrize("n_cells", [20, 60, 200])
def test_agreement_does_not_enlarge_cells_that_it_has_not_seen(cells, n_cells):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = CVQVAE(cells[:n_cells].copy(), epochs=10, device="cpu").fit(progress=False)  # 64 dimensions
    ((_, new),) = model.reader.groups(cells[200:])
    with torch.no_grad():
        plain, agreed = model.module.encode_all(new.inputs), model.module.embed_all(new.inputs)
    assert all(0.5 < float(agreed[i].z.std(0).mean() / plain[i].z.std(0).mean()) < 1.1 for i in (0, 1))


# mosaics -----------------------------------------------------------------------------------------------------------------------------


def test_every_cell_of_a_mosaic_is_embedded(mosaic, monkeypatch):
    model, pieces = mosaic
    model.embed()
    assert pieces.obsm["X_cvqvae"].shape == (300, 8) and np.isfinite(pieces.obsm["X_cvqvae"]).all()
    assert pieces["rna"].n_obs == 220 and pieces["atac"].n_obs == 220
    alone = presence(pieces)[:, 1] < 0
    rows = pieces["rna"].obs_names.get_indexer(pieces.obs_names[alone])
    monkeypatch.setattr(model.module, "config", replace(model.config, component_scale=0.0))  # moves all rows alike
    found = model.latents()
    agreed = model.module._agreed(found["joint"].z[torch.from_numpy(alone)], 0).numpy()
    assert np.allclose(agreed, found["rna"].z.numpy()[rows], atol=1e-6)  # nothing else is known of them
    codes = model.codes()
    assert codes["atac"].isna().sum() == 80 and codes["rna"].notna().sum() == 220 and codes["joint"].notna().all()


def test_the_order_of_a_mosaic_does_not_matter(mosaic):
    model, pieces = mosaic
    z = pd.DataFrame(model.latents(pieces)["joint"].z.numpy(), pieces.obs_names)
    order = np.random.default_rng(0).permutation(300)
    other = pieces[order].copy()
    again = pd.DataFrame(model.latents(other)["joint"].z.numpy(), other.obs_names)
    np.testing.assert_allclose(again.loc[z.index], z, atol=1e-5)


def test_a_mosaic_of_whole_cells_is_the_paired_model(cells):
    whole = join_modalities({name: adata.copy() for name, adata in cells.mod.items()})
    kept = CVQVAE(whole, batch_key="batch", unpaired="keep", **SMALL).fit(progress=False)
    paired = CVQVAE(cells.copy(), batch_key="batch", **SMALL).fit(progress=False)
    assert torch.equal(kept.latents()["joint"].z, paired.latents()["joint"].z)


def test_a_mosaic_is_handed_on_as_the_error_says(mosaic):
    model, pieces = mosaic
    mdata = model.embed(pieces.copy())
    with pytest.raises(DataError, match="there is no modality 'protein'; the modalities are rna, atac"):
        to_anndata(mdata, "protein")
    with pytest.raises(DataError, match="'rna' lacks some of the cells") as refused:
        to_anndata(mdata, umap=False)
    line = re.search(r"to_anndata\((mdata.*)\)\. The", str(refused.value))[1]
    shown = to_anndata(eval(line, {"mdata": mdata}), umap=False)
    assert shown.obs_names.equals(mdata["rna"].obs_names)
    assert np.array_equal(shown.obsm["X_cvqvae"], mdata.obsm["X_cvqvae"][mdata.obs_names.get_indexer(shown.obs_names)])


def test_cells_without_a_partner_take_part_in_the_training(mosaic, cells):
    model, pieces = mosaic
    complete = pieces[(presence(pieces) >= 0).all(1)].copy()
    alone = CVQVAE(complete, batch_key="batch", **SMALL).fit(progress=False)
    cell = torch.ones(1, model.config.n_inputs[1])
    assert not torch.equal(alone.module.encoders[1](cell), model.module.encoders[1](cell))


@pytest.mark.parametrize("preset", ["default", "paper"])
def test_a_batch_without_a_measurement_is_predicted_as_one_in_the_middle(preset):
    cells = simulate(n_cells=240, n_batches=3, n_genes=300, n_peaks=600, seed=0)
    batch = cells.obs["batch"].astype(str).to_numpy()
    both, first, second = np.unique(batch)
    parts = {"rna": cells["rna"][batch != second].copy(), "atac": cells["atac"][batch != first].copy()}
    model = CVQVAE(parts, preset, batch_key="batch", unpaired="keep", **SMALL | {"epochs": 2}).fit(progress=False)
    atac = model.modalities.index("atac")
    columns = dict(zip(model.reader.batches, model.module.decoders[atac].layers[0][0].weight[:, 8:].detach().T))
    taught = [both, second] if preset == "default" else [both]  # which decodes a modality from itself, too
    assert torch.allclose(columns[first], torch.stack([columns[name] for name in taught]).mean(0))
    assert not torch.equal(columns[first], columns[second]) or preset == "paper"
    covariates = [torch.tensor([[name in names for name in model.reader.batches]] * 5) / len(names) for names in ([first], taught)]
    e = torch.randn(5, 8)
    assert torch.allclose(*(model.module.decode(e, atac, covariate) for covariate in covariates), atol=1e-5)


def test_wrong_pairs_are_told_before_the_training(cells, recwarn):
    warnings.simplefilter("always")
    CVQVAE(cells.copy(), batch_key="batch", **SMALL | dict(epochs=1)).fit(progress=False)
    assert not [w for w in recwarn if "agree no better" in str(w.message)]
    moved = cells["atac"].copy()
    moved.obs_names = np.random.default_rng(0).permutation(moved.obs_names)
    wrong = CVQVAE([cells["rna"].copy(), moved[cells.obs_names].copy()], **SMALL | dict(epochs=1))
    with pytest.warns(UserWarning, match="'rna' and 'atac' of a cell agree no better"):
        wrong.fit(progress=False)


def few(cells, n=60, proteins=8):
    "A training of so many cells and so many proteins."
    panel = cells["protein"][:n, :proteins].copy()
    return CVQVAE([cells["rna"][:n].copy(), panel], **SMALL | dict(epochs=1)).fit(progress=False)


def test_very_few_cells_or_features_are_told_before_the_training(recwarn):
    cells = simulate(n_cells=60, kind="protein", n_genes=300, seed=0)
    few(cells)
    assert not [w for w in recwarn if "by heart" in str(w.message) or "features:" in str(w.message)]
    with pytest.warns(UserWarning, match="^5 cells are learned by heart.*hundreds"):
        few(cells, n=5)
    with pytest.warns(UserWarning, match="^'protein' has 3 features: cells that differ in others"):
        few(cells, proteins=3)


def test_too_few_pairs_are_refused(cells):
    apart = {"rna": cells["rna"][:100].copy(), "atac": cells["atac"][99:].copy()}
    with pytest.raises(DataError, match="1 cell has two modalities"):
        join_modalities(apart)


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), min_size=1, max_size=40))
@examples(max_examples=50, deadline=None)
def test_groups_hold_every_measured_cell_once(measured):
    rows = np.where(np.array(measured), np.arange(len(measured))[:, None], -1)
    groups = groups_of(rows)
    assert sorted(np.concatenate([[], *groups]).astype(int)) == [i for i, m in enumerate(measured) if any(m)]
    assert all(len({tuple(rows[i] >= 0) for i in group}) == 1 for group in groups)
    sizes = [(rows[group[0]] >= 0).sum() for group in groups]
    assert sizes == sorted(sizes, reverse=True)


def test_the_command_trains_on_a_mosaic(cells, tmp_path, capsys):
    for name, rows in {"rna": slice(0, 220), "atac": slice(120, 300)}.items():
        part = cells[name][rows].copy()
        part.obs = cells.obs.loc[part.obs_names, ["batch", "cell_type"]]
        part.obs["doublet"] = (part.obs["batch"] == cells.obs["batch"].iloc[0]).astype(bool if name == "rna" else int)  # no file holds both in one column
        part.write(tmp_path / f"{name}.h5ad")
    files, run = [f"--{name}={tmp_path / name}.h5ad" for name in ("rna", "atac")], tmp_path / "run"
    flags = ["--batch", "batch", "--labels", "cell_type", "--epochs", "1", "--components", "10", "--unpaired", "keep"]
    assert main(["integrate", *files, *flags, "--out", str(run)]) == 0
    whole = mudata.read(run / "integrated.h5mu")
    assert whole.n_obs == 300 and np.isfinite(whole.obsm["X_cvqvae"]).all() and whole["rna"].n_obs == 220 and whole.obs["cell_type"].notna().all()
    pairing = {"cells": 300, "with rna and atac": 100, "with rna only": 120, "with atac only": 80}
    assert whole.uns["cvqvae_pairing"] == pairing and "with atac only" in (run / "integrate.html").read_text()
    assert set(whole.obs["doublet"]) == {0, 1}
    largest = next(cell for cell in nbformat.read(run / "integrate.ipynb", 4).cells if cell["source"].startswith("by_code"))["outputs"][0]["data"]["text/plain"]
    assert {line.split()[0].isdigit() for line in largest.splitlines()[1:]} == {True}  # codes are whole numbers, also beside cells that have none
    assert pd.read_csv(run / "scores.csv").query("method == 'cvqvae' and metric == 'foscttm'")["value"].notna().all()
    known = ["--reference", str(run / "integrated.h5mu"), "--labels", "cell_type"]
    for file in files:  # the first hundred cells of the reference have no peaks
        assert main(["map", "--model", str(run / "model"), file, *known, "--out", f"{tmp_path / file[2:5]}.h5mu"]) == 0
    assert main(["explore", str(run), "--out", str(run / "page.html")]) == 0
    capsys.readouterr()
    assert main(["translate", "--model", str(run), files[0], "--to", "atac", "--out", str(tmp_path / "no.h5ad")]) == 2
    assert f"The model of this run is {run / 'model'}." in capsys.readouterr().err
    assert main(["integrate", *files, *flags, "--backed", "--out", str(tmp_path / "b")]) == 2 and "leave out --backed" in capsys.readouterr().err


def test_a_file_with_a_mosaic_keeps_what_it_says_of_its_cells_and_of_itself(mosaic, tmp_path):
    pieces = mosaic[1].copy()
    pieces.obs["plate"] = pd.Categorical(np.where(np.arange(300) % 2, "a", "b"))
    pieces.uns["organism"] = "mouse"
    pieces.write(tmp_path / "cells.h5mu")
    source = {"mudata": str(tmp_path / "cells.h5mu")}
    kept, paired = load_cells(Parameters(**source, unpaired="keep")), load_cells(Parameters(**source))
    assert kept.n_obs == 300 and paired.n_obs == 140
    for read in (kept, paired):
        assert (read.obs["plate"] == pieces.obs["plate"][read.obs_names]).all() and read.obs["batch"].notna().all()
        assert read.uns["organism"] == "mouse" and read.uns["cvqvae_pairing"]["cells"] == read.n_obs


def test_a_mosaic_is_warned_of_what_pairs_are_warned_of():
    cells = simulate(n_cells=60, kind="protein", n_genes=200, n_proteins=10, seed=0)
    rna, protein = cells["rna"][:40].copy(), cells["protein"][20:].copy()
    protein.var_names = ["HTO_A", "HTO_B", *protein.var_names[2:]]
    with pytest.warns(UserWarning, match="'protein': dropped 2 hashtags"):
        joined = join_modalities({"rna": rna, "protein": protein})
    assert "HTO_A" not in joined["protein"].var_names and joined["protein"].n_vars == 8
    protein = protein[:, 2:].copy()
    rna.obs_names, protein.obs_names = [str(i) for i in range(40)], [str(i) for i in range(40)]
    with pytest.warns(UserWarning, match="only numbered"):
        join_modalities({"rna": rna, "protein": protein})
    with pytest.raises(DataError, match="the same number is not the same cell"):
        join_modalities({"rna": rna[:30].copy(), "protein": protein})


def test_a_column_that_contradicts_itself_is_left_out(cells):
    parts = {name: adata.copy() for name, adata in cells.mod.items()}
    parts["rna"].obs["lane"], parts["atac"].obs["lane"] = "a", "b"
    parts["rna"].obs["plate"] = "p1"
    merged = merged_obs(parts, cells.obs_names)
    assert "lane" not in merged and (merged["plate"] == "p1").all()


@pytest.mark.parametrize(
    "first, second, values",
    [
        (pd.Series([True, False]), pd.Series([1, 0]), {0, 1}),
        (pd.Series([0.0, 1.0]), pd.Series([False, True]), {0, 1}),
        (pd.Series([1, 2]), pd.Series(["1", "2"], dtype="category"), {"1", "2"}),
        (pd.Series(["1", "2"]), pd.Series([1.0, 2.0]), {"1", "2"}),
        (pd.Series([True, False]), pd.array([True, False], dtype="boolean"), {True, False}),
    ],
)
def test_columns_of_two_types_are_merged_into_one_that_a_file_holds(first, second, values, cells, tmp_path):
    parts = {"rna": cells["rna"][:200].copy(), "atac": cells["atac"][100:].copy()}
    for part, column in zip(parts.values(), (first, second)):
        part.obs = pd.DataFrame({"donor": pd.Series(column).take(np.arange(200) % 2).to_numpy()}, index=part.obs_names)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        joined = join_modalities(parts)
    assert set(joined.obs["donor"]) == values and joined.obs["donor"].map(type).nunique() == 1
    joined.write(tmp_path / "joined.h5mu")
    assert set(mudata.read(tmp_path / "joined.h5mu").obs["donor"]) == values


# three modalities --------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def three():
    mdata = simulate(n_cells=250, kind=("atac", "protein"), seed=0)
    return CVQVAE(mdata, batch_key="batch", **SMALL).fit(progress=False), mdata


def test_three_modalities_are_trained_over_every_ordered_pair(three):
    model, mdata = three
    assert set(model.module.routes) >= {(i, j) for i in range(3) for j in range(3) if i != j}
    for source in mdata.mod:
        for target in set(mdata.mod) - {source}:
            predicted = model.translate(mdata[source], to=target)
            assert list(predicted.var_names) == list(model.transforms[target].feature_names) and np.isfinite(predicted.X).all()


def test_a_prediction_is_held_once(three, monkeypatch):
    model, mdata = three
    transform = model.transforms["atac"]
    components = np.tile(mdata["atac"].obsm["X_lsi"], (40, 1))
    monkeypatch.setattr(translation, "predict_features", partial(translation.predict_features, most=10 * len(transform.var)))
    tracemalloc.start()
    found = translation.all_features(transform, components)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.dtype == np.float32 and peak < 1.2 * found.nbytes
    np.testing.assert_allclose(found[-250:], transform.inverse_transform(components[-250:]), atol=1e-5)


def test_what_is_measured_of_a_cell_predicts_the_rest(three, tmp_path):
    model, mdata = three
    alone = {name: model.translate(mdata[name], to="protein").obsm["X_pca"] for name in ("rna", "atac")}
    parts = {"rna": mdata["rna"][:200].copy(), "atac": mdata["atac"][::-1][:150].copy()}
    predicted = model.translate(join_modalities(parts, features="keep"), to="protein")
    both = pd.DataFrame({name: mdata.obs_names.isin(part.obs_names) for name, part in parts.items()}, mdata.obs_names).loc[predicted.obs_names]
    assert predicted.n_obs == 250 and predicted.uns["cvqvae_translation"]["from"] == "rna and atac" and both.all(axis=1).sum() == 100
    places = mdata.obs_names.get_indexer(predicted.obs_names)
    weights = both / both.sum(axis=1).to_numpy()[:, None]
    wanted = sum(weights[[name]].to_numpy() * alone[name][places] for name in parts)
    np.testing.assert_allclose(predicted.obsm["X_pca"], wanted, atol=1e-5)
    with pytest.raises(DataError, match="protein is what is to be predicted, .* give rna or atac alone"):
        model.translate(mdata, to="protein")
    for name, part in parts.items():
        part.write_h5ad(tmp_path / f"{name}.h5ad")
    model.save(tmp_path / "model")
    said = ["translate", "--model", "model", "--rna", "rna.h5ad", "--atac", "atac.h5ad", "--to", "protein", "--out", "predicted.h5ad"]
    assert main([str(tmp_path / one) if one == "model" or one.endswith(".h5ad") else one for one in said]) == 0
    np.testing.assert_allclose(read_h5ad(tmp_path / "predicted.h5ad").X, predicted.X, atol=1e-5)


def test_three_modalities_survive_a_folder(three, tmp_path):
    model, mdata = three
    model.save(tmp_path / "model")
    again = CVQVAE.load(tmp_path / "model", device="cpu")
    new = mdata.copy()
    assert torch.equal(again.latents(new)["joint"].z, model.latents(new)["joint"].z)
    two = MuData({name: new[name].copy() for name in list(new.mod)[:2]})
    assert again.latents(two)["joint"].z.shape == (250, 8)


def test_two_of_three_modalities_are_scored_as_rows(three):
    model, mdata = three
    cells = model.embed(mdata.copy())
    truth = Truth.from_mudata(cells, batch_key="batch", labels_key="cell_type")
    first, second = (cells[name].obsm["X_cvqvae"] for name in model.modalities[:2])
    scores = score_table(evaluate({"own": {"first": first, "second": second}}, truth, views=("stacked",), resolutions=1), "stacked")
    assert np.isfinite(scores.loc["own", ["trajectory", "cell_cycle", "foscttm"]].astype(float)).all()


def test_three_modalities_are_scored_as_rows_by_pairs(three):
    model, mdata = three
    cells = model.embed(mdata.copy())
    truth = Truth.from_mudata(cells, batch_key="batch", labels_key="cell_type")
    z = {name: cells[name].obsm["X_cvqvae"] for name in model.modalities}
    table = score_table(evaluate({"all": z}, truth, views=("stacked",), resolutions=1), "stacked")
    assert table.loc[["all", "raw", "random"], "score"].notna().all()
    pairs = [score_table(evaluate({"own": {a: z[a], b: z[b]}}, truth, views=("stacked",), resolutions=1), "stacked").loc["own"] for a, b in combinations(z, 2)]
    for name in ("foscttm", "label_transfer", "label_transfer_back"):
        assert table.loc["all", name] == pytest.approx(np.mean([pair[name] for pair in pairs]))


def test_rows_of_more_modalities_than_there_are_are_refused(three):
    model, mdata = three
    truth = Truth.from_mudata(mdata, batch_key="batch", labels_key="cell_type")
    with pytest.raises(DataError, match="The stacked view of 250 cells has 750 rows, the embedding has shape .1000, 8."):
        score_embedding(np.zeros((1000, 8)), truth, "stacked")


def test_a_mosaic_without_a_complete_cell_is_refused_before_any_work(three):
    _, mdata = three
    apart = {"rna": mdata["rna"], "atac": mdata["atac"][:100], "protein": mdata["protein"][100:]}
    with pytest.raises(DataError, match="0 cells have all of rna, atac, protein"):
        CVQVAE({name: adata.copy() for name, adata in apart.items()}, unpaired="keep")


def test_three_modalities_are_scored_as_one_point_per_cell(three):
    model, mdata = three
    mdata = model.embed(mdata.copy())
    truth = Truth.from_mudata(mdata, batch_key="batch", labels_key="cell_type")
    table = score_table(evaluate({"cvqvae": {"joint": mdata.obsm["X_cvqvae"]}}, truth, views=("joint",), resolutions=1), "joint")
    assert set(table.index) == {"cvqvae", "raw", "random"} and table["score"].notna().all()


def test_cells_with_all_genes_meet_a_model_of_a_selection(cells, tmp_path):
    selection = cells[:200].copy()
    some = MuData({"rna": selection["rna"][:, ::4].copy(), "atac": selection["atac"]})
    model = CVQVAE(some, **SMALL).fit(progress=False)
    model.save(tmp_path / "model")
    for reader in (model, CVQVAE.load(tmp_path / "model", device="cpu")):
        with pytest.warns(UserWarning, match="if the model was made of a selection of genes, give the same"):
            reader.embed(cells["rna"][200:].copy())
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            reader.embed(cells["rna"][200:, ::4].copy())


# labels ------------------------------------------------------------------------------------------------------------------------------


def test_a_rare_type_wins_where_it_is_near():
    near, far = np.full((1, 5), 0.1), np.full((1, 10), 1.0)
    codes = np.array([1] * 5 + [0] * 10)
    winners, shares = vote(np.arange(15)[None], np.hstack([near, far]), codes, 2)
    assert winners[0] == 1 and shares[0] > 0.5


def test_labels_of_separate_types_are_certain_and_strangers_unknown():
    rng = np.random.default_rng(0)
    centres = np.eye(3) * 10
    codes = np.repeat([0, 1, 2], 60)
    z, new = centres[codes] + rng.normal(size=(180, 3)), centres[codes] + rng.normal(size=(180, 3))
    transfer = LabelTransfer().fit(z, pd.Series(codes).map({0: "a", 1: "b", 2: "c"}))
    found = transfer.predict(np.vstack([new, [[-40.0, -40, -40]]]))
    assert (found["label"].iloc[:180] == pd.Series(codes).map({0: "a", 1: "b", 2: "c"})).all()
    assert found["confidence"].iloc[:180].min() > 0.9 and found["unknown"].iloc[:180].mean() < 0.1
    assert found["unknown"].iloc[180] and found["distance"].iloc[180] > 5


def test_calibration_makes_confidence_honest():
    rng = np.random.default_rng(1)
    z = rng.normal(size=(400, 2))
    noise = pd.Series(rng.choice(["a", "b"], 400))  # labels that say nothing
    transfer = LabelTransfer().fit(z[:200], noise[:200]).calibrate(z[200:300], noise[200:300])
    assert abs(transfer.predict(z[300:])["confidence"].mean() - 0.5) < 0.15


def test_one_wrong_cell_does_not_unname_the_others():
    rng = np.random.default_rng(2)
    codes = np.repeat([0, 1], 100)
    z, labels = np.eye(2)[codes] * 10 + rng.normal(size=(200, 2)), np.array(["a", "b"])[codes]
    new = np.eye(2)[codes] * 10 + rng.normal(size=(200, 2))
    transfer = LabelTransfer(novelty_quantile=1).fit(z, labels).calibrate(new[:1], ["b"])  # the cell is an "a"
    assert 0.5 < transfer.predict(z)["confidence"].max() < 1


def test_more_votes_never_lower_the_confidence():
    odds, weights = np.linspace(-3, 3, 40), np.ones(40)
    rising = worth_of_votes(odds, odds > 0.5, weights).predict_proba(odds[:, None])[:, 1]
    assert (np.diff(rising) > 0).all() and rising[0] < 0.2 and rising[-1] > 0.8
    perverse = worth_of_votes(odds, odds < 0.5, weights).predict_proba(odds[:, None])[:, 1]
    np.testing.assert_allclose(perverse, (odds < 0.5).mean(), atol=0.02)
    for right in (np.ones(40, dtype=bool), np.zeros(40, dtype=bool)):
        certain = worth_of_votes(odds, right, weights).predict_proba(odds[:, None])[:, 1]
        assert ((certain > 0) & (certain < 1)).all() and abs(certain.mean() - right.mean()) < 0.1


def test_labels_must_fit_the_cells():
    with pytest.raises(DataError, match="3 labels for 4"):
        LabelTransfer().fit(np.zeros((4, 2)), pd.Series(["a", "b", "a"]))


@pytest.mark.parametrize("gap", ["Unknown", "unknown ", "unassigned", "NA", "nan", "", np.nan, None])
def test_a_reference_cell_whose_type_is_not_known_has_no_vote(gap):
    z = np.random.default_rng(0).normal(size=(90, 2))
    labels = pd.Series(["a", gap, gap] * 30, dtype=object)  # the commonest
    labels[3] = "b"
    transfer, some = LabelTransfer().fit(z, labels.astype("category")), labels.isin(["a", "b"]).to_numpy()
    expected = LabelTransfer().fit(z[some], labels[some])
    pd.testing.assert_frame_equal(transfer.predict(z), expected.predict(z))
    pd.testing.assert_frame_equal(transfer.calibrate(z, labels).predict(z), expected.calibrate(z[some], labels[some]).predict(z))
    with pytest.raises(DataError, match="0 labels for 90"):
        LabelTransfer().fit(z, [gap] * 90)


def test_a_cell_without_a_place_is_unknown():
    z = np.random.default_rng(0).normal(size=(20, 2))
    transfer, index = LabelTransfer().fit(z, ["a", "b"] * 10), pd.Index(list("xyz"))
    with pytest.warns(UserWarning, match="1 of 3 cells have no place"):
        found = transfer.predict(np.vstack([z[:1], [[np.nan, 0]], z[1:2]]), index)
    assert found["label"].isna().tolist() == [False, True, False] and found["unknown"]["y"] and np.isnan(found["confidence"]["y"])
    pd.testing.assert_frame_equal(found.iloc[[0, 2]], transfer.predict(z[:2], index[[0, 2]]))


@pytest.mark.parametrize("labels", [["a", "b"] * 10, pd.Categorical([1, 2] * 10)])
def test_no_cells_have_no_types(labels):
    z = np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32)
    transfer = LabelTransfer().fit(z, labels)
    some, none = transfer.predict(z), transfer.predict(z[:0])
    assert len(none) == 0 and (none.dtypes == some.dtypes).all() and list(none) == list(some)
    assert transfer.predict(z[:0], pd.Index([], name="cell")).index.name == "cell"


# translation scores ------------------------------------------------------------------------------------------------------------------


def test_translations_are_scored_in_whatever_form_the_counts_are(cells):
    dense = cells.copy()
    for adata in dense.mod.values():
        adata.X = adata.X.toarray()
    sparse, found = (translation_scores(m, most_features=10**5, **SMALL | {"epochs": 1}) for m in (cells, dense))
    assert np.allclose(found["value"], sparse["value"], atol=1e-3)


def test_row_measures_are_those_of_scipy_and_sklearn():
    from scipy.stats import pearsonr
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    p, o = rng.normal(size=(4, 50)), rng.normal(size=(4, 50))
    np.testing.assert_allclose(row_correlations(p, o), [pearsonr(a, b)[0] for a, b in zip(p, o)], atol=1e-12)
    p = p.round(1)  # with ties
    np.testing.assert_allclose(row_auroc(p, o > 0), [roc_auc_score(b > 0, a) for a, b in zip(p, o)], atol=1e-12)


def test_a_mosaic_with_odd_columns_is_written(cells, tmp_path):
    parts = {"rna": cells["rna"][:220].copy(), "atac": cells["atac"][80:].copy()}
    parts["rna"].obs["doublet"] = np.arange(220) % 2 == 0
    parts["atac"].obs["checked"] = pd.array([True, None] * 110, dtype="boolean")
    parts["atac"].obs["remark"] = [f"cell {i}" for i in range(220)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        join_modalities(parts).write(tmp_path / "mosaic.h5mu")
    obs = mudata.read(tmp_path / "mosaic.h5mu").obs
    assert (obs["doublet"].sum(), obs["doublet"].isna().sum(), obs["checked"].sum(), obs["remark"].isna().sum()) == (110, 80, 110, 80)


# files -------------------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory, fitted, cells):
    folder = tmp_path_factory.mktemp("apply")
    fitted.save(folder / "model")
    reference = fitted.embed(cells[:200].copy())
    reference.write(folder / "integrated.h5mu")
    for name, adata in cells[200:].copy().mod.items():
        adata.write(folder / f"{name}.h5ad")
    return folder


def test_map_writes_embedding_and_types(folder, fitted, cells, capsys):
    flags = ["--model", folder / "model", "--rna", folder / "rna.h5ad", "--out", folder / "mapped.h5mu"]
    known = ["--reference", folder / "integrated.h5mu", "--labels", "cell_type"]
    assert main(["map", *map(str, flags + known)]) == 0
    mapped = mudata.read(folder / "mapped.h5mu")
    latents = fitted.latents(cells[200:]["rna"].copy())
    assert np.allclose(mapped["rna"].obsm["X_cvqvae"], latents["rna"].z.numpy(), atol=1e-5)
    assert np.allclose(mapped.obsm["X_cvqvae"], latents["joint"].z.numpy(), atol=1e-5)
    reference = mudata.read(folder / "integrated.h5mu")  # rows of the RNA are compared with rows of the RNA
    transfer = LabelTransfer().fit(reference["rna"].obsm["X_cvqvae"], reference.obs["cell_type"])
    assert np.allclose(mapped.obs["cvqvae_confidence"], transfer.predict(mapped["rna"].obsm["X_cvqvae"])["confidence"])
    assert set(mapped.obs["cvqvae_label"]) <= set(cells.obs["cell_type"]) and mapped.obs["cvqvae_confidence"].between(0, 1).all()
    assert "missing" in capsys.readouterr().out
    assert main(["map", *map(str, flags)]) == 2 and "exists already" in capsys.readouterr().err


@pytest.mark.parametrize("rows, says", [(100, "'rna' has no cell with a count: check the filter"), (0, "'rna' is empty: 0 cells")])
def test_a_file_without_cells_is_refused(folder, cells, tmp_path, capsys, rows, says):
    nothing = cells["rna"][:rows].copy()
    nothing.X = nothing.X * 0
    nothing.layers.clear()
    nothing.write(tmp_path / "nothing.h5ad")
    flags = ["--reference", folder / "integrated.h5mu", "--labels", "cell_type", "--out", tmp_path / "mapped.h5mu"]
    assert main(["map", "--model", str(folder / "model"), "--rna", str(tmp_path / "nothing.h5ad"), *map(str, flags)]) == 2
    assert says in capsys.readouterr().err and not (tmp_path / "mapped.h5mu").exists()


def test_a_few_cells_are_mapped_as_among_many(folder, fitted, cells, tmp_path, recwarn):
    few = cells[200:212].copy()  # hardly a peak has a count in all of them together
    for name, adata in few.mod.items():
        adata.write(tmp_path / f"{name}.h5ad")
    report = map_files(folder / "model", {name: tmp_path / f"{name}.h5ad" for name in few.mod}, tmp_path / "mapped.h5mu")
    assert (report["missing"] == 0).all() and not [w for w in recwarn if "without a count" in str(w.message)]
    among_many = fitted.embed(cells[200:].copy()).obsm["X_cvqvae"][:12]
    np.testing.assert_allclose(mudata.read(tmp_path / "mapped.h5mu").obsm["X_cvqvae"], among_many, atol=1e-5)
    joined = fitted.embed({name: adata.copy() for name, adata in few.mod.items()})
    np.testing.assert_allclose(joined.obsm["X_cvqvae"], among_many, atol=1e-5)


@pytest.mark.parametrize("change, message", [(dict(seed=1), "embedded by another model"), (dict(n_latent=4), "embedded by another model"),
                                             (dict(seed=1, batch_key=None), "embedded by another model"), (dict(batch_key="cell_type"), None)])
def test_a_reference_of_another_model_is_refused(folder, cells, tmp_path, change, message):
    reference = cells[:200].copy()
    if message is None:
        del reference.obs["batch"], reference["rna"].obs["batch"], reference["atac"].obs["batch"]
        message = "does not fit this model .*no such column"
    elif change.get("batch_key", "") is None:  # of batches that the first model does not know
        reference.obs["batch"] = "elsewhere"
    CVQVAE(reference, **{"batch_key": "batch", **SMALL, **change}).fit(progress=False).embed(reference)
    reference.write(tmp_path / "reference.h5mu")
    with pytest.raises(DataError, match=message):
        map_files(folder / "model", {"rna": folder / "rna.h5ad"}, tmp_path / "mapped.h5mu", tmp_path / "reference.h5mu", "cell_type")
    assert not (tmp_path / "mapped.h5mu").exists()


def test_a_reference_of_cells_mapped_before_is_taken(folder, cells, tmp_path):
    first = {"rna": folder / "rna.h5ad"}
    map_files(folder / "model", first, tmp_path / "first.h5mu", folder / "integrated.h5mu", "cell_type")
    map_files(folder / "model", first, tmp_path / "second.h5mu", tmp_path / "first.h5mu", "cvqvae_label")
    assert "cvqvae_label" in mudata.read(tmp_path / "second.h5mu").obs


def test_cells_without_a_batch_column_are_told_what_to_do(fitted, cells):
    new = cells["rna"][200:].copy()
    del new.obs["batch"]
    with pytest.raises(DataError, match="adata.obs\\['batch'\\] = 'new'"):
        fitted.embed(new)
    new.obs["batch"] = "new"
    assert np.isfinite(fitted.embed(new).obsm["X_cvqvae"]).all()


@pytest.mark.filterwarnings("ignore:obsm")
def test_components_of_ones_own_are_lined_up_in_a_copy(cells):
    parts = [cells[:200].copy(), cells[100:].copy()]
    whole = CVQVAE(cells.copy(), n_components=8).mdata
    for name, slot in (("rna", "X_pca"), ("atac", "X_lsi")):
        for part, values in zip(parts, (whole[name].obsm[slot][:200], whole[name].obsm[slot][100:] + 2)):
            values.setflags(write=slot == "X_pca")
            part[name].obsm[slot] = values
    parts[1].obs["batch"] = "new"
    model = CVQVAE(parts[0], batch_key="batch", **SMALL).fit(progress=False)
    before = parts[1]["rna"].obsm["X_pca"].copy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*only if it is on the very same axes")  # what such components are worth is told
        read = model.reader.groups(parts[1])[0][1].inputs[0].numpy()
    assert np.array_equal(parts[1]["rna"].obsm["X_pca"], before) and (before - read).mean() > 0.5


@pytest.mark.parametrize("values, says", [(np.nan, "no cell of .* has a value there"), (np.arange(200) / 7, "200 cell types for 200 cells: is it a barcode")])
def test_a_column_without_types_is_refused_before_any_cell_is_mapped(folder, tmp_path, values, says):
    reference = mudata.read(folder / "integrated.h5mu")
    reference.obs["type"] = values
    reference.write(tmp_path / "reference.h5mu")
    with pytest.raises(DataError, match=f"--labels type.*{says}"):
        map_files(folder / "model", {"rna": folder / "rna.h5ad"}, tmp_path / "mapped.h5mu", str(tmp_path / "reference.h5mu"), "type")
    assert not (tmp_path / "mapped.h5mu").exists()


def test_a_modality_is_predicted_by_its_name_its_flag_or_its_kind(folder, cells, tmp_path):
    renamed = mudata.MuData({"gex": cells["rna"][:100].copy(), "prot": simulate(n_cells=300, kind="protein", seed=0)["protein"][:100].copy()})
    CVQVAE(renamed, **SMALL | dict(epochs=1)).fit(progress=False).save(tmp_path / "model")
    for to in ("prot", "adt", "protein"):
        predicted = translate_files(tmp_path / "model", {"rna": folder / "rna.h5ad"}, to, tmp_path / f"{to}.h5ad")
        assert predicted.n_vars == renamed["prot"].n_vars


def test_translate_writes_features_by_name(folder, fitted, cells):
    wanted = list(fitted.transforms["atac"].feature_names[[3, 1]])
    flags = ["--model", folder / "model", "--rna", folder / "rna.h5ad", "--to", "atac", "--features", ",".join(wanted), "--out", folder / "peaks.h5ad"]
    assert main(["translate", *map(str, flags)]) == 0
    predicted = read_h5ad(folder / "peaks.h5ad")
    assert list(predicted.var_names) == wanted and predicted.n_obs == 100
    np.testing.assert_allclose(predicted.X, fitted.translate(cells[200:]["rna"].copy(), "atac", features=wanted).X, atol=1e-5)
    assert predicted.uns["cvqvae_translation"]["values"] == "log1p of TF-IDF per 10,000" and set(predicted.var["feature_types"]) == {"Peaks"}


@pytest.fixture
def with_zeros(cells, tmp_path):
    "A file of cells, of which the first five have no count."
    new = cells["rna"][200:].copy()
    new.X = sp.vstack([sp.csr_matrix((5, new.n_vars), dtype=np.float32), new.X[5:]]).tocsr()
    new.write(tmp_path / "zeros.h5ad")
    return tmp_path / "zeros.h5ad", new


def test_cells_without_a_count_get_no_type_and_no_prediction(folder, with_zeros, capsys):
    path, new = with_zeros
    known = ["--reference", folder / "integrated.h5mu", "--labels", "cell_type"]
    for command, more, out in (("map", known, "mapped.h5mu"), ("translate", ["--to", "atac"], "peaks.h5ad")):
        flags = ["--model", folder / "model", "--rna", path, *more, "--out", path.parent / out]
        assert main([command, *map(str, flags)]) == 0
        assert "'rna': dropped 5 cells without a count" in capsys.readouterr().err
    assert list(mudata.read(path.parent / "mapped.h5mu").obs_names) == list(new.obs_names[5:])
    assert list(read_h5ad(path.parent / "peaks.h5ad").obs_names) == list(new.obs_names[5:])


def test_python_says_what_rows_of_cells_without_a_count_are_worth(fitted, cells, with_zeros, recwarn):
    _, new = with_zeros
    for call in (fitted.embed, fitted.latents, lambda data: fitted.translate(data, "atac")):
        with pytest.warns(UserWarning, match="5 of 100 cells in 'rna' have no count.*Leave them out"):
            call(new.copy())
    recwarn.clear()
    fitted.embed(cells[200:]["rna"].copy())
    assert not [w for w in recwarn if "no count" in str(w.message)]


def stacked(mdata):
    "All measurements in one matrix, as Cell Ranger writes them."
    whole = concat(list(mdata.mod.values()), axis=1, merge="same")
    whole.var["feature_types"] = [KINDS[kind] for kind, adata in mdata.mod.items() for _ in range(adata.n_vars)]
    return whole


def write_10x_folder(folder, adata, packed=True, prefix=""):
    folder.mkdir()
    table = ["\t".join((name, name, kind)) for name, kind in adata.var["feature_types"].items()]
    mmwrite(folder / "matrix.mtx", sp.csr_matrix(adata.X, dtype=int).T)
    texts = {"features.tsv": "\n".join(table), "barcodes.tsv": "\n".join(adata.obs_names), "matrix.mtx": (folder / "matrix.mtx").read_text()}
    (folder / "matrix.mtx").unlink()
    for name, text in texts.items():
        path = folder / (prefix + name + (".gz" if packed else ""))
        path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())


@pytest.mark.parametrize("packed, prefix", [(True, ""), (False, ""), (True, "GSM1_sample_")])
def test_a_10x_folder_is_read_like_its_file(cells, tmp_path, packed, prefix):
    write_10x_folder(tmp_path / "counts", stacked(cells), packed, prefix)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        read, expected = read_any(tmp_path / "counts"), read_any(cells.copy())
    assert list(read.mod) == ["rna", "atac"] and read.obs_names.equals(expected.obs_names)
    for name in read.mod:
        assert read[name].var_names.equals(expected[name].var_names) and (read[name].X != expected[name].X).nnz == 0


@pytest.mark.parametrize("form", ["both.h5mu", "both.h5ad", "folder"])
def test_one_file_with_all_is_mapped_and_translated(folder, fitted, cells, tmp_path, form, capsys):
    new = cells[200:].copy()
    path, whole = tmp_path / form, stacked(new)
    whole.obs["batch"] = new.obs["batch"]
    {"both.h5mu": new.write, "both.h5ad": whole.write, "folder": lambda path: write_10x_folder(path, whole)}[form](path)
    flags = ["--model", str(folder / "model"), "--mudata", str(path), "--out"]
    if form == "folder":  # which knows no batches
        assert main(["map", *flags, str(tmp_path / "mapped.h5mu")]) == 2 and "no such column" in capsys.readouterr().err
        assert list(read_for(fitted, {"mudata": path}).mod) == ["rna", "atac"]
        return
    assert main(["map", *flags, str(tmp_path / "mapped.h5mu")]) == 0
    np.testing.assert_allclose(mudata.read(tmp_path / "mapped.h5mu").obsm["X_cvqvae"], fitted.embed(new.copy()).obsm["X_cvqvae"], atol=1e-5)
    assert main(["translate", *flags, str(tmp_path / "peaks.h5ad"), "--to", "atac"]) == 0
    assert "left out of the file: atac; read: rna" in capsys.readouterr().err
    np.testing.assert_allclose(read_h5ad(tmp_path / "peaks.h5ad").X, fitted.translate(new["rna"].copy(), "atac").X, atol=1e-5)


@pytest.mark.parametrize("backed", [[], ["--backed"]])
def test_one_file_with_all_is_not_taken_for_one_of_its_parts(folder, cells, tmp_path, backed, capsys):
    "Its peaks would count as genes."
    stacked(cells).write(tmp_path / "both.h5ad")
    cells["atac"].write(tmp_path / "atac.h5ad")
    flags = ["--rna", str(tmp_path / "both.h5ad"), "--out", str(tmp_path / "out")]
    assert main(["integrate", *flags, "--atac", str(tmp_path / "atac.h5ad"), *backed]) == 2
    assert "several kinds" in (told := capsys.readouterr().err) and "the whole file, as --mudata" in told
    assert main(["integrate", *flags]) == 2 and "a file with several alone, as --mudata" in capsys.readouterr().err
    if not backed:
        assert main(["map", "--model", str(folder / "model"), *flags[:2], "--out", str(tmp_path / "out.h5mu")]) == 2
        assert "the whole file, as --mudata" in capsys.readouterr().err
    else:
        assert main(["integrate", "--mudata", *flags[1:], *backed]) == 2 and "read_any(path).write('cells.h5mu')" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_repeated_names_are_told_once(folder, cells, tmp_path, capsys):
    rna = cells["rna"].copy()
    rna.var_names = [rna.var_names[1], *rna.var_names[1:]]
    rna.write(tmp_path / "rna.h5ad")
    cells["atac"].write(tmp_path / "atac.h5ad")
    model = ["--model", str(folder / "model")]
    calls = (["integrate", "--atac", str(tmp_path / "atac.h5ad"), "--out", str(tmp_path / "out")], ["map", *model, "--out", str(tmp_path / "out.h5mu")],
             ["translate", *model, "--to", "atac", "--out", str(tmp_path / "out.h5ad")])
    for command, *flags in calls:
        assert main([command, "--rna", str(tmp_path / "rna.h5ad"), *flags]) == 2
        told = capsys.readouterr().err
        assert told.count("nique") == 1 and "duplicated feature name" in told and "var_names_make_unique(), and write the file again" in told
    assert not list(tmp_path.glob("out*"))


def test_a_wrong_file_with_all_is_refused(folder, fitted, cells, tmp_path):
    with pytest.raises(DataError, match="exclude each other"):
        read_for(fitted, {"mudata": "a.h5mu", "rna": "b.h5ad"})
    alone = simulate(n_cells=40, kind="protein")["protein"]
    MuData({"adt": alone}).write(tmp_path / "adt.h5mu")
    with pytest.raises(DataError, match="the file holds protein; this model knows rna, atac"):
        read_for(fitted, {"mudata": tmp_path / "adt.h5mu"})
    with pytest.raises(DataError, match="files end in .h5mu, .h5, .h5ad"):
        read_for(fitted, {"mudata": tmp_path / "cells.xlsx"})


def test_two_modalities_of_one_kind_are_not_mixed_up(tmp_path, cells):
    twice = MuData({"rna": cells["rna"][:, :100].copy(), "nuclei": cells["rna"][:, 100:200].copy()})
    CVQVAE(twice, **SMALL).fit(progress=False, epochs=1).save(tmp_path / "model")
    cells["rna"].write(tmp_path / "rna.h5ad")
    with pytest.raises(DataError, match="rna and nuclei of that kind"):
        map_files(tmp_path / "model", {"rna": tmp_path / "rna.h5ad"}, tmp_path / "mapped.h5mu")


WRONG = [
    (["--out", "mapped.h5mu"], "no cells: give --rna"),
    (["--adt", "rna.h5ad", "--out", "mapped.h5mu"], "this model knows rna, atac"),
    (["--rna", "rna.h5ad", "--out", "mapped.txt"], "must end in .h5mu"),
    (["--rna", "rna.h5ad", "--out", "mapped.h5mu", "--labels", "cell_type"], "belong together"),
    (["--rna", "rna.h5ad", "--out", "mapped.h5mu", "--reference", "rna.h5ad", "--labels", "cell_type"], "rna.h5ad"),
    (["--rna", "rna.h5ad", "--out", "mapped.h5mu", "--reference", "integrated.h5mu", "--labels", "tissue"], "no column 'tissue'"),
]


@pytest.mark.parametrize("flags, message", WRONG, ids=[message for _, message in WRONG])
def test_a_wrong_wish_writes_nothing(folder, tmp_path, monkeypatch, capsys, flags, message):
    for path in folder.glob("*.h5*"):
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "mapped.h5mu").unlink(missing_ok=True)
    monkeypatch.chdir(tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())
    assert main(["map", "--model", str(folder / "model"), *flags]) == 2
    assert message in capsys.readouterr().err and sorted(path.name for path in tmp_path.iterdir()) == before


def test_files_for_other_tools(fitted, cells, tmp_path):
    embedded = fitted.embed(cells[:200].copy())
    embedded.obs["GO:0008150"], embedded.obs["rna:depth"] = 1.0, 2.0
    plain = to_anndata(embedded, umap=False)
    assert "GO:0008150" in plain.obs and "rna:depth" not in plain.obs
    plain.write(tmp_path / "plain.h5ad")
    again = read_h5ad(tmp_path / "plain.h5ad")
    assert {"X_cvqvae", "X_cvqvae_rna", "X_cvqvae_atac"} <= set(again.obsm) and {"cvqvae_code_rna", "cell_type"} <= set(again.obs)
    assert (again.layers["counts"] != cells["rna"][:200].X).nnz == 0
    task = to_open_problems(embedded, "demo")
    assert task.uns == {"dataset_id": "demo", "method_id": "cvqvae"} and list(task.obs_names) == list(embedded.obs_names)
    np.testing.assert_array_equal(task.X, embedded.obsm["X_cvqvae"])


def test_scanpy_and_mudata_read_what_is_handed_on(tmp_path):
    mdata = simulate(n_cells=200, kind="protein", n_genes=300, n_proteins=15)
    CVQVAE(mdata, batch_key="batch", n_components=10, epochs=3, device="cpu").fit(progress=False).embed(mdata)
    mdata.write(tmp_path / "cells.h5mu")
    shown = to_anndata(mdata, umap=False)
    shown.obsm["X_umap"] = shown.obsm["X_cvqvae"][:, :2]  # a picture is enough here
    shown.write_h5ad(tmp_path / "cells.h5ad")
    shown.write_zarr(tmp_path / "cells.zarr")
    for cells in (sc.read_h5ad(tmp_path / "cells.h5ad"), read_zarr(tmp_path / "cells.zarr")):
        assert cells.X.format == "csc" and cells.layers["counts"].format == "csr"  # genes for browsers, cells for models
        np.testing.assert_array_equal(cells.obsm["protein_expression"], mdata["protein"].layers["counts"].toarray())
        assert list(cells.uns["protein_names"]) == list(mdata["protein"].var_names)
        axes = sc.pl.embedding(cells, "X_umap", color=["cell_type", "cvqvae_code_rna", cells.var_names[3]], show=False)
        np.testing.assert_allclose(axes[0].collections[0].get_offsets(), cells.obsm["X_umap"], rtol=1e-5)
        sc.tl.rank_genes_groups(cells, "cell_type", method="wilcoxon")
        assert set(cells.uns["rank_genes_groups"]["names"].dtype.names) == set(mdata.obs["cell_type"].unique())
    plt.close("all")
    read = mudata.read(tmp_path / "cells.h5mu")
    np.testing.assert_array_equal(read.obsm["X_cvqvae"], mdata.obsm["X_cvqvae"])
    for name, adata in read.mod.items():
        assert adata.obs["cvqvae_code"].equals(mdata[name].obs["cvqvae_code"]) and (adata.layers["counts"] != mdata[name].layers["counts"]).nnz == 0


@pytest.fixture(scope="module")
def cite_file(tmp_path_factory):
    "Cells with proteins as `cvqvae integrate` writes them, and as they were."
    mdata = simulate(n_cells=200, kind="protein", n_genes=300, n_proteins=15)
    CVQVAE(mdata, batch_key="batch", n_components=10, epochs=2, device="cpu").fit(progress=False).embed(mdata)
    before = mdata.copy()
    path = tmp_path_factory.mktemp("cite") / "integrated.h5mu"
    dense_proteins(mdata).write(path)
    return path, before


def test_proteins_are_written_dense_and_everything_else_as_it_was(cite_file):
    read, before = mudata.read(cite_file[0]), cite_file[1]
    for dense, sparse in ((read["protein"].X, before["protein"].X), (read["protein"].layers["counts"], before["protein"].layers["counts"])):
        assert type(dense) is np.ndarray and dense.dtype == sparse.dtype
        np.testing.assert_array_equal(dense, sparse.toarray())
    assert (read["rna"].X != before["rna"].X).nnz == 0 and read["rna"].layers["counts"].format == "csr"
    assert set(read["protein"].obsm) == set(before["protein"].obsm) and read.obs.equals(before.obs)


def test_dense_proteins_train_the_same_model(cite_file):
    read, before = mudata.read(cite_file[0]), cite_file[1]
    first, second = (CVQVAE(cells, n_components=10, epochs=2, device="cpu").fit(progress=False) for cells in (before, read))
    pd.testing.assert_frame_equal(first.history.drop(columns="seconds"), second.history.drop(columns="seconds"))


def test_totalvi_trains_on_the_written_file(cite_file):
    scvi = pytest.importorskip("scvi", reason="the extra cvqvae[peers] is not installed")
    for layer in ("counts", None):
        mdata, places = mudata.read(cite_file[0]), {"rna_layer": "rna", "protein_layer": "protein"}
        scvi.model.TOTALVI.setup_mudata(mdata, rna_layer=layer, protein_layer=layer, batch_key="batch", modalities=places)
        model = scvi.model.TOTALVI(mdata)
        model.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False)
        assert np.isfinite(model.get_latent_representation()).all()


def with_ids(cells, **columns):
    cells = cells.copy()
    for name, values in columns.items():
        cells.var[name] = values
    return cells


def test_the_layout_of_a_public_collection(cite_file, tmp_path):
    mdata = cite_file[1].copy()
    mdata.obs["disease"], mdata.mod["a protein"] = "none", mdata.mod.pop("protein")
    shown = to_anndata(mdata, umap=False)
    ids = [f"ENSG{i:011d}" for i in range(shown.n_vars)]
    shown = with_ids(shown, gene_ids=[f"{name}.{i % 20}" for i, name in enumerate(ids)], feature_name="known by another name")
    before = shown.copy()
    for_collection(shown, "gene_ids").write_h5ad(tmp_path / "cells.h5ad")
    read = read_h5ad(tmp_path / "cells.h5ad")
    assert list(read.var_names) == list(read.raw.var_names) == ids and read.var["gene_symbol"].tolist() == shown.var_names.tolist()
    assert read.X.format == read.raw.X.format == "csr" and (read.X != shown.X).nnz == 0 and (read.raw.X != shown.layers["counts"]).nnz == 0
    assert {"author_cell_type", "author_disease"} <= set(read.obs) and not {"cell_type", "disease"} & set(read.obs)
    assert not read.var["feature_is_filtered"].any() and "feature_is_filtered" not in read.raw.var and "author_feature_name" in read.var
    assert "X_cvqvae_a_protein" in read.obsm and all(np.isfinite(values).all() for values in read.obsm.values())
    assert shown.obs.equals(before.obs) and shown.var.equals(before.var) and set(shown.obsm) == set(before.obsm)


def test_names_that_are_no_ids_are_refused(cite_file):
    shown = to_anndata(cite_file[1], umap=False)
    ids = [f"ENSMUSG{i:011d}" for i in range(shown.n_vars)]
    assert list(for_collection(with_ids(shown, ids=ids), "ids").var_names) == ids
    for wrong, message in ((ids[:-1] + [None], "is no ID of a gene \\(1 of 300\\)"), (ids[:-1] + [ids[0] + ".7"], "is the ID of two genes")):
        with pytest.raises(DataError, match=message):
            for_collection(with_ids(shown, ids=wrong), "ids")
    with pytest.raises(DataError, match="has no column 'ensembl'; it has"):
        for_collection(shown, "ensembl")


def test_protein_names_may_hold_anything(tmp_path):
    mdata = simulate(n_cells=120, kind="protein", n_genes=200, n_proteins=6)
    mdata["protein"].var_names = ["HLA-A/B/C", "CD4 ", "γδ", "CD8", "CD8a", "."]
    CVQVAE(mdata, n_components=5, epochs=1, device="cpu").fit(progress=False).embed(mdata)
    to_anndata(mdata, umap=False).write_h5ad(tmp_path / "cells.h5ad")
    assert list(read_h5ad(tmp_path / "cells.h5ad").uns["protein_names"]) == list(mdata["protein"].var_names)
    own = to_anndata(mdata, "protein", umap=False)
    assert "protein_expression" not in own.obsm and own.shape == (120, 6)


def test_counts_are_handed_on_however_they_are_kept():
    mdata = simulate(n_cells=120, kind="protein", n_genes=200, n_proteins=6)
    CVQVAE(mdata, n_components=5, epochs=1, device="cpu").fit(progress=False).embed(mdata)
    counts, first = {name: adata.layers["counts"] for name, adata in mdata.mod.items()}, to_anndata(mdata, umap=False)
    for keep in (lambda x: x.toarray(), lambda x: x.tocsc(), lambda x: x.astype(int)):
        for name, adata in mdata.mod.items():
            adata.layers["counts"] = keep(counts[name])
        again = to_anndata(mdata, umap=False)
        assert (again.X != first.X).nnz == 0 and again.layers["counts"].format == "csr"
        np.testing.assert_array_equal(again.obsm["protein_expression"], first.obsm["protein_expression"])


@pytest.mark.parametrize("names", [["rna", "peaks"], ["GEX", "atac"], ["GEX", "peaks"]])
def test_a_modality_under_another_name_is_not_passed_over(fitted, cells, names):
    "It was, where another one had its right name."
    called = MuData({name: adata[200:].copy() for name, adata in zip(names, cells.mod.values())})
    with pytest.raises(DataError, match="call them as the model does") as caught:
        fitted.embed(called)
    line = re.search(r"mudata\.MuData\(.*\)", str(caught.value))[0]
    again = fitted.embed(eval(line, {"mudata": mudata, "mdata": called}))  # what the error says
    assert list(again.mod) == fitted.modalities and "X_cvqvae" in again.obsm


@pytest.fixture(scope="module")
def cite():
    return simulate(n_cells=150, n_genes=200, kind="protein")


@pytest.fixture(scope="module")
def fitted_cite(cite):
    return CVQVAE(cite, **SMALL | {"epochs": 1}).fit(progress=False)


def test_hashtags_beside_genes_are_no_proteins_under_another_name(fitted_cite, cite):
    named = pd.DataFrame({"feature_types": "Antibody Capture"}, ["HTO1", "HTO2", "HTO3"])
    tags = AnnData(np.ones((cite.n_obs, 3), np.float32), obs=cite.obs[[]].copy(), var=named)
    genes, beside = cite["rna"].copy(), cite["rna"].copy()
    fitted_cite.embed(genes)
    fitted_cite.embed(MuData({"rna": beside, "hto": tags}))
    np.testing.assert_array_equal(genes.obsm["X_cvqvae"], beside.obsm["X_cvqvae"])


def test_cells_of_a_kind_that_the_model_does_not_know_are_refused(fitted_cite, cells):
    with pytest.raises(DataError, match="these cells are atac, and the model was trained on rna and protein"):
        fitted_cite.embed(cells["atac"])


def test_cells_of_a_kind_that_the_model_knows_twice_are_named_as_the_error_says(cite):
    parts = {"rna": cite["rna"], "adt": cite["protein"], "adt.b": cite["protein"].copy()}
    model = CVQVAE(MuData({name: adata.copy() for name, adata in parts.items()}), **SMALL | {"epochs": 1}).fit(progress=False)
    with pytest.raises(DataError, match="adt and adt.b of this model are protein") as caught:
        model.embed(parts["adt"].copy())
    line = re.search(r"mudata\.MuData\(.*\)", str(caught.value))[0]
    assert "X_cvqvae" in model.embed(eval(line, {"mudata": mudata, "adata": parts["adt"].copy()})).obsm
