"""Counts on disk: the same components, embeddings and files as with counts in memory, refusals that say what to do, and memory that stays flat."""

import subprocess
import sys
import textwrap
import warnings

import anndata
import h5py
import mudata
import numpy as np
import pytest
import scanpy as sc
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from cvqvae import CVQVAE
from cvqvae.backed import axis_sums, is_stored, open_modalities, row_blocks, write_stored
from cvqvae.cells import DataError, counts_of, pair_modalities
from cvqvae.command import command_line
from cvqvae.components import RNAComponents
from cvqvae.datasets import read_any, read_pair, simulate, write_paired
from cvqvae.normalisation import inverse_frequency, log_normalised, tf_idf
from cvqvae.parameters import Parameters, describe_cells, load_cells
from cvqvae.records import fingerprint
from cvqvae.streaming import add_moments, right_singular_vectors, variable_genes


@pytest.fixture(scope="module")
def cells():
    return simulate(n_cells=400, seed=0)


@pytest.fixture(scope="module")
def file(cells, tmp_path_factory):
    path = tmp_path_factory.mktemp("stored") / "cells.h5mu"
    cells.write(path)
    return path


def cosines(a, b):
    bases = [np.linalg.qr(x - x.mean(0))[0] for x in (a, b)]
    return np.linalg.svd(bases[0].T @ bases[1], compute_uv=False)


OPEN = {
    "read_any": lambda path: read_any(path, backed=True),
    "mudata": lambda path: mudata.read_h5mu(path, backed="r"),
}


@pytest.mark.parametrize("kind", ["<f2", ">f4", ">i4"])
@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.filterwarnings("ignore")
def test_numbers_of_unusual_types_give_the_same_components(tmp_path, kind, stored):
    "SciPy knows neither float16 nor another machine's byte order."
    mdata = simulate(n_cells=200, n_genes=150, n_peaks=200, seed=0)
    expected = CVQVAE(mdata.copy(), n_components=10).mdata
    for adata in mdata.mod.values():
        adata.X = adata.X.toarray().astype(kind)
    mdata.write(tmp_path / "dense.h5mu")
    with h5py.File(tmp_path / "dense.h5mu") as written:
        assert written["mod/rna/X"].dtype == kind
    found = CVQVAE(read_any(tmp_path / "dense.h5mu", backed=stored), n_components=10).mdata
    for name, slot in {"rna": "X_pca", "atac": "X_lsi"}.items():
        assert np.allclose(found[name].obsm[slot], expected[name].obsm[slot], atol=1e-4)


@pytest.mark.parametrize("ending", [".h5mu", ".zarr"])
@pytest.mark.filterwarnings("ignore")
def test_counts_that_lie_in_their_layer_alone_stay_on_disk(cells, tmp_path, ending):
    parts = {name: anndata.AnnData(None, obs=a.obs, var=a.var, layers={"counts": a.X}) for name, a in cells.mod.items()}
    layered, path = mudata.MuData(parts), tmp_path / f"cells{ending}"
    layered.write(path) if ending == ".h5mu" else layered.write_zarr(path)
    found = read_any(path, backed=True)
    assert all(a.X is None and is_stored(a.layers["counts"]) for a in found.mod.values())
    model = CVQVAE(found, epochs=1, n_components=10).fit(progress=False)
    expected = CVQVAE(cells.copy(), epochs=1, n_components=10).mdata
    write_stored(model.embed(), tmp_path / "written.h5mu")
    again = mudata.read_h5mu(tmp_path / "written.h5mu")
    for name, adata in again.mod.items():
        assert (adata.layers["counts"] != cells[name].X).nnz == 0
    assert cosines(found["atac"].obsm["X_lsi"], expected["atac"].obsm["X_lsi"]).min() > 0.999


@pytest.mark.parametrize("kind", ["<f2", ">f4"])
@pytest.mark.parametrize("stored", [False, True])
def test_sparse_numbers_that_scipy_cannot_hold_are_refused_by_type(file, tmp_path, kind, stored):
    path = tmp_path / "sparse.h5mu"
    path.write_bytes(file.read_bytes())
    with h5py.File(path, "r+") as written:
        group = written["mod/rna/X"]
        values = group["data"][:]
        del group["data"]
        group["data"] = values.astype(kind)
    says = f"{np.dtype(kind)} in a sparse matrix, .* write it again as float32" if stored else f"write it again .*{np.dtype(kind)}"
    if not stored and scipy_holds(kind):  # 1.14 does: then they are read as they are
        assert abs(read_any(path)["rna"].X.astype(np.float32) - read_any(file)["rna"].X).max() == 0
        return
    with pytest.raises(DataError, match=says):
        read_any(path, backed=stored)


def scipy_holds(kind: str) -> bool:
    try:
        return sp.csr_matrix((np.ones(1, kind), [0], [0, 1]), shape=(1, 1)).copy().nnz == 1
    except ValueError:
        return False


@pytest.mark.parametrize("name", OPEN)
def test_backed_integration_equals_the_one_in_memory(cells, file, name, tmp_path):
    stored = OPEN[name](file)
    models = [CVQVAE(data, batch_key="batch", epochs=2, n_components=10).fit(progress=False) for data in (cells.copy(), stored)]
    expected, found = (model.embed() for model in models)
    assert all(is_stored(part.X) and "counts" not in part.layers for part in found.mod.values())
    assert cosines(found["atac"].obsm["X_lsi"], expected["atac"].obsm["X_lsi"]).min() > 0.999
    assert cosines(found["rna"].obsm["X_pca"], expected["rna"].obsm["X_pca"]).min() > 0.999
    assert np.allclose(found.obsm["X_cvqvae"], expected.obsm["X_cvqvae"], atol=1e-3)
    written = mudata.read_h5mu(write_stored(found, tmp_path / "out.h5mu"))
    assert abs(written["atac"].X - cells["atac"].X).max() == 0
    assert np.array_equal(written["rna"].obsm["X_cvqvae"], found["rna"].obsm["X_cvqvae"])


def test_components_in_a_memory_map_are_written(file, tmp_path):
    found = read_any(file, backed=True)
    mapped = np.memmap(tmp_path / "components", np.float32, "w+", shape=(found.n_obs, 3))
    mapped[:] = np.arange(3 * found.n_obs).reshape(-1, 3)
    found["rna"].obsm["X_pca"], found.obsm["X_joint"] = mapped, mapped
    written = mudata.read_h5mu(write_stored(found, tmp_path / "out.h5mu"))
    assert np.array_equal(written["rna"].obsm["X_pca"], mapped) and np.array_equal(written.obsm["X_joint"], mapped)


def lies_in_a_file(array):
    while array is not None and not isinstance(array, np.memmap):
        array = getattr(array, "base", None)
    return array is not None


def test_what_is_computed_from_counts_on_disk_lies_on_disk_and_is_not_copied(file):
    stored = read_any(file, backed=True)
    model = CVQVAE(stored, batch_key="batch", epochs=1, n_components=8)
    ((_, complete),) = model.reader.groups(stored, fitted=True)
    for adata, inputs in zip(stored.mod.values(), complete.inputs):
        assert np.shares_memory(inputs.numpy(), adata.obsm["X_lsi" if "X_lsi" in adata.obsm else "X_pca"])
    model.fit(progress=False).embed()
    tables = [stored.obsm["X_cvqvae"]] + [adata.obsm[key] for adata in stored.mod.values() for key in ("X_cvqvae", "X_cvqvae_quantized")]
    latents = model.latents(stored)["joint"].z.numpy()
    assert all(type(table) is np.ndarray and np.isfinite(table).all() for table in tables)
    assert lies_in_a_file(stored["rna"].obsm["X_pca"]) and np.array_equal(latents, stored.obsm["X_cvqvae"])


def test_a_temporary_folder_without_room_is_named_before_the_training(file):
    limited = f"""
        import resource
        from cvqvae import CVQVAE
        from cvqvae.datasets import read_any
        stored = read_any({str(file)!r}, backed=True)
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, -1))
        CVQVAE(stored)
    """
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", textwrap.dedent(limited)], capture_output=True, text=True)
    assert run.returncode == 1 and "has no room for" in run.stderr and "TMPDIR" in run.stderr


def test_new_cells_on_disk(cells, file):
    model = CVQVAE(cells.copy(), epochs=1, n_components=8).fit(progress=False)
    stored = read_any(file, backed=True)
    assert np.allclose(model.embed(stored).obsm["X_cvqvae"], model.embed(cells.copy()).obsm["X_cvqvae"], atol=1e-3)


@pytest.mark.parametrize("form", ["csr", "dense", "zarr"])
def test_blocks_are_the_matrix(cells, tmp_path, form):
    counts = cells["rna"].X
    adata = anndata.AnnData(counts.toarray() if form == "dense" else counts, obs=cells["rna"].obs, var=cells["rna"].var)
    path = tmp_path / ("cells.zarr" if form == "zarr" else "cells.h5ad")
    adata.write_zarr(path) if form == "zarr" else adata.write(path)
    stored = open_modalities(path)["X"]
    blocks = sp.vstack([sp.csr_matrix(part) for _, part in row_blocks(stored.X, rows=130)])
    assert is_stored(stored.X) and abs(blocks - counts).max() == 0
    assert np.allclose(axis_sums(stored.X, 0), counts.sum(0).A1)
    found, expected = (RNAComponents(10).fit_transform(part) for part in (stored, cells["rna"]))
    assert cosines(found, expected).min() > 0.999


def test_refusals_say_what_to_do(cells, tmp_path):
    cells["rna"].write(tmp_path / "rna.h5ad")
    cells["atac"][::-1][5:].write(tmp_path / "atac.h5ad")
    files = {"rna": tmp_path / "rna.h5ad", "atac": tmp_path / "atac.h5ad"}
    with pytest.raises(DataError, match="write_paired"):
        read_pair(*files.values(), backed=True)
    paired = read_any(write_paired(files, tmp_path / "paired.h5mu"), backed=True)
    assert list(paired.obs_names) == list(cells.obs_names[:-5])
    assert abs(paired["atac"].X[:] - cells["atac"][paired.obs_names].X).max() == 0
    with pytest.raises(DataError, match="several modalities"):
        read_pair(tmp_path / "paired.h5mu", files["atac"], backed=True)
    with pytest.raises(DataError, match="no such file"):
        read_any(tmp_path / "nothing.h5mu", backed=True)


def test_columns_and_logarithms_on_disk_are_refused(cells, tmp_path):
    for name, matrix, message in (("csc", cells["rna"].X.tocsc(), "CSC"), ("logs", log_normalised(cells["rna"].X), "whole numbers")):
        anndata.AnnData(matrix, var=cells["rna"].var).write(tmp_path / f"{name}.h5ad")
        with pytest.raises(DataError, match=message):
            counts_of(open_modalities(tmp_path / f"{name}.h5ad")["X"])


@pytest.mark.parametrize("index", [10**6, -1])
def test_an_index_outside_of_the_matrix_on_disk_is_refused_before_it_is_used(cells, tmp_path, index):
    cells["rna"].write(tmp_path / "rna.h5ad")
    with h5py.File(tmp_path / "rna.h5ad", "r+") as file:
        file["X/indices"][50] = index
    with pytest.raises(DataError, match="X of 'rna' is damaged"):
        counts_of(open_modalities(tmp_path / "rna.h5ad")["X"], "rna")


def test_an_empty_cell_on_disk_is_refused_and_left_out(cells, tmp_path):
    parts = {name: part.copy() for name, part in cells.mod.items()}
    parts["rna"].X = sp.diags((np.arange(400) != 7).astype(np.float32)) @ parts["rna"].X
    for name, part in parts.items():
        part.write(tmp_path / f"{name}.h5ad")
    files = {name: tmp_path / f"{name}.h5ad" for name in parts}
    with pytest.raises(DataError, match="write_paired"):
        pair_modalities({name: open_modalities(path)["X"] for name, path in files.items()})
    assert read_any(write_paired(files, tmp_path / "paired.h5mu"), backed=True).n_obs == 399


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 4))
def test_variable_genes_are_scanpys(seed, n_batches):
    rng = np.random.default_rng(seed)
    counts = sp.csr_matrix(rng.negative_binomial(1, 0.4, (300, 200)) * (rng.uniform(size=200) < 0.9))
    batch = rng.integers(0, n_batches, 300)
    values = log_normalised(counts)
    adata = anndata.AnnData(values, obs={"batch": batch.astype(str).astype(object)})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = sc.pp.highly_variable_genes(adata, n_top_genes=50, batch_key="batch" if n_batches > 1 else None, inplace=False)
    sums = np.zeros((n_batches, 2, 200))
    add_moments(sums, np.expm1(values), batch)
    found = variable_genes(sums, np.bincount(batch, minlength=n_batches), 50)
    assert (found != expected["highly_variable"].to_numpy()).sum() <= 2  # single against double precision at the cut


def test_singular_vectors_are_the_exact_ones_where_the_spectrum_falls(cells):
    matrix = tf_idf(cells["atac"].X, inverse_frequency(cells["atac"].X))
    vectors, values = right_singular_vectors([matrix.tocsc()], matrix.shape[1], 30, passes=20)
    exact = np.linalg.svd(matrix.toarray(), full_matrices=False)
    assert np.allclose(values, exact[1][:30], rtol=2e-3)
    assert np.abs((vectors.T[:5] * exact[2][:5]).sum(1)).min() > 0.99


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 12), st.integers(30, 150))
def test_singular_vectors_of_few_directions(seed, rank, n_features):
    rng = np.random.default_rng(seed)
    matrix = (rng.uniform(size=(60, rank)) @ rng.uniform(size=(rank, n_features))).astype(np.float32)
    vectors, values = right_singular_vectors([sp.csc_matrix(matrix)], n_features, 20)
    exact = np.linalg.svd(matrix.astype(np.float64), compute_uv=False)[:20]
    assert np.allclose(values, exact, atol=2e-3 * exact[0])
    real = exact > 1e-2 * exact[0]
    assert np.allclose((vectors.T @ vectors)[real][:, real], np.eye(real.sum()), atol=1e-3)


def test_command_and_description_read_from_disk(cells, file):
    flags = command_line().parse_args(["integrate", "--backed", "--mudata", str(file)])
    stored = load_cells(Parameters(backed=flags.backed, mudata=str(file)))
    assert is_stored(stored["rna"].X)
    assert describe_cells(stored).equals(describe_cells(cells))
    assert fingerprint(stored) == fingerprint(cells)
    with pytest.raises(DataError, match="--backed is for files"):
        load_cells(Parameters(backed=True, dataset="demo"))


MEMORY = textwrap.dedent("""
    import sys, tracemalloc, numpy as np, scipy.sparse as sp, h5py
    from anndata import AnnData
    from anndata.io import sparse_dataset
    from cvqvae.backed import open_modalities
    from cvqvae.lsi import ATACComponents
    path, tiles = sys.argv[1], int(sys.argv[2])
    tile = sp.random(2000, 5000, 0.03, "csr", np.float32, 0)
    tile.data = np.ceil(tile.data)
    AnnData(tile).write(path)
    with h5py.File(path, "r+") as file:
        del file["obs/_index"]
        file["obs/_index"] = np.array([f"c{i}" for i in range(2000 * tiles)], dtype=object)
        file["obs/_index"].attrs.update({"encoding-type": "string-array", "encoding-version": "0.2.0"})
        for _ in range(tiles - 1):
            sparse_dataset(file["X"]).append(tile)
    adata = open_modalities(path)["X"]
    tracemalloc.start()
    components = ATACComponents(20).fit_transform(adata)
    print(tracemalloc.get_traced_memory()[1] / 2**20, components.shape[0])
""")


def test_memory_does_not_grow_with_the_cells(tmp_path):
    peaks = []
    for tiles in (3, 12):
        run = subprocess.run([sys.executable, "-c", MEMORY, tmp_path / f"{tiles}.h5ad", str(tiles)], capture_output=True, text=True, check=True)
        peak, n = run.stdout.split()
        assert int(n) == 2000 * tiles
        peaks.append(float(peak))
    assert peaks[1] < peaks[0] + 8, "MiB; 18,000 more cells are 20 MiB of counts"
