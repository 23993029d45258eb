"""Time and memory of one LSI or PCA of the cells of a file: METHOD FILE COMPONENTS OUT. Called by preprocessing.ipynb."""

import json
import resource
import sys
import time
import warnings

import anndata
import h5py
import numpy as np
import scipy.sparse as sp
from anndata.io import read_elem
from cvqvae.components import RNAComponents
from cvqvae.lsi import ATACComponents
from cvqvae.normalisation import inverse_frequency, tf_idf
from cvqvae.streaming import right_singular_vectors

warnings.simplefilter("ignore")

method, path, k, out = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]


def cvqvae_lsi(adata, **options):
    transform = ATACComponents(k, **options)
    transform.fit_transform(adata)
    return lambda: tf_idf(adata.X, transform.arrays["idf"]) @ transform.arrays["loadings"].T


def reference(adata):
    matrix = tf_idf(adata.X, inverse_frequency(adata.X))
    blocks = [matrix[i : i + 1024].tocsc() for i in range(0, matrix.shape[0], 1024)]
    vectors, values = right_singular_vectors(blocks, matrix.shape[1], k, passes=60)
    return lambda: matrix @ (vectors / values).astype(np.float32)


def scglue_lsi(adata, **options):
    import scglue
    import sklearn.utils.extmath as extmath

    decompose, kept = extmath.randomized_svd, []

    def watched(*args, **kwargs):
        found = decompose(*args, **kwargs)
        kept.append(found[0].copy())
        return found

    extmath.randomized_svd = watched
    scglue.data.lsi(adata, n_components=k, **options)
    return lambda: kept[0]


def muon_lsi(adata):
    import muon

    adata.X = tf_idf(adata.X, inverse_frequency(adata.X))
    muon.atac.tl.lsi(adata, n_comps=k, scale_embeddings=False)
    return lambda: adata.obsm["X_lsi"]


def cvqvae_pca(adata):
    components = RNAComponents(k).fit_transform(adata)
    return lambda: components


def scanpy_pca(adata):
    import scanpy as sc

    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    sc.pp.highly_variable_genes(adata, n_top_genes=2000)
    adata = adata[:, adata.var["highly_variable"]].copy()
    sc.pp.scale(adata, max_value=10)
    sc.pp.pca(adata, n_comps=k)
    return lambda: adata.obsm["X_pca"]


METHODS = {
    "cvqvae LSI": cvqvae_lsi,
    "cvqvae LSI, 40 passes": lambda a: cvqvae_lsi(a, passes=40),
    "reference": reference,
    "scglue LSI, 15 iterations": lambda a: scglue_lsi(a, n_iter=15),
    "scglue LSI, default": scglue_lsi,
    "muon LSI": muon_lsi,
    "cvqvae PCA": cvqvae_pca,
    "scanpy PCA": scanpy_pca,
}
peer = method.split()[0]
if peer not in ("cvqvae", "reference"):
    __import__(peer)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
before = peak()
with h5py.File(path) as file:
    group = file["mod"]["rna" if "PCA" in method else "atac"]
    adata = anndata.AnnData(sp.csr_matrix(read_elem(group["X"])), var=read_elem(group["var"]))
matrix = sum(part.nbytes for part in (adata.X.data, adata.X.indices, adata.X.indptr)) / 2**30
clock, cpu = time.time(), time.process_time()
result = METHODS[method](adata)
times = {"seconds": time.process_time() - cpu, "clock": time.time() - clock}
row = {**times, "matrix GiB": matrix, "peak GiB": peak() - before}
np.save(out, np.asarray(result(), dtype=np.float32))
print(json.dumps(row))
