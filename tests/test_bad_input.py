"""Every kind of bad input ends in an error that names the place and the remedy, before any work, and leaves the caller's objects alone."""

import re

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from bad_cells import KINDS, SMALL, build, cells, contents
from hypothesis import given, settings
from hypothesis import strategies as st
from limits import without_delay

from cvqvae.checks import DataError
from cvqvae.datasets import read_any, read_pair
from cvqvae.integration import CVQVAE


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@pytest.mark.filterwarnings("ignore")
def test_bad_input_is_refused_by_name(kind, tmp_path):
    call, objects = kind.make(tmp_path)
    before = [contents(thing) for thing in objects]
    with without_delay(), pytest.raises(kind.raises) as refusal:
        call()
    message = str(refusal.value)
    for words in kind.says.split(" & "):
        assert re.search(words, message), f"{words!r} is not in: {message}"
    assert [contents(thing) for thing in objects] == before
    assert not (tmp_path / "out").exists()


def test_the_catalogue_is_large():
    assert len({kind.name for kind in KINDS}) == len(KINDS) > 100


# input that is odd and right ---------------------------------------------------------------------------------------------------------


def changed(change):
    "Apply a change to the counts of both modalities."

    def make(mdata, folder):
        return {name: ad.AnnData(change(a.X), obs=a.obs.copy(), var=a.var.copy()) for name, a in mdata.mod.items()}

    return make


def wide(matrix):
    matrix = matrix.copy()
    matrix.indices, matrix.indptr = matrix.indices.astype("int64"), matrix.indptr.astype("int64")
    return matrix


def views(mdata, folder):
    twice = ad.concat([mdata["rna"], mdata["rna"][:5].copy()], merge="same")
    twice.obs_names = [*mdata.obs_names, *"abcde"]
    return {"rna": twice[: mdata.n_obs], "atac": mdata["atac"][:, mdata["atac"].var_names]}


def backed(mdata, folder):
    for name, adata in mdata.mod.items():
        adata.write_h5ad(folder / f"{name}.h5ad")
    return read_pair(*(ad.read_h5ad(folder / f"{name}.h5ad", backed="r") for name in mdata.mod))


def file_with_a_name(name):
    def make(mdata, folder):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        mdata.write_h5mu(folder / name)
        return read_any(folder / name)

    return make


def old_encoding(mdata, folder):
    "The layout of anndata before 0.7: tables as compound arrays, sparse matrices with h5sparse_* attributes."
    for name, adata in mdata.mod.items():
        with h5py.File(folder / f"{name}.h5ad", "w") as file:
            group = file.create_group("X")
            group.attrs["h5sparse_format"], group.attrs["h5sparse_shape"] = "csr", adata.shape
            for part in ("data", "indices", "indptr"):
                group[part] = getattr(adata.X, part)
            for table, frame in (("obs", adata.obs[["batch"]].astype(str)), ("var", adata.var[[]])):
                columns = [(index.encode(), *(value.encode() for value in row)) for index, row in zip(frame.index, frame.to_numpy())]
                file[table] = np.array(columns, dtype=[(key, "S40") for key in ("index", *frame.columns)])
    return read_pair(folder / "rna.h5ad", folder / "atac.h5ad")


def with_column(values):
    def make(mdata, folder):
        mdata.obs["batch"] = values(mdata.obs["batch"].astype(str))
        return mdata

    return make


def renamed_columns(mdata, folder):
    for adata in mdata.mod.values():
        adata.obs["cvqvae_code"], adata.obs["X_cvqvae"], adata.uns["cvqvae"] = "mine", 1.0, {"preset": "mine"}
    mdata.obs["donor id/run (é)"] = 1
    return mdata


GOOD = {
    "as it is": lambda mdata, folder: mdata,
    "views": views,
    "CSC": changed(sp.csc_matrix),
    "COO, as AnnData takes it": changed(lambda x: sp.csr_matrix(sp.coo_matrix(x))),
    "dense": changed(lambda x: x.toarray()),
    "dense in Fortran order": changed(lambda x: np.asfortranarray(x.toarray())),
    "float64": changed(lambda x: x.astype("float64")),
    "float16": changed(lambda x: x.toarray().astype("float16")),
    "another machine's byte order": changed(lambda x: x.toarray().astype(">f4")),
    "int32": changed(lambda x: x.astype("int32")),
    "uint16": changed(lambda x: x.astype("uint16")),
    "64-bit indices": changed(wide),
    "sparse arrays": changed(sp.csr_array),
    "unsorted indices": changed(lambda x: x[:, ::-1][:, ::-1]),
    "backed": backed,
    "a file name with spaces and Unicode": file_with_a_name("my cells/Zellen für Ü β.h5mu"),
    "old anndata encoding": old_encoding,
    "a list": lambda mdata, folder: [mdata["rna"], mdata["atac"]],
    "cells in another order": lambda mdata, folder: [mdata["rna"], mdata["atac"][::-1].copy()],
    "batches that are integers": with_column(lambda b: b.str[-1].astype(int)),
    "batches that are whole floats": with_column(lambda b: b.str[-1].astype(float)),
    "batches that are booleans": with_column(lambda b: b == "batch2"),
    "batches with unused levels": with_column(lambda b: pd.Categorical(b, categories=["none", "batch1", "batch2", "x"])),
    "columns with our names": renamed_columns,
}


def embedding(data):
    model = CVQVAE(data, batch_key="batch", **{**SMALL, "epochs": 2}).fit(progress=False)
    return model.latents()["joint"].z.numpy()


@pytest.fixture(scope="module")
def plain():
    return embedding(cells())


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.filterwarnings("ignore")
def test_odd_input_gives_the_same_embedding(name, plain, tmp_path):
    data = GOOD[name](cells(), tmp_path)
    before = unnamed(data)
    found = embedding(data)
    np.testing.assert_allclose(found, plain, atol=2e-3)
    assert unnamed(data) == before


COMPONENTS = {"X_pca", "X_lsi", "X_pca_further", "X_lsi_further"}
NAMED = {"layers": {"counts"}, "obsm": COMPONENTS, "uns": {"cvqvae_preprocessing"}}  # what the constructor of a model says that it sets


def unnamed(data):
    "A hash of every slot of the caller's objects that may not change."
    parts = data if isinstance(data, list) else list(data.values()) if isinstance(data, dict) else [data, *data.mod.values()]
    slots = []
    for part in parts:
        held = {name: {k: v for k, v in (getattr(part, name, None) or {}).items() if k not in kept} for name, kept in NAMED.items()}
        own = {key: value for key, value in held["obsm"].items() if key not in getattr(part, "mod", {})}
        slots += [contents(part.obs), contents(part.var), contents(held["uns"]), contents(held["layers"]), contents(own), contents(getattr(part, "X", None))]
    return slots


@pytest.mark.filterwarnings("ignore")
def test_embedding_changes_only_the_slots_that_it_names():
    mdata = cells()
    model = CVQVAE(mdata, batch_key="batch", **SMALL).fit(progress=False)
    before = mdata.copy()
    model.embed(mdata)
    for name, adata in mdata.mod.items():
        assert set(adata.obsm) - set(before[name].obsm) == {"X_cvqvae", "X_cvqvae_quantized"}
        assert set(adata.obs) - set(before[name].obs) == {"cvqvae_code"}
        del adata.obs["cvqvae_code"], adata.obsm["X_cvqvae"], adata.obsm["X_cvqvae_quantized"]
        assert contents(adata) == contents(before[name])
    del mdata.obsm["X_cvqvae"], mdata.uns["cvqvae"]
    assert contents(mdata.uns) == contents(before.uns) and contents(mdata.obsm) == contents(before.obsm)
    pd.testing.assert_frame_equal(mdata.obs[before.obs.columns], before.obs)


@pytest.mark.filterwarnings("ignore")
def test_a_view_of_a_file_is_refused_before_it_is_embedded(tmp_path):
    mdata = cells()
    model = CVQVAE(mdata, **SMALL).fit(progress=False)
    mdata["rna"].write_h5ad(tmp_path / "rna.h5ad")
    there = ad.read_h5ad(tmp_path / "rna.h5ad", backed="r")
    with pytest.raises(DataError, match="to_memory"):
        model.embed(there[:20])
    np.testing.assert_allclose(model.embed(there[:20].to_memory()).obsm["X_cvqvae"], model.embed(mdata["rna"][:20].copy()).obsm["X_cvqvae"], atol=1e-5)


@pytest.mark.parametrize("names, message", [(["2-Sep", "1-Mar"], "are dates"), (["0", "1", "2"], "names were lost")])
def test_names_that_were_lost_are_a_warning(names, message):
    mdata = cells()
    mdata["rna"].var_names = [*names, *mdata["rna"].var_names[len(names) :]]
    with pytest.warns(UserWarning, match=message):
        build(mdata)()


ODD = st.sampled_from([0, 1, 3, 255, 2**24, 2**31, 1e12, -1, 0.5, float("nan"), float("inf"), -0.0])
LABELS = st.sampled_from(["a", "b", "", "T/NK", "Ü 細胞", "$x_{", None, 1, 2.0, True, float("nan")])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["rna", "atac"]), st.integers(0, 59), st.integers(0, 99), ODD), max_size=3), st.lists(LABELS, min_size=1, max_size=3),
       st.integers(2, 60), st.sampled_from(["csr", "csc", "dense", "int64", "float64", "bool"]))
@pytest.mark.filterwarnings("ignore")
def test_any_cells_are_embedded_or_refused_by_name(changes, labels, n, form):
    mdata = cells()
    for name, row, column, value in changes:
        matrix = mdata[name].X.tolil()
        matrix[row, column] = value
        mdata[name].X = matrix.tocsr()
    parts = {name: a[:n].copy() for name, a in mdata.mod.items()}
    for adata in parts.values():
        adata.obs["batch"] = pd.Series([labels[i % len(labels)] for i in range(n)], adata.obs_names, dtype=object)
        if form in ("int64", "bool") and not np.isfinite(adata.X.data).all():
            continue
        adata.X = {"csr": adata.X.tocsr, "csc": adata.X.tocsc, "dense": adata.X.toarray}.get(form, lambda a=adata: a.X.astype(form))()
    before = [contents(part) for part in parts.values()]
    try:
        model = CVQVAE(parts, batch_key="batch", **SMALL).fit(progress=False)
    except DataError as error:
        assert re.search("'(rna|atac)'|batch|cells", str(error))
    else:
        assert np.isfinite(model.latents()["joint"].z.numpy()).all()
    assert [contents(part) for part in parts.values()] == before


@pytest.mark.parametrize("cut", [dict(n=2), dict(n=3), dict(n=7)])
@pytest.mark.filterwarnings("ignore")
def test_very_few_cells_are_embedded_or_refused_by_name(cut):
    mdata = cells()[: cut["n"]].copy()
    try:
        found = CVQVAE(mdata, **SMALL).fit(progress=False).embed(mdata)
    except DataError as error:
        assert "too few cells" in str(error)
    else:
        assert np.isfinite(found.obsm["X_cvqvae"]).all()


@pytest.mark.filterwarnings("ignore")
def test_new_cells_whose_batches_are_floats_are_the_same_batches():
    mdata = cells()
    mdata.obs["batch"] = mdata.obs["batch"].astype(str).str[-1].astype(int)
    model = CVQVAE(mdata, batch_key="batch", **SMALL).fit(progress=False)
    whole, again = cells(), cells()
    whole.obs["batch"] = mdata.obs["batch"]
    expected = model.latents(whole)["joint"].z.numpy()
    again.obs["batch"] = mdata.obs["batch"].astype(float)
    np.testing.assert_array_equal(model.latents(again)["joint"].z.numpy(), expected)


@pytest.mark.filterwarnings("ignore")
def test_a_result_with_odd_names_can_be_written_and_read(tmp_path):
    import mudata

    rna, atac = (part.copy() for part in cells().mod.values())
    mdata = mudata.MuData({"GEX of run 3": rna, "öffenes Chromatin": atac})
    model = CVQVAE(mdata, **SMALL).fit(progress=False)
    model.embed(mdata).write_h5mu(tmp_path / "out.h5mu")
    model.save(tmp_path / "model")
    again = CVQVAE.load(tmp_path / "model", device="cpu").embed(mudata.read_h5mu(tmp_path / "out.h5mu"))
    np.testing.assert_allclose(again.obsm["X_cvqvae"], mdata.obsm["X_cvqvae"], atol=1e-3)
