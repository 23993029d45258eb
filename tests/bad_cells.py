"""Cells that nobody should have to debug: a catalogue of what goes wrong with them, used by tests and by the robustness report."""

import bz2
import gzip
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass

import anndata as ad
import h5py
import mudata
import numpy as np
import pandas as pd
import psutil
import scipy.sparse as sp

from cvqvae.cells import DataError
from cvqvae.datasets import read_any, read_mudata, read_pair
from cvqvae.integration import CVQVAE
from cvqvae.parameters import Parameters, checked, columns_of, load_cells, read_parameters
from cvqvae.runs import run_analysis
from cvqvae.simulation import simulate

SMALL = dict(hidden=(16,), n_latent=4, n_codes=8, n_components=6, batch_size=32, epochs=1, device="cpu")


@dataclass(frozen=True)
class Kind:
    "One way in which input goes wrong."

    name: str  # for people
    says: str  # regular expressions that the message must match, separated by " & "
    make: Callable  # folder -> (call without arguments, the caller's objects)
    raises: type = DataError  # settings, which are no data, raise ValueError


KINDS: list[Kind] = []


def kind(name, says):
    return lambda make: KINDS.append(Kind(name, says, make)) or make


def cells(n=60, **options):
    return simulate(n_cells=n, n_genes=150, n_peaks=200, **options)


def pair(n=60):
    mdata = cells(n)
    return mdata["rna"].copy(), mdata["atac"].copy()


def build(data, **options):
    return lambda: CVQVAE(data, **{**SMALL, **options})


def contents(value, digest=None):
    "A hash of everything that an AnnData, a MuData or a part of one holds."
    digest, top = digest or hashlib.sha256(), digest is None
    if isinstance(value, mudata.MuData):
        parts = [value.mod, value.obs, value.var, value.uns, value.obsm]
    elif isinstance(value, ad.AnnData):
        parts = [value.X, value.layers, value.obs, value.var, value.uns, value.obsm, value.varm, value.obsp]
    elif sp.issparse(value):
        parts = [value.format, value.shape, *([value.data, value.indices, value.indptr] if value.format in ("csr", "csc") else [value.toarray()])]
    elif isinstance(value, pd.DataFrame):
        parts = [list(value.columns), list(map(str, value.dtypes)), value.index.to_numpy(), *(value[column].to_numpy() for column in value)]
    elif hasattr(value, "items"):
        parts = [part for key in sorted(value) for part in (key, value[key])]
    else:
        parts = None
        if isinstance(value, np.ndarray) and value.dtype != object:
            digest.update(f"{value.dtype}{value.shape}".encode() + value.tobytes())
        else:
            digest.update(repr(value.tolist() if isinstance(value, np.ndarray) else value).encode())
    for part in parts or []:
        contents(part, digest)
    return digest.hexdigest() if top else None


# cells that do not pair --------------------------------------------------------------------------------------------------------------


def named(rna, atac, **kinds):
    return (lambda: read_pair(rna, atac)), [rna, atac]


@kind("no cell name is shared", "'cell000000' & 'x_cell000000' & spellings agree")
def _(folder):
    rna, atac = pair()
    atac.obs_names = "x_" + atac.obs_names
    return named(rna, atac)


@kind("the barcodes of one file end in -1", "'cell000000-1' & spellings agree")
def _(folder):
    rna, atac = pair()
    rna.obs_names = rna.obs_names + "-1"
    return named(rna, atac)


@kind("cells are numbered, names were lost in one file", "No cell name is shared & '0' & spellings agree")
def _(folder):
    rna, atac = pair()
    atac.obs_names = [str(i) for i in range(60)]
    return named(rna, atac)


@kind("a cell occurs twice", "'rna' & 1 duplicated cell name, such as 'cell000000' & remove the repeats")
def _(folder):
    rna, atac = pair()
    rna.obs_names = ["cell000000", *rna.obs_names[:1], *rna.obs_names[2:]]
    return named(rna, atac)


@kind("a cell occurs twice in a MuData", "'rna' & duplicated cell name & remove the repeats")
def _(folder):
    rna, atac = pair()
    names = ["same", "same", *rna.obs_names[2:]]
    rna.obs_names = atac.obs_names = names
    mdata = mudata.MuData({"rna": rna, "atac": atac})
    return build(mdata), [mdata]


@kind("a gene occurs twice", "'rna' & duplicated feature name & var_names_make_unique")
def _(folder):
    rna, atac = pair()
    rna.var_names = ["CD34", "CD34", *rna.var_names[2:]]
    return named(rna, atac)


@kind("a gene occurs twice in a MuData", "'rna' & duplicated feature name & var_names_make_unique")
def _(folder):
    mdata = cells()
    mdata["rna"].var_names = ["CD34", "CD34", *mdata["rna"].var_names[2:]]
    return build(mdata), [mdata]


@kind("one modality", "two modalities, got & rna")
def _(folder):
    rna, _ = pair()
    return build({"rna": rna}, kinds={"rna": "rna"}), [rna]


@kind("two modalities of the same kind in a list", "two modalities & rna & dict")
def _(folder):
    mdata = cells()
    data = [mdata["rna"], mdata["rna"]]
    return build(data), data


@kind("a modality without cells", "'atac' is empty: 0 cells")
def _(folder):
    rna, atac = pair()
    return named(rna, atac[:0].copy())


@kind("a modality without features", "'rna' is empty: 60 cells x 0 features")
def _(folder):
    rna, atac = pair()
    return named(rna[:, :0].copy(), atac)


@kind("a modality without a matrix", "'rna' & no matrix & layers")
def _(folder):
    rna, atac = pair()
    rna = ad.AnnData(obs=rna.obs, var=rna.var)
    return named(rna, atac)


@kind("a single shared cell", "'rna' & too few cells")
def _(folder):
    rna, atac = pair()
    data = [rna, atac[:1].copy()]
    return build(data), data


@kind("cells and features transposed", "transpose both")
def _(folder):
    rna, atac = pair()
    return named(rna.T.copy(), atac.T.copy())


# values that are no counts -----------------------------------------------------------------------------------------------------------


def spoiled(value, name="rna", dense=False):
    mdata = cells()
    matrix = mdata[name].X.toarray()
    matrix[3, 4] = value
    mdata[name].X = matrix if dense else sp.csr_matrix(matrix)
    return build(mdata), [mdata]


for _value, _words in {np.nan: "NaN", np.inf: "infinite", -1: "negative", 0.5: "no whole numbers"}.items():
    for _name in ("rna", "atac"):
        for _dense in (False, True):
            KINDS.append(Kind(f"{_words} in {'dense' if _dense else 'sparse'} {_name}", f"X of '{_name}' & {_words} & layers\\['counts'\\]",
                              lambda folder, v=_value, n=_name, d=_dense: spoiled(v, n, d)))


@kind("normalised counts", "X of 'rna' & normalised & raw counts")
def _(folder):
    mdata = cells()
    mdata["rna"].X = mdata["rna"].X.multiply(1 / mdata["rna"].X.sum(1)).tocsr()
    return build(mdata), [mdata]


@kind("logarithms of proteins", "'protein' & log-transformed & raw counts")
def _(folder):
    mdata = simulate(n_cells=60, kind="protein", n_genes=150)
    mdata["protein"].X = mdata["protein"].X.log1p()
    return build(mdata), [mdata]


@kind("a counts layer that holds none", "layers\\['counts'\\] of 'atac' & no whole numbers")
def _(folder):
    mdata = cells()
    mdata["atac"].layers["counts"] = mdata["atac"].X * 0.3
    return build(mdata), [mdata]


@kind("text in the matrix", "X of 'rna' & <U1 instead of numbers")
def _(folder):
    rna, atac = pair()
    rna.X = np.full(rna.shape, "3")
    return named(rna, atac)


@kind("complex numbers in the matrix", "X of 'rna' & complex128 instead of numbers")
def _(folder):
    rna, atac = pair()
    rna.X = rna.X.astype(complex)
    return named(rna, atac)


@kind("objects in the matrix", "X of 'rna' & object instead of numbers")
def _(folder):
    rna, atac = pair()
    rna.X = rna.X.toarray().astype(object)
    return named(rna, atac)


@kind("counts near the end of floating point", "'rna' & larger than & counts")
def _(folder):
    return spoiled(3e38)


@kind("counts beyond the whole numbers of float32", "'rna' & larger than & counts")
def _(folder):
    return spoiled(1e12)


@kind("no count at all in one modality", "Without a single count & filter_cells")
def _(folder):
    rna, atac = pair()
    atac.X = sp.csr_matrix(atac.shape, dtype="float32")
    return named(rna, atac)


@kind("an empty cell, and empty cells are errors", "1 empty cell rna & empty='drop'")
def _(folder):
    from cvqvae.cells import pair_modalities

    rna, atac = pair()
    rna.X = rna.X.multiply((np.arange(60) > 0)[:, None]).tocsr()
    return (lambda: pair_modalities({"rna": rna, "atac": atac}, {"rna": "rna", "atac": "atac"}, empty="error")), [rna, atac]


@kind("a single feature", "Without a single count & filter_cells")
def _(folder):
    rna, atac = pair()
    data = [rna[:, :1].copy(), atac[:, :1].copy()]
    return build(data), data


# kinds and names ---------------------------------------------------------------------------------------------------------------------


@kind("the files are swapped", "'rna' & genomic regions & swap")
def _(folder):
    rna, atac = pair()
    return (lambda: read_pair(atac, rna)), [rna, atac]


@kind("peaks given as proteins", "'protein' & genomic regions & 'atac'")
def _(folder):
    rna, atac = pair()
    return (lambda: read_pair(rna, atac, kinds=("rna", "protein"))), [rna, atac]


@kind("a whole transcriptome given as proteins", "'protein' & no antibody panel & RNA")
def _(folder):
    mdata = simulate(n_cells=60, n_genes=1200, n_peaks=200)
    return (lambda: read_pair(mdata["rna"], mdata["rna"], kinds=("rna", "protein"))), [mdata]


@kind("an unknown kind", "'methylation' & rna, atac, protein")
def _(folder):
    rna, atac = pair()
    return build({"a": rna, "b": atac}, kinds={"a": "rna", "b": "methylation"}), [rna, atac]


@kind("nothing declared", "'one' & declare_kind")
def _(folder):
    mdata = cells()
    for adata in mdata.mod.values():
        del adata.var["feature_types"]
    mdata = mudata.MuData({"one": mdata["rna"], "two": mdata["atac"]})
    return build(mdata), [mdata]


@kind("mixed kinds in one modality", "'rna' & mixes kinds & split")
def _(folder):
    mdata = cells()
    mdata["rna"].var["feature_types"] = ["Peaks"] * 9 + ["Gene Expression"] * (mdata["rna"].n_vars - 9)
    return build(mdata), [mdata]


@kind("a missing declaration of one feature", "feature_types & 'rna' & missing & fill them")
def _(folder):
    mdata = cells()
    mdata["rna"].var["feature_types"] = [None] + ["Gene Expression"] * (mdata["rna"].n_vars - 1)
    return build(mdata), [mdata]


@kind("kinds= that name other modalities", "gex & rna, atac")
def _(folder):
    mdata = cells()
    return build(mdata, kinds={"gex": "rna", "atac": "atac"}), [mdata]


@kind("kinds= that name fewer modalities than a pair has", "atac & kinds")
def _(folder):
    rna, atac = pair()
    return build({"rna": rna, "atac": atac}, kinds={"rna": "rna"}), [rna, atac]


@kind("a modality named as the joint embedding", "'joint' & rename")
def _(folder):
    rna, atac = pair()
    return build({"rna": rna, "joint": atac}), [rna, atac]


@kind("a modality name with a slash", "'rna/1' & rename")
def _(folder):
    rna, atac = pair()
    return build({"rna/1": rna, "atac": atac}), [rna, atac]


@kind("a modality name that is no text", "0 & name")
def _(folder):
    rna, atac = pair()
    return build({0: rna, 1: atac}), [rna, atac]


@kind("something else than cells", "MuData & DataFrame")
def _(folder):
    table = pd.DataFrame({"a": [1, 2]})
    return build(table), [table]


@kind("a path where cells are expected", "str & read_any")
def _(folder):
    return build("cells.h5mu"), []


@kind("arrays where AnnData are expected", "AnnData & list")
def _(folder):
    data = [np.ones((5, 5)), np.ones((5, 5))]
    return build(data), data


# columns -----------------------------------------------------------------------------------------------------------------------------


def column(values, key="batch", batch_key="batch"):
    mdata = cells()
    mdata.obs[key] = values
    return build(mdata, batch_key=batch_key), [mdata]


@kind("a batch column that is not there", "batch_key='lane' & not a column & cell_type")
def _(folder):
    return column("a", batch_key="lane")


@kind("a batch column in which the modalities disagree", "batch_key='lane' & differs between the modalities")
def _(folder):
    mdata = cells()
    mdata["rna"].obs["lane"], mdata["atac"].obs["lane"] = "a", "b"
    return build(mdata, batch_key="lane"), [mdata]


@kind("missing batches", "obs\\['batch'\\] & 1 missing & fill or drop")
def _(folder):
    return column([None, *["a", "b"] * 29, "a"])


@kind("missing numeric batches", "obs\\['batch'\\] & 2 missing & fill or drop")
def _(folder):
    return column([np.nan, np.nan, *[1.0, 2.0] * 29])


@kind("a batch of its own for every cell", "obs\\['batch'\\] & 60 batches & 60 cells")
def _(folder):
    return column([f"b{i}" for i in range(60)])


@kind("a measurement given as batch", "obs\\['pseudotime'\\] & batches & cells")
def _(folder):
    return column("a", batch_key="pseudotime")


@kind("a batch column that occurs twice", "obs\\['batch'\\] & twice|2 columns")
def _(folder):
    mdata = cells()
    obs = pd.concat([mdata.obs, mdata.obs[["batch"]]], axis=1)
    mdata.obs = obs
    return build(mdata, batch_key="batch"), [mdata]


@kind("a batch key that is no text", "batch_key & 3 & column")
def _(folder):
    mdata = cells()
    return build(mdata, batch_key=3), [mdata]


# components given by the caller ------------------------------------------------------------------------------------------------------


def given(values):
    mdata = cells()
    mdata["rna"].obsm["X_pca"] = values
    return build(mdata), [mdata]


@kind("NaN in given components", "'rna' & X_pca & NaN & del")
def _(folder):
    return given(np.where(np.eye(60, 6) > 0, np.nan, 1.0))


@kind("infinity in given components", "'rna' & X_pca & infinite & del")
def _(folder):
    return given(np.where(np.eye(60, 6) > 0, np.inf, 1.0))


@kind("given components beyond float32", "'rna' & X_pca & infinite")
def _(folder):
    return given(np.full((60, 6), 1e300))


@kind("given components that do not vary", "'rna' & X_pca & does not vary")
def _(folder):
    return given(np.ones((60, 6)))


@kind("given components of text", "'rna' & X_pca & numbers")
def _(folder):
    return given(np.full((60, 6), "a"))


# settings ----------------------------------------------------------------------------------------------------------------------------


for _name, _options, _says in [
    ("no components", dict(n_components=0), "n_components & at least 1"),
    ("a negative number of components", dict(n_components=-5), "n_components & at least 1"),
    ("half a component", dict(n_components=2.5), "n_components & whole number"),
    ("no code", dict(n_codes=0), "n_codes"),
    ("no latent dimension", dict(n_latent=0), "n_latent"),
    ("no epoch", dict(epochs=0), "epochs >= 1|epochs & at least 1"),
    ("epochs as text", dict(epochs="ten"), "epochs"),
    ("a learning rate of NaN", dict(learning_rate=float("nan")), "learning_rate"),
    ("a negative learning rate", dict(learning_rate=-1.0), "learning_rate"),
    ("a batch of one cell", dict(batch_size=1), "batch_size >= 2|batch_size & at least 2"),
    ("an unknown preset", dict(preset="papr"), "'papr' & paper"),
    ("an unknown variant", dict(variant="vae"), "'vae' & cvqvae-avg"),
    ("an unknown device", dict(device="tpu9"), "tpu9 & cpu"),
    ("a negative seed", dict(seed=-1), "seed"),
    ("a seed beyond 32 bits", dict(seed=2**40), "seed"),
]:
    KINDS.append(Kind(_name, _says, lambda folder, o=_options: (build(cells(), **o), []), ValueError))


# files -------------------------------------------------------------------------------------------------------------------------------


def files(folder):
    mdata = cells()
    for name, adata in mdata.mod.items():
        adata.write_h5ad(folder / f"{name}.h5ad")
    mdata.write_h5mu(folder / "cells.h5mu")
    return folder


def read(folder, name="rna.h5ad", reader=None):
    return (lambda: reader(folder / name) if reader else read_pair(folder / name, folder / "atac.h5ad")), []


@kind("NaN in a file", "rna.h5ad & X of 'rna' & NaN & layers")
def _(folder):
    mdata = cells()
    mdata["rna"].X.data[3] = np.nan
    files(folder)
    mdata["rna"].write_h5ad(folder / "rna.h5ad")
    return read(folder)


@kind("a cell twice in a container", "cells.h5mu & 'rna' & duplicated cell name")
def _(folder):
    with h5py.File(files(folder) / "cells.h5mu", "r+") as file:
        file["mod/rna/obs/_index"][1] = "cell000000"
    return read(folder, "cells.h5mu", read_mudata)


@kind("a missing file", "none.h5ad & no such file & spelling")
def _(folder):
    return read(files(folder), "none.h5ad")


@kind("a folder instead of a file", "a.zarr is a folder & read_zarr")
def _(folder):
    (files(folder) / "a.zarr").mkdir()
    return read(folder, "a.zarr")


@kind("an empty file", "rna.h5ad & 0 bytes & copy it again")
def _(folder):
    (files(folder) / "rna.h5ad").write_bytes(b"")
    return read(folder)


@kind("a truncated file", "rna.h5ad & truncated & copy it again")
def _(folder):
    path = files(folder) / "rna.h5ad"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return read(folder)


@kind("a file of zeros", "rna.h5ad & cannot be opened")
def _(folder):
    (files(folder) / "rna.h5ad").write_bytes(bytes(10_000))
    return read(folder)


@kind("a file with a damaged middle", "rna.h5ad & no readable|truncated")
def _(folder):
    path = files(folder) / "rna.h5ad"
    content = bytearray(path.read_bytes())
    content[800 : len(content) - 100] = bytes(len(content) - 900)
    path.write_bytes(content)
    return read(folder)


@kind("a text file with the wrong ending", "rna.h5ad & another format")
def _(folder):
    (files(folder) / "rna.h5ad").write_text("gene,cell\n1,2\n")
    return read(folder)


@kind("a web page saved instead of the file", "rna.h5ad & web page & download")
def _(folder):
    (files(folder) / "rna.h5ad").write_text("<!DOCTYPE html><html><body>Please log in</body></html>")
    return read(folder)


@kind("a pointer of git-lfs instead of the file", "rna.h5ad & git lfs pull")
def _(folder):
    (files(folder) / "rna.h5ad").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n")
    return read(folder)


@kind("a packed file", "rna.h5ad.gz & gunzip")
def _(folder):
    (files(folder) / "rna.h5ad.gz").write_bytes(gzip.compress((folder / "rna.h5ad").read_bytes()))
    return read(folder, "rna.h5ad.gz")


@kind("HDF5 without cells in it", "rna.h5ad & no readable .h5ad")
def _(folder):
    with h5py.File(files(folder) / "rna.h5ad", "w") as file:
        file["numbers"] = [1, 2]
    return read(folder)


@kind("a .h5mu given as .h5ad", "rna.h5ad & --mudata|read_mudata")
def _(folder):
    (files(folder) / "rna.h5ad").write_bytes((folder / "cells.h5mu").read_bytes())
    return read(folder)


@kind("a .h5ad given as .h5mu", "cells.h5mu & no readable .h5mu|two modalities")
def _(folder):
    (files(folder) / "cells.h5mu").write_bytes((folder / "rna.h5ad").read_bytes())
    return read(folder, "cells.h5mu", read_mudata)


@kind("one assay in a file for two", "feature_types|Two kinds")
def _(folder):
    return read(files(folder), "rna.h5ad", read_any)


@kind("an unknown ending", "cells.rds & .h5mu, .h5, .h5ad")
def _(folder):
    (files(folder) / "cells.rds").write_bytes(b"x")
    return read(folder, "cells.rds", read_any)


@kind("an index that points outside of the matrix", "'rna' is damaged & index & Copy")
def _(folder):
    with h5py.File(files(folder) / "rna.h5ad", "r+") as file:
        file["X/indices"][5] = 100_000
    return read(folder)


@kind("row pointers that run backwards", "'rna' is damaged & index & Copy")
def _(folder):
    with h5py.File(files(folder) / "rna.h5ad", "r+") as file:
        pointers = file["X/indptr"][:]
        pointers[3], pointers[4] = pointers[4], pointers[3] - 1
        file["X/indptr"][...] = pointers
    return read(folder)


@kind("a matrix of another size than its tables", "rna.h5ad & no readable")
def _(folder):
    with h5py.File(files(folder) / "rna.h5ad", "r+") as file:
        file["X"].attrs["shape"] = [59, 149]
    return read(folder)


@kind("a small file that claims to be a huge one", "rna.h5ad & GiB & memory")
def _(folder):
    with h5py.File(files(folder) / "rna.h5ad", "r+") as file:
        file["obsm"].create_dataset("X_bomb", shape=(60, 10**11), chunks=(1, 1024), dtype="float32")
    return read(folder)


@kind("a file that reads another file", "rna.h5ad & obsm/X_link & another file")
def _(folder):
    with h5py.File(folder / "secret.h5", "w") as file:
        file["key"] = np.ones((60, 2))
    with h5py.File(files(folder) / "rna.h5ad", "r+") as file:
        file["obsm/X_link"] = h5py.ExternalLink(str(folder / "secret.h5"), "key")
    return read(folder)


@kind("a file whose numbers lie in another file", "rna.h5ad & obsm/X_raw & another file")
def _(folder):
    (folder / "secret").write_bytes(bytes(range(240)) * 4)
    with h5py.File(files(folder) / "rna.h5ad", "r+") as file:
        file["obsm"].create_dataset("X_raw", (60, 4), "float32", external=[(str(folder / "secret"), 0, 960)])
    return read(folder)


def packed_twice(content):
    return bz2.compress(bz2.compress(content))


def stored(about, *contents):
    "Read a zarr folder with one array in it, of 60 entries, that has these chunks."

    def make(folder):
        place = folder / "cells.zarr" / "obs" / "age"
        place.mkdir(parents=True)
        own = {"zarr_format": 2, "shape": [60], "chunks": [60], "dtype": "<f4", "fill_value": 0, "order": "C", "filters": None, "compressor": None}
        (place / ".zarray").write_text(json.dumps(own | about))
        for i, content in enumerate(contents):
            (place / str(i)).write_bytes(content)
        return (lambda: read_any(folder / "cells.zarr", backed=True)), []

    return make


_BLOSC = bytes([2, 1, 0, 4, *(2**31 - 1).to_bytes(4, "little"), *bytes(8)])  # the head of a chunk
_ZSTD = bytes.fromhex("28b52ffd0058") + 1000 * bytes.fromhex("02001030") + bytes.fromhex("0b000030")  # a frame of blocks that repeat one byte
for _name, _says, _about, _chunks in [
    ("a zarr chunk that unpacks to more than it declares", "unpacks to more than the 240 bytes", {"compressor": {"id": "bz2"}}, [bz2.compress(bytes(2**24))]),
    ("a zarr chunk of many gzip files", "longer than|unpacks to more", {"compressor": {"id": "gzip"}}, [800 * gzip.compress(bytes(2**19), 1)]),
    ("a zarr chunk that claims two gigabytes", "unpacks to more than the 240 bytes", {"compressor": {"id": "blosc"}}, [_BLOSC]),
    ("a zarr chunk that does not say what it holds", "unpacks to more than the 240 bytes", {"compressor": {"id": "zstd"}}, [_ZSTD]),
    ("a zarr chunk that is packed twice", "compressed twice", {"filters": [{"id": "bz2"}], "compressor": {"id": "bz2"}}, [packed_twice(bytes(240))]),
    ("a zarr chunk packed in an unknown way", "not looked into", {"compressor": {"id": "zfpy"}}, [b"x"]),
    ("zarr entries that become longer", "not looked into", {"filters": [{"id": "astype", "encode_dtype": "<f4", "decode_dtype": "<U1000000"}]}, [bytes(240)]),
    ("a zarr chunk of endless texts", "texts may take", {"dtype": "|O", "filters": [{"id": "vlen-utf8"}], "compressor": {"id": "blosc"}}, [_BLOSC]),
    ("a zarr chunk that is no chunk", "damaged", {"compressor": {"id": "zstd"}}, [b"<!DOCTYPE html>"]),
]:
    KINDS.append(Kind(_name, f"cells.zarr & obs/age & {_says} & write|copy", stored(_about, *_chunks)))


@kind("zarr texts that are too many together", "cells.zarr claims & GiB & memory")
def _(folder):
    head = _BLOSC[:4] + (2**28).to_bytes(4, "little") + _BLOSC[8:]
    about = {"shape": [60_000], "dtype": "|O", "filters": [{"id": "vlen-utf8"}], "compressor": {"id": "blosc"}}
    return stored(about, *[head] * (psutil.virtual_memory().total // 2**28 + 1))(folder)


# the command -------------------------------------------------------------------------------------------------------------------------


def told(folder, **values):
    out = folder / "out"
    return (lambda: run_analysis("integrate", Parameters(**values), out)), []


@kind("one file on the command line", "Two modalities & --rna")
def _(folder):
    return told(folder, rna=str(files(folder) / "rna.h5ad"))


@kind("a data set and files on the command line", "exclude each other & --mudata")
def _(folder):
    return told(folder, rna="a.h5ad", dataset="demo")


@kind("an unknown data set", "'nonsense' & choose one of demo")
def _(folder):
    return told(folder, dataset="nonsense")


@kind("a column that is not there", "--batch lane & Columns are")
def _(folder):
    return told(folder, mudata=str(files(folder) / "cells.h5mu"), batch="lane")


@kind("labels that are a measurement", "--labels pseudotime & cell types for 60 cells")
def _(folder):
    return told(folder, mudata=str(files(folder) / "cells.h5mu"), labels="pseudotime")


@kind("batches that are a measurement", "--batch pseudotime & batches for 60 cells")
def _(folder):
    return told(folder, mudata=str(files(folder) / "cells.h5mu"), batch="pseudotime")


def told_column(folder, key, values, report="integrate", **flags):
    mdata = cells()
    mdata.obs[key] = values
    mdata.write_h5mu(folder / "column.h5mu")
    return (lambda: run_analysis(report, Parameters(mudata=str(folder / "column.h5mu"), **flags), folder / "out")), []


@kind("labels without a single value", "--labels kind & 60 of 60 cells & Fill them")
def _(folder):
    return told_column(folder, "kind", pd.Categorical([None] * 60, categories=["a"]), labels="kind")


@kind("numeric labels without a single value", "--labels kind & 60 of 60 cells & Fill them")
def _(folder):
    return told_column(folder, "kind", np.full(60, np.nan), labels="kind")


@kind("cells without a batch on the command line", "--batch lane & 1 of 60 cells & Fill them")
def _(folder):
    return told_column(folder, "lane", [np.nan, *[1.0, 2.0] * 29, 1.0], batch="lane")


@kind("a root that is no cell type", "--root stem & column kind & Types are: a, b")
def _(folder):
    return told_column(folder, "kind", ["a", "b"] * 30, "biology", labels="kind", root="stem")


for _name, _text, _says in [
    ("an unknown parameter", "epoch: 3", "p.yaml & unknown epoch & epochs"),
    ("a parameter of the wrong type", "epochs: ten", "p.yaml & epochs must be int"),
    ("yes where a number is wanted", "epochs: true", "p.yaml & epochs must be int"),
    ("a number out of range", "epochs: 0", "p.yaml & epochs must be at least 1"),
    ("not a number", "max_seconds: .nan", "p.yaml & max_seconds must be at least 1"),
    ("a seed too large for any generator", "seed: 99999999999999999999", "p.yaml & seed must be at most"),
    ("parameters that are a list", "- 1\n- 2", "p.yaml & lines like"),
    ("parameters that are no YAML", "a: [", "p.yaml & not readable YAML"),
    ("parameters with code in them", "rna: !!python/object/apply:os.getcwd []", "p.yaml & not readable YAML"),
    ("parameters that grow when they are read", "methods:\n- &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"- &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi")), "p.yaml & references"),
    ("parameters nested too deeply", "[" * 5000, "p.yaml & not readable YAML: more than 20 lists"),
    ("a date that does not exist", "labels: 2024-02-31", "p.yaml & not readable YAML"),
    ("a megabyte of parameters", "# " + "x" * 1_000_001, "p.yaml & lines like"),
]:
    def _make(folder, text=_text):
        (folder / "p.yaml").write_text(text)
        return (lambda: read_parameters(folder / "p.yaml")), []

    KINDS.append(Kind(_name, _says, _make))


@kind("a list inside a list of names", "p.yaml & methods")
def _(folder):
    (folder / "p.yaml").write_text("methods: [[raw, mofa], {a: 1}]")
    return (lambda: read_parameters(folder / "p.yaml")), []


@kind("a notebook parameter of another type", "epochs must be int")
def _(folder):
    return (lambda: checked({"epochs": "__import__('os').getcwd()"})), []


@kind("a column named on a data set without it", "--labels type & Columns are")
def _(folder):
    parameters = Parameters(dataset="demo", labels="type")
    return (lambda: columns_of(parameters, load_cells(parameters))), []
