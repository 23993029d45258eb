"""The user's class: slots, saving, bad input, and real cells."""

import copy
import json
import os
import pickle
import re
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from local_data import DATA, needs_data
from matplotlib.figure import Figure
from mudata import MuData

from cvqvae import integration
from cvqvae.alignment import foscttm
from cvqvae.backed import write_stored
from cvqvae.bottlenecks import BOTTLENECKS, Bottleneck, Latent, QuantizedBottleneck
from cvqvae.callbacks import Callback
from cvqvae.cells import DataError
from cvqvae.checks import warn
from cvqvae.configuration import VARIANTS, ModelConfig
from cvqvae.containers import one_hot
from cvqvae.datasets import load_dataset, read_any, read_mudata, read_pair
from cvqvae.figures import save_figure
from cvqvae.files import write_atomically
from cvqvae.integration import CVQVAE
from cvqvae.metacells import code_source
from cvqvae.networks import seeded, usual_defaults
from cvqvae.presets import PRESETS, Preset, resolve_preset
from cvqvae.simulation import simulate
from cvqvae.training import TrainingConfig
from cvqvae.translation import read_out

SMALL = dict(hidden=(32,), n_latent=8, n_codes=32, n_components=12, batch_size=128, device="cpu")


@pytest.fixture(scope="module")
def fitted():
    mdata = simulate(n_cells=300, seed=0)
    return CVQVAE(mdata, batch_key="batch", epochs=8, **SMALL).fit(progress=False), mdata


def contents(adata):
    return {
        "obs": list(adata.obs.columns), "var": adata.var.to_csv(), "obsm": sorted(adata.obsm), "layers": sorted(adata.layers),
        "uns": sorted(adata.uns), "X": (adata.X.sum(), adata.X.nnz), "names": list(adata.obs_names),
    }  # fmt: skip


def test_one_of_something_is_told_as_one(tmp_path):
    mdata = simulate(n_cells=100, n_genes=300, n_peaks=400)
    model = CVQVAE(mdata, epochs=1, **SMALL).fit(progress=False)
    assert "preset default, 1 batch, on cpu; trained for 1 epoch" == repr(model).split("\n")[1]
    assert "1 epoch, training loss" in (model.save(tmp_path / "model") / "README.md").read_text(encoding="utf-8")


def test_warnings_name_the_line_of_the_caller(fitted, tmp_path):
    "Python shows a warning once per line: where it named one of this package, the second call said nothing."
    model, mdata = fitted
    fewer, empty = mdata["rna"][:, 20:].copy(), simulate(n_cells=60, n_genes=200, n_peaks=200)
    empty["rna"].X = empty["rna"].X.multiply(np.arange(empty.n_obs)[:, None] > 2).tocsr()
    calls = [lambda: model.embed(fewer.copy()), lambda: model.translate(fewer, to="atac"), lambda: read_pair(empty["rna"], empty["atac"]),
             lambda: CVQVAE([empty["rna"], empty["atac"]], **SMALL), lambda: CVQVAE(list(empty.mod.values()), unpaired="keep", **SMALL),
             lambda: CVQVAE(simulate(n_cells=10, n_genes=200, n_peaks=200), device="cpu"),
             lambda: CVQVAE(empty, epochs=1, **SMALL).fit(progress=False)]  # fmt: skip
    for call in calls:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            call()
        assert told and {one.filename for one in told} == {__file__}, [(one.filename, one.lineno, str(one.message)) for one in told]


@pytest.mark.parametrize("through", [lambda function: function, torch.no_grad(), torch.inference_mode(False), usual_defaults()])
def test_a_warning_names_its_caller_through_decorators(through):
    with pytest.warns(UserWarning, match="said") as told:
        through(warn)("said")
    assert told[0].filename == __file__


def test_only_the_named_slots_change():
    mdata = simulate(n_cells=200, seed=0)
    before = {name: contents(a) for name, a in mdata.mod.items()}
    CVQVAE(mdata, epochs=2, **SMALL).fit(progress=False).embed(mdata)
    for name, adata in mdata.mod.items():
        slot = "X_lsi" if name == "atac" else "X_pca"
        after = contents(adata)
        assert set(after["obsm"]) - set(before[name]["obsm"]) == {slot, f"{slot}_further", "X_cvqvae", "X_cvqvae_quantized"}
        assert set(after["layers"]) - set(before[name]["layers"]) == {"counts"}
        assert set(after["uns"]) - set(before[name]["uns"]) == {"cvqvae_preprocessing"}
        assert set(after["obs"]) - set(before[name]["obs"]) == {"cvqvae_code"}
        assert all(after[key] == before[name][key] for key in ("X", "var", "names"))
    assert mdata.obsm["X_cvqvae"].shape == (200, 8)
    json.dumps(mdata.uns["cvqvae"])


def test_embedding_survives_a_file(fitted, tmp_path):
    import mudata

    model, mdata = fitted
    model.embed(mdata)
    mdata.write(tmp_path / "integrated.h5mu")
    again = mudata.read(tmp_path / "integrated.h5mu")
    assert np.array_equal(again.obsm["X_cvqvae"], mdata.obsm["X_cvqvae"])
    assert again.uns["cvqvae"]["preset"] == "default"
    assert again.obs["cvqvae_code"].astype(int).tolist() == model.codes(mdata)["joint"].tolist()
    assert again["rna"].obs["cvqvae_code"].astype(int).tolist() == model.codes(mdata)["rna"].tolist()


def test_cells_without_anything_measured_have_no_joint_code(fitted):
    model, mdata = fitted
    proteins = simulate(n_cells=2, kind="protein", n_genes=300)["protein"]
    proteins.obs_names = ["x", "y"]
    mosaic = MuData({"rna": mdata["rna"][:200].copy(), "atac": mdata["atac"][150:].copy(), "other": proteins})
    model.embed(mosaic)
    assert mosaic.obs_names[mosaic.obs["cvqvae_code"].isna()].tolist() == ["x", "y"]


def test_a_prediction_keeps_what_is_told_of_its_cells(fitted, tmp_path):
    model, mdata = fitted
    alone = mdata["rna"][::2].copy()
    predicted = model.translate(alone, to="atac")
    pd.testing.assert_frame_equal(predicted.obs, alone.obs)
    predicted.obs["mine"] = 1
    assert "mine" not in alone.obs
    container = MuData({"rna": alone})
    container.obs["donor"] = "d1"
    container["rna"].obs["donor"] = "d2"
    assert list(model.translate(container, to="atac").obs["donor"]) == ["d1"] * alone.n_obs
    predicted.write_h5ad(tmp_path / "predicted.h5ad")
    assert list(ad.read_h5ad(tmp_path / "predicted.h5ad").obs["cell_type"]) == list(alone.obs["cell_type"])


def test_a_saved_model_is_the_same_model(fitted, tmp_path):
    model, mdata = fitted
    model.save(tmp_path / "model")
    assert sorted(p.name for p in (tmp_path / "model").iterdir()) == ["README.md", "model.json", "model.safetensors"]
    loaded = CVQVAE.load(tmp_path / "model", device="cpu")
    new = mdata[100:180].copy()
    a, b = model.latents(new), loaded.latents(new)
    assert all(torch.equal(a[name].z, b[name].z) and torch.equal(a[name].codes, b[name].codes) for name in a if a[name].codes is not None)
    assert loaded.history.equals(model.history) and loaded.__dict__.keys() == model.__dict__.keys()
    assert loaded.modality_weights == model.modality_weights and len(set(model.modality_weights.values())) > 1
    assert np.array_equal(loaded.translate(new["rna"], "atac").X, model.translate(new["rna"], "atac").X)


def test_a_model_is_loaded_while_another_thread_draws(fitted, tmp_path):
    folder = fitted[0].save(tmp_path / "model")
    with ThreadPoolExecutor(1) as other, seeded(0, torch.device("cpu")):
        state = torch.get_rng_state()
        loaded = other.submit(CVQVAE.load, folder, "cpu").result(timeout=60)
        assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, fitted[0].module.state_dict()[name]) for name, value in loaded.module.state_dict().items())


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))], ids=["deepcopy", "pickle"])
@pytest.mark.parametrize("unpaired", ["drop", "keep"])
def test_a_copy_has_cells_of_its_own_and_the_same_bits(copied, unpaired):
    cells = simulate(n_cells=200, n_genes=200, n_peaks=400, seed=0)
    if unpaired == "keep":
        cells = {"rna": cells["rna"][:150].copy(), "atac": cells["atac"][50:].copy()}
    model = CVQVAE(cells, batch_key="batch", epochs=2, unpaired=unpaired, **SMALL).fit(progress=False)
    place = model.embed().obsm["X_cvqvae"].copy()
    model.mdata.obs["mine"], model.mdata.uns["study"] = 1, "a study"
    other = copied(model)
    assert other.mdata is not model.mdata and other.mdata["rna"] is not model.mdata["rna"] and copy.copy(model).mdata is model.mdata
    assert other.mdata.obs_names.equals(model.mdata.obs_names) and other.mdata.obs.equals(model.mdata.obs) and other.mdata.uns["study"] == "a study"
    np.testing.assert_array_equal(other.embed().obsm["X_cvqvae"], place)
    other.mdata["rna"].obsm["X_cvqvae"][:] = 0
    other.fit(epochs=1, progress=False)
    np.testing.assert_array_equal(model.embed().obsm["X_cvqvae"], place)


def test_copies_of_models_without_cells_or_with_cells_on_disk(fitted, tmp_path):
    assert copy.deepcopy(CVQVAE.load(fitted[0].save(tmp_path / "model"), device="cpu")).mdata is None
    simulate(n_cells=120, n_genes=200, n_peaks=400).write(tmp_path / "cells.h5mu")
    stored = CVQVAE(read_any(tmp_path / "cells.h5mu", backed=True), **SMALL)
    with pytest.raises(DataError, match=r"counts of rna, atac are on disk .* save\(\) the model"):
        pickle.dumps(stored)


def test_epochs_of_a_fit_are_saved_and_do_not_outlast_it(tmp_path):
    model = CVQVAE(simulate(n_cells=100, n_genes=200, n_peaks=300), epochs=3, **SMALL).fit(epochs=2, progress=False)
    assert CVQVAE.load(model.save(tmp_path / "model"), device="cpu").parameters() == model.parameters()
    assert model.parameters()["training"]["epochs"] == 2 and len(model.fit(progress=False).history) == 3


def test_a_training_that_fails_leaves_the_model_as_it_was():
    class Fail(Callback):
        def after_epoch(self, trainer):
            raise KeyboardInterrupt

    model = CVQVAE(simulate(n_cells=100, n_genes=200, n_peaks=300), epochs=2, **SMALL).fit(progress=False)
    before, parameters = model.latents()["joint"].z, model.parameters()
    with pytest.raises(KeyboardInterrupt):
        model.fit(epochs=5, callbacks=[Fail()], progress=False)
    assert torch.equal(model.latents()["joint"].z, before) and model.parameters() == parameters


def test_repeatable_and_independent_of_the_order_of_modalities_names(fitted):
    _, mdata = fitted
    runs = [CVQVAE(simulate(n_cells=150, seed=0), epochs=3, **SMALL).fit(progress=False).latents()["joint"].z for _ in range(2)]
    assert torch.equal(*runs)


def test_pair_of_anndata_and_free_names():
    mdata = simulate(n_cells=150, seed=0)
    pair = [mdata["rna"].copy(), mdata["atac"].copy()]
    a = CVQVAE(pair, epochs=2, **SMALL).fit(progress=False)
    renamed = CVQVAE({"GEX": pair[0], "open chromatin": pair[1]}, epochs=2, **SMALL).fit(progress=False)
    assert renamed.modalities == ["GEX", "open chromatin"]
    assert torch.equal(a.latents()["joint"].z, renamed.latents()["joint"].z)


@pytest.mark.parametrize("variant", list(VARIANTS))
def test_variants_embed(variant):
    mdata = simulate(n_cells=150, kind="protein", seed=0)
    model = CVQVAE(mdata, preset="paper", variant=variant, epochs=2, **SMALL).fit(progress=False)
    assert np.isfinite(model.embed().obsm["X_cvqvae"]).all()
    assert model.codes().shape[1] == (0 if variant == "cvae" else 3 if "-" in variant else 2)


def test_unknown_batch_gets_an_even_covariate():
    assert one_hot(pd.Series(["x", "b"]), ["a", "b"]).tolist() == [[0.5, 0.5], [0, 1]]


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(batch_key="lane"), "not a column of obs"),
        (dict(preset="papr"), "not one of paper, default|not one of default, paper"),
        (dict(epoch=3), "unknown setting epoch"),
        (dict(variant="vae"), "not one of"),
    ],
)
def test_bad_arguments_are_refused_before_any_work(change, message):
    with pytest.raises((DataError, ValueError, TypeError), match=message):
        CVQVAE(simulate(n_cells=60, seed=0), **change)


def test_missing_batch_labels_and_unknown_targets_are_refused(fitted):
    model, mdata = fitted
    with pytest.raises(DataError, match="not a modality"):
        model.translate(mdata["rna"], to="protein")
    broken = simulate(n_cells=60, seed=0)
    broken.obs["batch"] = broken.obs["batch"].astype(object)
    broken.obs.iloc[3, broken.obs.columns.get_loc("batch")] = None
    with pytest.raises(DataError, match="1 missing value"):
        CVQVAE(broken, batch_key="batch")


def test_loading_says_what_is_wrong_and_no_more(tmp_path):
    CVQVAE(simulate(n_cells=60, n_genes=200, n_peaks=300), n_components=5, epochs=1, hidden=(8,)).fit(progress=False).save(tmp_path / "model")
    with pytest.raises(ValueError, match="^device='gpu' cannot be used here"):
        CVQVAE.load(tmp_path / "model", device="gpu")
    with pytest.raises(DataError, match="none: no such folder"):
        CVQVAE.load(tmp_path / "none")
    with pytest.raises(DataError, match="no model.json in it"):
        CVQVAE.load(tmp_path)


ODD_SHARES = [dict(dropout=1.0), dict(input_dropout=2.0), dict(quantized_share=1.5), dict(decay=1.0), dict(agreement=1.1), dict(component_scale=1.1)]


@pytest.mark.parametrize("wrong", ODD_SHARES, ids=str)
def test_what_is_no_share_or_probability_is_refused_before_any_work(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}="):
        resolve_preset("default", **wrong)


def test_the_preset_paper_is_the_published_method():
    found = resolve_preset("paper")
    model, training = ModelConfig((50, 50), **found.model), TrainingConfig(**found.training)
    networks = (model.hidden, model.decoder_hidden, model.n_latent, model.norm, model.skip, model.routes, model.fusion, model.encoder_batch)
    assert networks == ((1024, 512, 256), None, 16, "batch", True, "cross", None, True)
    codes = (model.n_codes, model.decay, model.commitment_weight, model.shared_codebook, model.quantized_share, model.revive_below)
    assert codes == (2048, 0.99, 0.25, False, 1.0, 0.0)
    assert (model.lambda_modality, model.lambda_alignment, model.relative_alignment) == ((1.0, 1.0), 10.0, False)
    assert (model.agreement, model.component_scale) == (0.0, 0.0)
    steps = (training.epochs, training.batch_size, training.learning_rate, training.schedule, training.schedule_epochs, training.weight_decay)
    assert steps == (200, 1024, 1e-4, "cosine", 40, 0.0)


def test_presets_have_no_setting_that_is_refused():
    for name in PRESETS:
        settings = resolve_preset(name)
        again = Preset(settings.preprocessing, settings.model, settings.training)
        assert resolve_preset(again) == settings  # a preset of one's own is checked by name, type and range


def test_the_seeds_of_a_preset_of_ones_own_stand_unless_another_is_given():
    own = Preset({"n_components": 5}, {"hidden": (8,), "seed": 5}, {"seed": 7})
    mdata = simulate(n_cells=60, n_genes=200, n_peaks=300)
    seeds = [(model.config.seed, model.training.seed) for model in (CVQVAE(mdata, own), CVQVAE(mdata, own, seed=1), CVQVAE(mdata, n_components=5))]
    assert seeds == [(5, 7), (1, 1), (0, 0)]


@needs_data
@pytest.mark.parametrize("name", ["bmmc-cite-starter", "bmmc-multiome-starter"])
def test_real_cells_align_better_than_their_components(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mdata = load_dataset(name, data_home=DATA)
        model = CVQVAE(mdata, preset="paper", batch_key="batch", epochs=60, learning_rate=5e-4, device="cpu").fit(progress=False)
    first, second = (a.obsm["X_cvqvae"] for a in model.embed().mod.values())
    assert foscttm(first, second) < 0.2


@needs_data
def test_real_cells_in_another_order_pair_by_name():
    rna = ad.read_h5ad(DATA / "bmmc-cite-starter" / "rna.h5ad")
    adt = ad.read_h5ad(DATA / "bmmc-cite-starter" / "adt.h5ad")[::-1].copy()
    from cvqvae.datasets import read_pair

    mdata = read_pair(rna, adt, kinds=("rna", "protein"))
    assert all(a.obs_names.equals(mdata.obs_names) for a in mdata.mod.values())
    assert list(mdata.obs_names) == list(rna.obs_names)


# codes that are not used -------------------------------------------------------------------------------------------------------------

IDLE = dict(preset="paper", hidden=(64, 32), n_components=10, n_codes=512, epochs=20, batch_size=16, device="cpu")  # 500 steps


def warned(**changes):
    "Codes alive in the worse of the two codebooks, and the warning about them ('' for none)."
    mdata = simulate(n_cells=400, n_genes=200, n_peaks=300, seed=0)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        history = CVQVAE(mdata, **(IDLE | changes)).fit(progress=False).history
    messages = [str(w.message) for w in found if "codes are alive" in str(w.message)]
    return history[["perplexity_1", "perplexity_2"]].iloc[-1].min(), "".join(messages)


@pytest.fixture(scope="module")
def idle():
    return warned()


def test_a_codebook_that_is_hardly_used_is_a_warning(idle):
    alive, message = idle
    assert alive < 20 and message.startswith(f"Only about {alive:.0f} of 400 possible codes are alive")
    assert all(advice in message for advice in ("kmeans_codes=True", "revive_below=", "more epochs", "a smaller n_codes than 512"))


@pytest.mark.parametrize("setting", ["kmeans_codes", "revive_below", "epochs"])
def test_each_advice_alone_wakes_codes_and_ends_the_warning(idle, setting):
    values = {"kmeans_codes": True, "revive_below": float(re.search(r"revive_below=(\d*\.\d+)", idle[1])[1]), "epochs": 100}
    alive, message = warned(**{setting: values[setting]})
    assert message == "" and alive > 5 * idle[0]


def test_fewer_codes_end_the_warning_too(idle):
    alive, message = warned(n_codes=32)
    assert message == "" and alive > 0.05 * 32


def test_the_default_preset_has_nothing_to_warn_of():
    mdata = simulate(n_cells=400, n_genes=200, n_peaks=300, seed=0)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Only about")
        CVQVAE(mdata, epochs=20, device="cpu").fit(progress=False)


def test_settings_of_numpy_train_and_are_saved_like_those_of_python(tmp_path):
    mdata = simulate(n_cells=80, n_genes=200, n_peaks=300, seed=0)
    own = Preset(model={"n_codes": np.int64(16)}, training={"epochs": np.int32(2), "learning_rate": np.float64(0.01)})
    z = []
    for seed, hidden in ((1, (32,)), (np.int64(1), np.array([32]))):
        model = CVQVAE(mdata, preset=own, seed=seed, hidden=hidden, n_latent=np.int64(8), n_components=np.int64(10), device="cpu").fit(progress=False)
        model.save(tmp_path / "model", overwrite=True)
        z.append(CVQVAE.load(tmp_path / "model", device="cpu").latents(mdata)["joint"].z)
    assert torch.equal(*z)


def test_a_model_without_codes_leaves_no_codes_of_another():
    mdata = simulate(n_cells=80, n_genes=200, n_peaks=300, seed=0)
    for variant in ("cvqvae", "cvae"):
        CVQVAE(mdata, variant=variant, epochs=2, **SMALL).fit(progress=False).embed()
        assert ("cvqvae_code" in mdata.obs) is (variant == "cvqvae")
    assert "cvqvae_code" not in mdata["rna"].obs and "X_cvqvae_quantized" not in mdata["atac"].obsm


SAME = {"rna": "rna", "atac": "atac"}


def told_at_the_top(cut=False):
    "Cells whose batches and types stand in the table of the container alone."
    whole = simulate(n_cells=120, n_genes=300, n_peaks=300)
    for adata in whole.mod.values():
        adata.obs = adata.obs[[]]
    parts = {"rna": whole["rna"][:110].copy() if cut else whole["rna"].copy(), "atac": whole["atac"].copy()}
    mdata = MuData(parts)
    mdata.obs["library"] = whole.obs["batch"].reindex(mdata.obs_names).astype(str).to_numpy()
    mdata.uns["study"] = "a study"
    return mdata


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("how", [{}, {"unpaired": "keep"}, {"kinds": SAME}, {"unpaired": "keep", "kinds": SAME}])
@pytest.mark.filterwarnings("ignore")
def test_a_container_keeps_its_own_table_however_it_is_given(cut, how):
    mdata = told_at_the_top(cut)
    model = CVQVAE(mdata, batch_key="library", epochs=1, hidden=(8,), n_latent=4, n_codes=8, n_components=5, device="cpu", **how)
    assert model.reader.batches == ["batch1", "batch2"] and model.mdata.uns["study"] == "a study"
    assert model.mdata.obs["library"].astype(str).equals(mdata.obs["library"].astype(str).reindex(model.mdata.obs_names))
    assert model.fit(progress=False).embed() is model.mdata and "X_cvqvae" in model.mdata.obsm
    assert (model.mdata is mdata) == ("kinds" not in how and (not cut or how == {"unpaired": "keep"}))


def with_rubbish():
    "RNA of which three cells have no count, and proteins with two hashtags."
    mdata = simulate(n_cells=120, kind="protein", n_genes=300, n_proteins=20)
    rna, protein = mdata["rna"].copy(), mdata["protein"]
    rna.X[:3] = 0
    counts = np.hstack([protein.X.toarray(), np.full((120, 2), 5, np.float32)])
    var = pd.DataFrame({"feature_types": "Antibody Capture"}, index=[*protein.var_names, "Hashtag_1", "Hashtag_2"])
    return MuData({"rna": rna, "protein": ad.AnnData(counts, obs=protein.obs.copy(), var=var)})


def test_what_pairing_would_leave_out_of_a_container_is_told():
    mdata, small = with_rubbish(), dict(epochs=1, hidden=(8,), n_latent=4, n_codes=8, n_components=5, device="cpu")
    with pytest.warns(UserWarning, match="3 cells without a count in 'rna', 2 hashtags in 'protein', such as 'Hashtag_1': cvqvae.datasets.read_mudata"):
        assert CVQVAE(mdata, **small).mdata.n_obs == 120
    with pytest.warns(UserWarning, match="dropped: 2 hashtags protein, 3 empty cells rna"):
        clean = read_mudata(with_rubbish())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = CVQVAE(clean, **small)
    assert model.mdata.n_obs == 117 and not model.transforms["protein"].feature_names.str.startswith("Hash").any()
    with pytest.warns(UserWarning, match="join_modalities"):
        CVQVAE(with_rubbish(), unpaired="keep", **small)


def trained(kind="atac", **settings):
    mdata = simulate(n_cells=240, kind=kind, n_genes=300, n_peaks=400, n_proteins=12, seed=0)
    return CVQVAE(mdata, **{**SMALL, "epochs": 2, **settings}).fit(progress=False), mdata


def filtered(adata):
    "As `sc.pp.filter_cells` does it: half of the cells, those with most counts, in place."
    depth = np.asarray(adata.X.sum(1)).ravel()
    adata._inplace_subset_obs(depth > np.median(depth))


@pytest.mark.parametrize("settings", [{}, {"preset": "paper", "n_latent": 16}, {"preset": "paper", "variant": "cvae"}])
def test_cells_that_are_filtered_in_place_keep_their_rows(settings):
    model, mdata = trained(**settings)
    names, before = mdata.obs_names, {name: latent.z.numpy() for name, latent in model.latents().items()}
    filtered(mdata["rna"])
    mdata["atac"]._inplace_subset_obs(mdata["rna"].obs_names)
    mdata.update()
    after = model.embed().obsm["X_cvqvae"]
    assert len(after) == mdata.n_obs < len(names) and np.allclose(after, before["joint"][names.get_indexer(mdata.obs_names)], atol=1e-5)
    for name, adata in mdata.mod.items():
        assert np.allclose(adata.obsm["X_cvqvae"], before[name][names.get_indexer(adata.obs_names)], atol=1e-5)


@pytest.mark.parametrize("settings", [{}, {"preset": "paper", "variant": "cvae"}])
def test_one_modality_filtered_in_place_keeps_its_rows(settings):
    model, mdata = trained(**settings)
    names, before = mdata.obs_names, model.latents()
    filtered(mdata["rna"])
    mdata.update()
    after = model.latents()
    for name, adata in mdata.mod.items():
        assert np.allclose(after[name].z, before[name].z[names.get_indexer(adata.obs_names)], atol=1e-5)
    complete = names.get_indexer(mdata["rna"].obs_names)
    assert np.allclose(after["joint"].z[mdata.obs_names.get_indexer(names[complete])], before["joint"].z[complete], atol=1e-5)


@pytest.mark.parametrize("unpaired", ["drop", "keep"])
def test_training_after_a_filter_in_place_reads_the_right_rows(unpaired):
    mdata = simulate(n_cells=240, n_genes=300, n_peaks=400, seed=0)
    model = CVQVAE(mdata, unpaired=unpaired, epochs=1, **SMALL)
    names, before = mdata.obs_names, [part.numpy().copy() for part in model.reader.groups(mdata, fitted=True)[0][1].inputs]
    filtered(mdata["rna"])
    mdata.update()
    rows, cells = model.reader.groups(mdata, fitted=True)[0]
    at = names.get_indexer(mdata.obs_names[rows[:, -1]])
    assert len(at) == mdata["rna"].n_obs and all(np.array_equal(part, whole[at]) for part, whole in zip(cells.inputs, before))
    given, complete, trained_by = [], mdata["rna"].n_obs, integration.train
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        patch.setattr(integration, "train", lambda *a, **k: given.extend([len(a[1]), *map(len, a[5])]) or trained_by(*a, **k))
        model.fit(progress=False)
    assert given == ([complete] if unpaired == "drop" else [complete, mdata.n_obs - complete])
    assert any(f"{mdata.n_obs - complete} cells lack a modality by now" in str(one.message) for one in told) == (unpaired == "drop")


def test_training_cells_in_another_order_and_with_other_names():
    model, mdata = trained()
    before = model.latents()["joint"].z
    for adata in mdata.mod.values():
        adata._inplace_subset_obs(adata.obs_names[::-1])
    mdata.update()
    names = pd.Index(mdata["rna"].obs_names)
    assert np.allclose(model.latents()["rna"].z, model.latents(mdata.copy())["rna"].z, atol=1e-3)
    for adata in mdata.mod.values():
        adata.obs_names = "new-" + adata.obs_names
    mdata.update()
    assert np.allclose(model.latents()["joint"].z, before.flip(0), atol=1e-2)
    with pytest.raises(DataError, match="rna, atac: .* build a new CVQVAE"):
        model.fit(progress=False)
    mdata["rna"].obs_names, mdata["atac"].obs_names = names, names
    mdata["atac"]._inplace_subset_obs(names[:1])
    mdata.update()
    with pytest.raises(DataError, match="1 of the cells that are left have all of rna, atac"):
        model.fit(progress=False)


@pytest.mark.parametrize("kind, settings", [("protein", {}), ("atac", {"preset": "paper", "n_latent": 16})])
def test_a_model_keeps_its_components_whatever_becomes_of_their_slots(kind, settings):
    model, mdata = trained(kind, **settings)
    before = {name: latent.z.clone() for name, latent in model.latents().items()}
    for name, adata in mdata.mod.items():
        slot = "X_lsi" if name == "atac" else "X_pca"
        adata.obsm[slot] = np.random.default_rng(0).normal(size=adata.obsm[slot].shape).astype(np.float32)
    assert all(torch.equal(latent.z, before[name]) for name, latent in model.latents().items())
    for adata in mdata.mod.values():
        for slot in [slot for slot in adata.obsm if slot.startswith(("X_pca", "X_lsi"))]:
            del adata.obsm[slot]
    assert all(torch.equal(latent.z, before[name]) for name, latent in model.latents().items())
    assert torch.equal(model.fit(progress=False).latents()["joint"].z, before["joint"])


def test_a_second_model_of_the_same_cells_leaves_the_first_alone():
    model, mdata = trained(preset="paper", n_latent=16)
    before = model.latents()
    CVQVAE(mdata, preset="paper", n_top_genes=100, target_sum=1e4, epochs=1, **SMALL)
    assert all(torch.equal(latent.z, before[name].z) for name, latent in model.latents().items())


def test_components_of_ones_own_are_those_that_the_model_was_made_of():
    mdata = simulate(n_cells=240, n_genes=300, n_peaks=400, seed=0)
    own = np.random.default_rng(0).normal(size=(240, 6)).astype(np.float32)
    mdata["rna"].obsm["X_pca"] = own
    with pytest.warns(UserWarning, match="used as it is"):
        model = CVQVAE(mdata, epochs=1, **SMALL).fit(progress=False)
    before = model.latents()["joint"].z
    mdata["rna"].obsm["X_pca"] = own[::-1].copy()
    assert torch.equal(model.latents()["joint"].z, before)
    kept = mdata.obs_names[::3]
    for adata in mdata.mod.values():
        adata._inplace_subset_obs(kept)
    mdata.update()
    assert np.allclose(model.latents()["joint"].z, before[::3], atol=1e-5)


@pytest.mark.parametrize("preset", ["paper", "default"])
@pytest.mark.parametrize("variant", list(VARIANTS))
def test_every_variant_embeds_cells_that_lack_a_modality(preset, variant):
    whole = simulate(n_cells=200, n_genes=200, n_peaks=300, seed=0)
    pieces = {"rna": whole["rna"][:150].copy(), "atac": whole["atac"][50:].copy()}
    model = CVQVAE(pieces, preset=preset, variant=variant, unpaired="keep", **{**SMALL, "n_latent": 16}, epochs=1).fit(progress=False)
    assert all(latent.z.isfinite().all() for latent in model.latents().values())
    paired = CVQVAE(whole, preset=preset, variant=variant, **{**SMALL, "n_latent": 16}, epochs=1).fit(progress=False)
    assert np.isfinite(paired.embed(model.mdata.copy()).obsm["X_cvqvae"]).all()


def test_a_name_of_a_modality_may_begin_with_another_and_a_dot(tmp_path):
    cells = simulate(n_cells=200, kind="protein", n_genes=200, n_proteins=30, seed=0)
    parts = {"adt": cells["protein"][:, :12].copy(), "adt.b": cells["protein"][:, 12:].copy(), "rna": cells["rna"].copy()}
    kinds = {"adt": "protein", "adt.b": "protein", "rna": "rna"}
    model = CVQVAE(parts, kinds=kinds, batch_key="batch", epochs=1, **SMALL).fit(progress=False)
    loaded = CVQVAE.load(model.save(tmp_path / "model"), device="cpu")
    assert all(set(t.arrays) == set(model.transforms[name].arrays) for name, t in loaded.transforms.items())
    assert {name: a.shape for name, a in loaded.reader.anchors.items()} == {name: a.shape for name, a in model.reader.anchors.items()}
    cells = model.mdata.copy()
    assert torch.equal(loaded.latents(cells)["joint"].z, model.latents(cells)["joint"].z)


@pytest.mark.skipif(os.name != "posix", reason="links need rights elsewhere")
def test_a_model_is_saved_through_a_link_to_its_folder(fitted, tmp_path):
    model, mdata = fitted
    other = CVQVAE(mdata.copy(), epochs=1, **SMALL).fit(progress=False)
    (tmp_path / "disk").mkdir()
    model.save(tmp_path / "disk" / "first")
    link = tmp_path / "model"
    link.symlink_to(tmp_path / "disk" / "first")
    other.save(link, overwrite=True)
    assert link.is_symlink() and sorted(path.name for path in tmp_path.rglob("*") if path.is_dir() and not path.is_symlink()) == ["disk", "first"]
    assert len(CVQVAE.load(link, device="cpu").history) == len(CVQVAE.load(tmp_path / "disk" / "first", device="cpu").history) == 1
    link.unlink()
    with pytest.raises(DataError, match="no such folder"):  # not the model of before
        CVQVAE.load(link, device="cpu")


@contextmanager
def by_default(kind, value):
    "As a notebook says it; `None` is the usual again."
    change = getattr(torch, f"set_default_{kind}")
    try:
        yield change(value)
    finally:
        change({"device": None, "dtype": torch.float32}[kind])


def reset():
    "`None` stays behind, with which `torch.get_default_device` ended in an AttributeError before PyTorch 2.8."
    with by_default("device", "meta"):
        pass
    return nullcontext()


@pytest.mark.parametrize("otherwise", [lambda: by_default("device", "meta"), lambda: torch.device("meta"), reset, lambda: by_default("dtype", torch.float64)],
                         ids=["set_default_device", "with", "reset", "set_default_dtype"])  # fmt: skip
def test_what_pytorch_makes_by_default_changes_nothing(tmp_path, otherwise):
    "A device without values stands for a GPU: a notebook may ask for either as the place of every new tensor."

    def outcome(folder):
        mdata = simulate(n_cells=120, n_genes=150, n_peaks=200)
        model = CVQVAE(mdata, batch_key="batch", epochs=3, validation_fraction=0.1, **SMALL).fit(progress=False)
        model.save(folder)
        new = simulate(n_cells=120, n_genes=150, n_peaks=200)[:40].copy()
        CVQVAE.load(folder, device="cpu").embed(new)
        return [model.embed().obsm["X_cvqvae"], model.translate(mdata["rna"], to="atac").X, new["atac"].obsm["X_cvqvae"], model.codes().to_numpy()]

    usual = outcome(tmp_path / "usual")
    with otherwise():
        found = outcome(tmp_path / "other")
    for one, other in zip(usual, found, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("switched_off", [torch.no_grad, torch.inference_mode])
def test_a_model_is_trained_where_gradients_are_switched_off(switched_off):
    with switched_off():
        model = CVQVAE(simulate(n_cells=60, seed=0), epochs=1, validation_fraction=0.2, **SMALL).fit(progress=False)
    assert model.fit(progress=False).embed().obsm["X_cvqvae"].shape == (60, 8)


def test_what_a_training_warns_of_stands_at_the_callers_line():
    model = CVQVAE(simulate(n_cells=40, seed=0), epochs=1, **SMALL)
    with pytest.warns(UserWarning, match="learned by heart") as told:
        model.fit(progress=False)
    assert {warning.filename for warning in told if "by heart" in str(warning.message)} == {__file__}


def test_cells_are_translated_within_autocast(fitted):
    model, mdata = fitted
    plain = model.translate(mdata["rna"], to="atac").X
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model.translate(mdata["rna"], to="atac").X
    assert rounded.dtype == np.float32 and np.corrcoef(plain.ravel(), rounded.ravel())[0, 1] > 0.99


def test_a_column_of_tensors_in_the_history_is_saved(tmp_path):
    class Column(Callback):
        def after_epoch(self, trainer):
            trainer.row["mine"] = trainer.terms["alignment"]

    model = CVQVAE(simulate(n_cells=60, seed=0), epochs=2, **SMALL).fit(progress=False, callbacks=[Column()])
    history = CVQVAE.load(model.save(tmp_path / "model"), device="cpu").history
    assert history["mine"].tolist() == [value.item() for value in model.history["mine"]]


def test_a_model_is_saved_where_it_is_loaded_from_in_the_home_of_the_user(fitted, tmp_path, monkeypatch):
    home, here = tmp_path / "home", tmp_path / "here"
    for folder in (home, here):
        folder.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    monkeypatch.chdir(here)
    assert fitted[0].save("~/model") == home / "model"
    assert CVQVAE.load("~/model", device="cpu").kinds == fitted[0].kinds
    fitted[0].save("~/model", overwrite=True)
    CVQVAE(fitted[1].copy(), **SMALL, epochs=1).fit(progress=False, checkpoint="~/kept/run.safetensors")
    write_stored(fitted[1], "~/cells.h5mu")
    save_figure(Figure(), "~/figures/one")
    write_atomically(Path("~/a/b.txt"), lambda path: path.write_text("text"))
    written = {str(path.relative_to(home)) for path in home.rglob("*") if path.is_file() and path.parent.name != "model"}
    assert written == {"kept/run.safetensors", "cells.h5mu", "figures/one.png", "figures/one.pdf", "a/b.txt"}
    assert not list(here.iterdir())


def test_a_module_that_was_left_in_train_mode_embeds_and_translates_alike():
    model = CVQVAE(simulate(n_cells=150, n_genes=300, n_peaks=400), epochs=2, **SMALL).fit(progress=False)
    cells = model.mdata["rna"].copy()
    z, x = model.latents(cells)["rna"].z, model.translate(cells, to="atac").X
    before = {name: value.clone() for name, value in model.module.state_dict().items()}
    model.module.train()
    assert torch.equal(model.latents(cells)["rna"].z, z)
    model.module.train()
    assert np.array_equal(model.translate(cells, to="atac").X, x)
    assert all(torch.equal(value, before[name]) for name, value in model.module.state_dict().items())


def test_anchors_are_exact_within_autocast():
    models = [CVQVAE(simulate(n_cells=300, seed=0), batch_key="batch", epochs=2, **SMALL) for _ in range(2)]
    models[0].fit(progress=False)
    with torch.autocast("cpu", torch.bfloat16):
        models[1].fit(progress=False)
    first, second = (model.reader.anchors for model in models)
    assert first and all(np.array_equal(first[name], second[name]) for name in first)


def test_processes_know_a_bottleneck_of_ones_own(own):
    cells = simulate(n_cells=150, n_genes=300, n_peaks=400)
    one, two = (CVQVAE(cells.copy(), bottleneck="rounded", epochs=2, **SMALL).fit(progress=False, processes=n).history for n in (1, 2))
    assert np.allclose(one["train_loss"], two["train_loss"], rtol=1e-4)


def test_new_cells_of_one_modality_come_alone_or_in_a_container():
    mdata = simulate(n_cells=150, n_genes=300, n_peaks=400)
    model = CVQVAE(mdata, epochs=2, **SMALL).fit(progress=False)
    expected = model.embed(mdata["rna"].copy()).obsm["X_cvqvae"]
    for given in ({"rna": mdata["rna"].copy()}, [mdata["rna"].copy()]):
        assert np.array_equal(model.embed(given)["rna"].obsm["X_cvqvae"], expected)


@pytest.mark.parametrize("choices, told", [
    ({"kinds": ["rna", "atac"]}, "must say of each modality by its name"), ({"batch_key": ["batch"]}, "must be the name of one column"),
    ({"kinds": {"rna": "rna"}, "unpaired": "keep"}, "kinds= names rna, but the modalities are rna, atac"),
])  # fmt: skip
def test_arguments_of_another_shape_are_told(choices, told):
    cells = simulate(n_cells=60, n_genes=200, n_peaks=300)
    with pytest.raises(DataError, match=told):
        CVQVAE({"rna": cells["rna"], "atac": cells["atac"]}, **choices, **SMALL)


def test_a_mosaic_of_one_modality_is_told_as_that():
    with pytest.raises(DataError, match="needs two modalities, got .'rna'"):
        CVQVAE({"rna": simulate(n_cells=60, n_genes=200, n_peaks=300)["rna"]}, unpaired="keep", **SMALL)


# a bottleneck of one's own -----------------------------------------------------------------------------------------------------------


class Rounded(Bottleneck):
    "Three numbers per cell, each rounded, and a linear way there and back."

    def __init__(self, dim):
        super().__init__()
        self.down, self.up = torch.nn.Linear(dim, 3), torch.nn.Linear(3, dim)

    @classmethod
    def from_config(cls, config, n_predicted):
        return cls(config.n_latent)

    def forward(self, h):
        x = self.down(h)
        return Latent(h, self.up(x + (x.round() - x).detach()), None, 0.01 * x.square().mean())


class Renamed(QuantizedBottleneck):
    "The quantizer, under another name."


@pytest.fixture
def own(monkeypatch):
    monkeypatch.setitem(BOTTLENECKS, "rounded", Rounded)
    monkeypatch.setitem(BOTTLENECKS, "renamed", Renamed)


@pytest.fixture
def rounded(own):
    return CVQVAE(simulate(n_cells=150, n_genes=300, n_peaks=400), bottleneck="rounded", epochs=6, **SMALL).fit(progress=False)


@pytest.mark.parametrize("preset", ["paper", "default"])
def test_a_bottleneck_of_ones_own_trains(own, preset):
    choices = SMALL | {"epochs": 6, "bottleneck": "rounded", "learning_rate": 3e-3}
    models = [CVQVAE(simulate(n_cells=150, n_genes=300, n_peaks=400), preset=preset, **choices) for _ in range(2)]
    before = {name: value.clone() for name, value in models[0].module.bottlenecks.named_parameters()}
    first, second = (model.fit(progress=False).history for model in models)
    assert before and all(not torch.equal(value, before[name]) for name, value in models[0].module.bottlenecks.named_parameters())
    assert first["train_penalty_1"].iloc[0] > 0 and not [name for name in first if name.startswith(("train_commitment", "train_kl", "codes_used"))]
    assert first["train_loss"].iloc[-1] < first["train_loss"].iloc[0]
    pd.testing.assert_frame_equal(first.drop(columns="seconds"), second.drop(columns="seconds"))


def test_a_bottleneck_without_codebook_has_no_codes_and_its_decoders_read_e(rounded):
    mdata = rounded.embed()
    assert "cvqvae_code" not in mdata.obs and "X_cvqvae_quantized" not in mdata["rna"].obsm and rounded.codes().shape == (mdata.n_obs, 0)
    assert "8 dimensions, no codes (rounded)" in repr(rounded)
    with pytest.raises(DataError, match="no codes: its bottleneck is 'rounded'"):
        code_source(rounded)
    x = torch.from_numpy(np.hstack([mdata["rna"].obsm[slot] for slot in ("X_pca", "X_pca_further")]))
    with torch.no_grad():
        latent = rounded.module.encode(x, 0)
        assert torch.equal(read_out(rounded.module, latent, 0, 1), rounded.module.decode(latent.e, 1))
        assert not torch.equal(latent.e, latent.z)
        rounded.module.bottleneck_of(0).share = 0.5  # decoders know both, and there is no codebook to look for neighbours in
        both = (rounded.module.decode(latent.e, 1) + rounded.module.decode(latent.z, 1)) / 2
        torch.testing.assert_close(read_out(rounded.module, latent, 0, 1), both)


def test_a_model_with_ones_own_bottleneck_is_saved_and_says_what_it_needs(rounded, tmp_path, monkeypatch):
    folder, cells = rounded.save(tmp_path / "model"), simulate(n_cells=150, n_genes=300, n_peaks=400)
    loaded = CVQVAE.load(folder, device="cpu")
    for model in (loaded, pickle.loads(pickle.dumps(rounded)), copy.deepcopy(rounded)):
        assert np.array_equal(model.embed(cells.copy()).obsm["X_cvqvae"], rounded.embed(cells.copy()).obsm["X_cvqvae"])
        assert np.array_equal(model.translate(cells["rna"], to="atac").X, rounded.translate(cells["rna"], to="atac").X)
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert f"Bottleneck `{Rounded.__module__}.Rounded`: import the module" in card
    monkeypatch.delitem(BOTTLENECKS, "rounded")
    with pytest.raises(DataError, match=f"'rounded', the class {Rounded.__module__}.Rounded, does not come with the model: import the module") as told:
        CVQVAE.load(folder, device="cpu")
    assert "damaged" not in str(told.value)
    with pytest.raises(ValueError, match="bottleneck='rounded' is not one of .* cvqvae.bottlenecks.BOTTLENECKS"):
        CVQVAE(cells, bottleneck="rounded", **SMALL)


def test_a_quantizer_under_another_name_gives_the_same_codes(own, tmp_path):
    mdata = simulate(n_cells=150, n_genes=300, n_peaks=400)
    usual, other = (CVQVAE(mdata.copy(), bottleneck=name, epochs=3, **SMALL).fit(progress=False) for name in ("quantized", "renamed"))
    assert other.module.has_codes and usual.codes().shape[1] == 3
    pd.testing.assert_frame_equal(usual.codes(), other.codes())
    assert np.array_equal(usual.translate(mdata["rna"], to="atac").X, CVQVAE.load(other.save(tmp_path / "m")).translate(mdata["rna"], to="atac").X)
    assert "Bottleneck" not in (usual.save(tmp_path / "usual") / "README.md").read_text(encoding="utf-8")
