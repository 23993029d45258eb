"""Readers, checks, pairing, downloads and the conversion of public files."""

import gzip
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import anndata as ad
import h5py
import mudata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from local_data import needs_data

from cvqvae import datasets, downloads, public
from cvqvae.cells import DataError, counts_of, declare_kind, modality_kind, pair_modalities, shared_obs

KINDS = {"rna": "rna", "atac": "atac"}


def modality(cells, features, seed=0, low=1):
    counts = np.random.default_rng(seed).integers(low, 5, (len(cells), len(features))).astype("float32")
    return ad.AnnData(sp.csr_matrix(counts), obs=pd.DataFrame(index=list(cells)), var=pd.DataFrame(index=list(features)))


def genes(cells, n=4, **kw):
    return modality(cells, [f"GENE{i}" for i in range(n)], **kw)


def peaks(cells, n=3, **kw):
    return modality(cells, [f"chr1-{i}00-{i}50" for i in range(n)], **kw)


# pairing ---------------------------------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.permutations(list("abcdefg")), st.permutations(list("cdefghi")))
def test_pairing_keeps_every_cells_own_counts(first, second):
    rna, atac = genes(first), peaks(second, seed=1)
    with pytest.warns(UserWarning, match="2 unpaired rna, 2 unpaired atac"):
        pair = pair_modalities({"rna": rna, "atac": atac}, KINDS)
    assert list(pair.obs_names) == [cell for cell in first if cell in second]
    for cell in pair.obs_names:
        assert np.array_equal(pair["rna"][cell].X.toarray(), rna[cell].X.toarray())
        assert np.array_equal(pair["atac"][cell].X.toarray(), atac[cell].X.toarray())


def test_pairing_leaves_the_arguments_alone():
    rna, atac = genes("abc"), peaks("cba")
    pair_modalities({"rna": rna, "atac": atac}, KINDS)
    assert list(rna.var.columns) == [] and list(atac.obs_names) == list("cba")


def test_no_shared_cell_names_an_example_of_each_side():
    with pytest.raises(DataError, match="'a-1'.*'a'"):
        pair_modalities({"rna": genes(["a-1", "b-1"]), "atac": peaks("ab")}, KINDS)


def test_duplicated_cells_and_features_are_refused():
    with pytest.raises(DataError, match="1 duplicated cell name, such as 'a'"):
        pair_modalities({"rna": genes("aab"), "atac": peaks("ab")}, KINDS)
    with pytest.raises(DataError, match="duplicated feature"):
        pair_modalities({"rna": modality("ab", ["X", "X"]), "atac": peaks("ab")}, KINDS)


def test_one_modality_is_no_pair():
    with pytest.raises(DataError, match="two modalities"):
        pair_modalities({"rna": genes("ab")}, {"rna": "rna"})


def test_empty_cells_and_features_are_dropped_and_reported_or_refused():
    rna, atac = genes("abc"), peaks("abc")
    atac.X[1] = 0
    rna.X[:, 2] = 0
    with pytest.warns(UserWarning, match="Pairing kept 2 cells and dropped: 1 empty cell atac, 1 empty feature rna"):
        pair = pair_modalities({"rna": rna, "atac": atac}, KINDS)
    assert pair.shape == (2, 6) and list(pair.obs_names) == ["a", "c"]
    assert pair.uns["cvqvae_pairing"]["empty_cells_atac"] == 1
    with pytest.raises(DataError, match="filter_cells"):
        pair_modalities({"rna": rna, "atac": atac}, KINDS, empty="error")
    atac.X[:] = 0
    with pytest.raises(DataError, match="3 empty cells atac"):
        pair_modalities({"rna": rna, "atac": atac}, KINDS)


def test_a_modality_without_cells_or_features_is_refused():
    with pytest.raises(DataError, match="0 cells x 4 features"):
        pair_modalities({"rna": genes("ab")[:0], "atac": peaks("ab")}, KINDS)


def test_obs_columns_that_disagree_stay_in_their_modalities():
    rna, atac = genes("ab"), peaks("ab")
    rna.obs["batch"], atac.obs["batch"] = pd.Categorical(["x", "y"]), ["x", "y"]
    rna.obs["total"], atac.obs["total"] = [1, 2], [3, 4]
    rna.obs["time"], atac.obs["time"] = [0.5, np.nan], [0.5, np.nan]
    assert list(shared_obs({"rna": rna, "atac": atac})) == ["batch", "time"]


# counts and kinds ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("value, message", [(np.nan, "NaN"), (np.inf, "infinite"), (-1, "negative"), (0.5, "no whole numbers")])
def test_what_is_no_count_is_refused(value, message, sparse):
    rna = genes("abc")
    matrix = rna.X.toarray()
    matrix[2, 3] = value
    rna.X = sp.csr_matrix(matrix) if sparse else matrix
    with pytest.raises(DataError, match=message):
        counts_of(rna, "rna", block=5)


def test_counts_layer_wins_over_x_and_nothing_is_copied():
    rna = genes("abc")
    rna.layers["counts"] = rna.X.copy()
    rna.X = rna.X * 0.3
    assert counts_of(rna, "rna") is rna.layers["counts"]


@pytest.mark.parametrize("kinds, message", [
    ({"rna": "atac", "atac": "rna"}, "regions|genes"), ({"rna": "rna", "atac": "protein"}, "genomic regions"),
    ({"rna": "music", "atac": "atac"}, "choose one of")])
def test_wrong_kinds_are_refused(kinds, message):
    with pytest.raises(DataError, match=message):
        pair_modalities({"rna": modality("ab", ["ACTB", "CD3E", "LYZ"]), "atac": peaks("ab")}, kinds)


def test_genes_given_as_peaks_or_as_antibodies():
    with pytest.raises(DataError, match="are genes"):
        declare_kind(modality("ab", ["ACTB", "CD3E", "LYZ"]), "atac")
    with pytest.raises(DataError, match="no antibody panel"):
        declare_kind(genes("ab", n=1500), "protein")
    assert modality_kind(declare_kind(modality("ab", ["peak_1", "peak_2"]), "atac")) == "atac"


def test_mixed_and_missing_declarations():
    rna = genes("ab")
    with pytest.raises(DataError, match="declare_kind"):
        modality_kind(rna)
    rna.var["feature_types"] = ["Peaks", "Peaks", "Gene Expression", "Peaks"]
    with pytest.raises(DataError, match="mixes kinds.*split_kinds"):
        modality_kind(rna)
    with pytest.raises(DataError, match="'rna' was given as rna, .*1 Gene Expression, 3 Peaks.*the whole file, as --mudata"):
        declare_kind(rna, "rna", "rna")
    rna.var["feature_types"] = ["Gene Expression"] * 3 + ["CRISPR Guide Capture"]
    assert modality_kind(declare_kind(rna, "rna")) == "rna"


@pytest.mark.parametrize("kind", ["rna", "atac"])
@pytest.mark.parametrize("genes_before", [["ACTB", "GAPDH", *(f"GENE{i}" for i in range(3000))], [f"ENSG{i:011}" for i in range(3000)]])
def test_genes_and_peaks_in_one_matrix_are_not_one_modality(kind, genes_before):
    "The genes stand first, so that the first names say nothing of the peaks."
    both = modality("ab", [*genes_before, *(f"chr1:{i}-{i + 500}" for i in range(4000))])
    with pytest.raises(DataError, match="holds genes and genomic regions .chr1:0-500.*--mudata"):
        declare_kind(both, kind)


# files -----------------------------------------------------------------------------------------------------------------------------


def test_broken_files(tmp_path):
    good = tmp_path / "good.h5ad"
    genes("ab").write_h5ad(good)
    (tmp_path / "half.h5ad").write_bytes(good.read_bytes()[:1000])
    (tmp_path / "text.h5ad").write_text("not hdf5")
    (tmp_path / "packed.h5ad.gz").write_bytes(gzip.compress(good.read_bytes()))
    for name, message in [("none.h5ad", "no such file"), ("half.h5ad", "truncated"), ("text.h5ad", "truncated or of another"), ("packed.h5ad.gz", "gunzip")]:
        with pytest.raises(DataError, match=message):
            datasets.read_pair(tmp_path / name, good)


@pytest.mark.parametrize("reader", [datasets.read_mudata, datasets.read_10x])
def test_hdf5_of_another_format(tmp_path, reader):
    path = tmp_path / "other.h5"
    with h5py.File(path, "w") as file:
        file["numbers"] = [1, 2]
    with pytest.raises(DataError, match="no readable|two modalities"):
        reader(path)


def test_backed_anndata_is_accepted(tmp_path):
    genes("ab").write_h5ad(tmp_path / "rna.h5ad")
    backed = ad.read_h5ad(tmp_path / "rna.h5ad", backed="r")
    pair = datasets.read_pair(backed, peaks("ba"))
    assert np.array_equal(pair["rna"].X.toarray(), genes("ab").X.toarray())
    assert backed.isbacked


def write_10x(path, counts, names, types):
    """Write [cells, features] counts the way Cell Ranger 3 and later do."""
    matrix = sp.csc_matrix(counts.T)
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix")
        group["barcodes"] = [f"AAAC{i}-1".encode() for i in range(len(counts))]
        group["data"], group["indices"], group["indptr"] = matrix.data.astype("int32"), matrix.indices.astype("int64"), matrix.indptr.astype("int64")
        group["shape"] = np.array(matrix.shape, dtype="int32")
        features = group.create_group("features")
        features["id"], features["name"] = [n.encode() for n in names], [n.encode() for n in names]
        features["feature_type"], features["genome"] = [t.encode() for t in types], [b"GRCh38"] * len(names)


def test_10x_file(tmp_path):
    counts = np.arange(1, 13).reshape(3, 4)
    write_10x(tmp_path / "cells.h5", counts, ["CD3E", "CD3E", "chr1:5-9", "chr1:20-30"], ["Gene Expression"] * 2 + ["Peaks"] * 2)
    mdata = datasets.read_10x(tmp_path / "cells.h5")
    assert np.array_equal(mdata["rna"].X.toarray(), counts[:, :2]) and np.array_equal(mdata["atac"].X.toarray(), counts[:, 2:])
    assert mdata["rna"].var_names.is_unique
    write_10x(tmp_path / "one.h5", counts, list("abcd"), ["Gene Expression"] * 4)
    with pytest.raises(DataError, match="one assay"):
        datasets.read_10x(tmp_path / "one.h5")


CRASH = """
import sys, h5py
from cvqvae import datasets
path = sys.argv[1]
for index in (10**9, -5):
    with h5py.File(path, "r+") as file:
        file[sys.argv[2]][...] = index
    if path.endswith("h5mu"):
        from cvqvae.command import main  # here, because it takes seconds to import
        print(main(["explore", path, "--out", path + ".html"]))
        continue
    try:
        datasets.read_any(path)
    except datasets.DataError as error:
        print(error, file=sys.stderr)
        print(2)
"""


@pytest.mark.parametrize("name", ["cells.h5", "cells.h5ad", "raw.h5ad", "cells.h5mu"])
def test_an_index_outside_is_refused_before_anything_is_cut_out(tmp_path, name):
    counts, place = np.arange(1, 13).reshape(3, 4), "X/indices"
    write_10x(tmp_path / "cells.h5", counts, ["CD3E", "CD4", "chr1:5-9", "chr1:20-30"], ["Gene Expression"] * 2 + ["Peaks"] * 2)
    if name == "cells.h5":
        place = "matrix/indices"
    elif name == "cells.h5mu":
        mdata, place = datasets.simulate(n_cells=60, n_genes=200, n_peaks=300), "mod/rna/X/indices"
        mdata.obsm["X_cvqvae"] = np.random.default_rng(0).normal(size=(60, 4))
        mdata.write(tmp_path / name)
    else:
        stacked = sc.read_10x_h5(tmp_path / "cells.h5", gex_only=False)
        if name == "raw.h5ad":
            stacked.raw, place = stacked, "raw/X/indices"
        stacked.write(tmp_path / name)
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", CRASH, tmp_path / name, place], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2", "2"] and done.stderr.count("is damaged: an index lies outside of the matrix") == 2, done.stderr


def test_h5mu_keeps_obs_and_order_and_names_missing_modalities(tmp_path):
    mdata = datasets.simulate(n_cells=40, n_genes=200, n_peaks=300)
    mdata.obs["mine"] = np.arange(40)
    mdata.write_h5mu(tmp_path / "cells.h5mu")
    again = datasets.read_any(tmp_path / "cells.h5mu")
    assert list(again.obs["mine"]) == list(range(40)) and again.obs_names.equals(mdata.obs_names)
    assert not [column for column in again.obs if ":" in column]
    with pytest.raises(DataError, match="holds rna, atac"):
        datasets.read_mudata(tmp_path / "cells.h5mu", kinds={"rna": "rna", "adt": "protein"})


def test_undeclared_mudata_needs_kinds():
    mdata = mudata.MuData({"one": genes("ab"), "two": peaks("ab")})
    with pytest.raises(DataError, match="pass kinds="):
        datasets.read_mudata(mdata)
    assert datasets.read_mudata(mdata, {"one": "rna", "two": "atac"})["two"].n_vars == 3


# names -----------------------------------------------------------------------------------------------------------------------------


SHAPES = {"snare-cortex": (6968, 27411), "pbmc10k-cite": (6855, 4014), "bmmc-cite-starter": (600, 1134), "bmmc-multiome-starter": (500, 1734)}


@needs_data
@pytest.mark.parametrize("name, shape", SHAPES.items())
@pytest.mark.filterwarnings("ignore:Pairing kept")
def test_local_sets(name, shape):
    mdata = datasets.load_dataset(name)
    dropped = mdata.uns["cvqvae_pairing"]
    lost = [sum(v for k, v in dropped.items() if what in k) for what in ("empty_cells", "empty_features")]
    assert mdata.n_obs >= shape[0] - lost[0] and mdata.n_vars + lost[1] == shape[1]
    assert {"batch", "cell_type"} <= set(mdata.obs) and mdata.uns["organism"] in ("human", "mouse")
    if name.endswith("starter"):
        assert sum(c.startswith("pseudotime_order_") for c in mdata.obs) == 2


def test_absent_local_set_says_where_it_was_sought(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "data_folders", lambda data_home=None: [tmp_path])
    with pytest.raises(DataError, match="Set CVQVAE_DATA"):
        datasets.load_dataset("snare-cortex")
    with pytest.raises(DataError, match="choose one of demo"):
        datasets.load_dataset("nonsense")


def test_public_set_from_the_data_folder_needs_no_network(tmp_path, monkeypatch):
    monkeypatch.setenv("CVQVAE_DATA", str(tmp_path))
    monkeypatch.setattr(downloads, "fetch", lambda *a, **k: pytest.fail("went to the network"))
    openproblems().write_h5ad(tmp_path / "GSE194122_openproblems_neurips2021_multiome_BMMC_processed.h5ad")
    assert datasets.load_dataset("bmmc-multiome").n_obs == 3


# downloads -------------------------------------------------------------------------------------------------------------------------

CONTENT = np.random.default_rng(0).bytes(300_000)


class Server(HTTPServer):
    """Serves CONTENT; `limits` says after how many bytes each connection breaks; `ranges` whether it honours Range."""

    def __init__(self, limits=(), ranges=True):
        super().__init__(("127.0.0.1", 0), Handler)
        self.limits, self.ranges, self.asked = list(limits), ranges, []
        self.url = f"http://127.0.0.1:{self.server_port}/cells.h5ad"
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        header = self.headers.get("Range")
        start = int(header[len("bytes=") : -1]) if header else 0
        self.server.asked.append(start)
        if not self.server.ranges:
            header, start = None, 0
        if start >= len(CONTENT):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(CONTENT)}")
            return self.end_headers()
        self.send_response(206 if header else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        limit = self.server.limits.pop(0) if self.server.limits else None
        self.wfile.write(CONTENT[start:][:limit])

    def log_message(self, *args):
        pass


@pytest.fixture
def serve():
    servers = []

    def start(*args, **kw):
        servers.append(Server(*args, **kw))
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def download(server, tmp_path, attempts=5):
    out = tmp_path / "out"
    downloads.ResumingDownloader(tmp_path / "cells.part", attempts=attempts, chunk=1000)(server.url, out)
    return out.read_bytes()


def test_resumes_where_the_line_broke(serve, tmp_path):
    server = serve([100_000, 100_000])
    assert download(server, tmp_path) == CONTENT
    assert server.asked == [0, 100_000, 200_000]


def test_part_survives_giving_up_and_the_next_call_goes_on(serve, tmp_path):
    server = serve([100_000])
    with pytest.raises(DataError, match="call again to continue"):
        download(server, tmp_path, attempts=1)
    assert download(server, tmp_path) == CONTENT and server.asked == [0, 100_000]


def test_server_without_ranges_starts_over(serve, tmp_path):
    assert download(serve([100_000], ranges=False), tmp_path) == CONTENT


@pytest.mark.parametrize("part", [CONTENT, CONTENT + b"more"])
def test_part_as_long_as_the_file_or_longer(serve, tmp_path, part):
    (tmp_path / "cells.part").write_bytes(part)
    assert download(serve(), tmp_path) == CONTENT


def test_cached_file_is_not_asked_for_again(serve, tmp_path):
    server = serve()
    remote = downloads.RemoteFile(server.url)
    assert downloads.fetch(remote, tmp_path, trust_first_use=True).read_bytes() == CONTENT
    downloads.fetch(remote, tmp_path)
    assert server.asked == [0]


def test_trust_on_first_use_then_a_change_is_refused(serve, tmp_path):
    remote = downloads.RemoteFile(serve().url)
    path = downloads.fetch(remote, tmp_path, trust_first_use=True)
    assert remote.url in (tmp_path / "checksums.json").read_text()
    path.write_bytes(b"tampered")
    with pytest.raises(DataError, match="the file was removed"):
        downloads.verify(path, remote, tmp_path)
    assert not path.exists()


@pytest.mark.parametrize("digits", [16, 64])
def test_published_checksum_full_or_first_digits(serve, tmp_path, digits):
    import hashlib

    good = hashlib.sha256(CONTENT).hexdigest()[:digits]
    url = serve().url
    assert downloads.fetch(downloads.RemoteFile(url, good), tmp_path / "good").read_bytes() == CONTENT
    assert not (tmp_path / "good" / "checksums.json").exists()
    with pytest.raises(DataError, match="expected " + "0" * digits):
        downloads.fetch(downloads.RemoteFile(url, "0" * digits), tmp_path / "bad")
    with pytest.raises(DataError, match="expected 1111"):
        downloads.fetch(downloads.RemoteFile(url, good), tmp_path / "mine", sha256="1" * 64)


def test_plain_http_and_unknown_checksum_names_are_refused(tmp_path):
    with pytest.raises(DataError, match="only https"):
        downloads.fetch(downloads.RemoteFile("http://example.org/x.h5ad"), tmp_path)
    with pytest.raises(DataError, match="does not consist of"):
        downloads.fetch_all("bmmc-cite", data_home=tmp_path, sha256={"other.h5ad": "00"})


# public files ----------------------------------------------------------------------------------------------------------------------


def openproblems(second="ATAC"):
    names = ["CD3E", "LYZ", "chr1-5-9", "chr2-5-9"] if second == "ATAC" else ["CD3E", "LYZ", "CD3E", "CD14"]
    adata = ad.AnnData(np.full((3, 4), 0.1, "float32"), obs=pd.DataFrame(index=list("abc")), var=pd.DataFrame(index=names))
    adata.layers["counts"] = sp.csr_matrix(np.arange(1, 13).reshape(3, 4))
    adata.var["feature_types"] = ["GEX", "GEX", second, second]
    adata.obs = adata.obs.assign(**{"batch": "s1d1", "cell_type": "HSC", "GEX_phase": "S", "GEX_pseudotime_order": [0.5, np.nan, 0.1], "GEX_n_genes": [1, 2, 3],
                                    f"{second}_pseudotime_order": 0.7, f"{second}_total": [7, 15, 23], "S_score": 0.2})
    return adata


@pytest.mark.parametrize("second, name", [("ATAC", "atac"), ("ADT", "protein")])
def test_openproblems_file(second, name):
    mdata = public.split_openproblems(openproblems(second))
    assert np.array_equal(mdata[name].X.toarray(), [[3, 4], [7, 8], [11, 12]])
    assert modality_kind(mdata[name]) == name and sp.issparse(mdata["rna"].X)
    assert {"batch", "cell_type", "phase", "S_score", "pseudotime_order_GEX", f"pseudotime_order_{second}"} <= set(mdata.obs)
    assert list(mdata[name].obs["total"]) == [7, 15, 23] and mdata.uns["organism"] == "human"


@pytest.mark.parametrize("second, name", [("ATAC", "atac"), ("ADT", "protein")])
def test_openproblems_file_given_by_its_path(second, name, tmp_path, recwarn):
    "Its short words are understood; the counts come from the layer, not from X, which is normalised."
    openproblems(second).write_h5ad(tmp_path / "bmmc.h5ad")
    recwarn.clear()
    mdata = datasets.read_any(tmp_path / "bmmc.h5ad")
    assert [modality_kind(part) for part in mdata.mod.values()] == ["rna", name] and list(mdata.mod) == ["rna", name]
    assert np.array_equal(counts_of(mdata[name]).toarray(), [[3, 4], [7, 8], [11, 12]]) and "batch" in mdata.obs
    assert not [one for one in recwarn if "not unique" in str(one.message)]  # a protein is called as its gene
    assert list(datasets.read_parts(tmp_path / "bmmc.h5ad").mod) == ["rna", name]
    with pytest.raises(DataError, match=f"several kinds .2 GEX, 2 {second}"):
        declare_kind(openproblems(second), "rna")


def test_not_an_openproblems_file():
    with pytest.raises(DataError, match="no Open Problems"):
        public.split_openproblems(genes("ab"))


def test_dense_text_is_read_in_pieces(tmp_path):
    table = pd.DataFrame(np.random.default_rng(0).poisson(0.5, (25, 4)), index=[f"g{i}" for i in range(25)], columns=list("abcd"))
    table.to_csv(tmp_path / "t.txt.gz", sep="\t")
    adata = public.read_dense_text(tmp_path / "t.txt.gz", genes=7)
    assert sp.issparse(adata.X) and np.array_equal(adata.X.toarray(), table.T) and list(adata.obs_names) == list("abcd")


def test_shareseq_with_either_spelling_of_the_peak_barcodes(tmp_path):
    (tmp_path / "rna.txt").write_text("gene\tR1.1,P1.1\tR1.2,P1.2\tR1.3,P1.3\nKrt5\t3\t1\t9\nActb\t1\t2\t9\n")
    (tmp_path / "atac.mtx").write_text("%%MatrixMarket matrix coordinate integer general\n2 2 3\n1 1 1\n2 1 4\n2 2 2\n")
    (tmp_path / "peaks.bed").write_text("chr1\t100\t400\nchr2\t100\t400\n")
    (tmp_path / "types.txt").write_text("atac.bc\trna.bc\tcelltype\nR1.1,P9.1\tR1.1,P1.1\tBasal\nR1.2,P9.2\tR1.2,P1.2\tMix\n")
    files = {"rna": tmp_path / "rna.txt", "atac": tmp_path / "atac.mtx", "peaks": tmp_path / "peaks.bed", "types": tmp_path / "types.txt"}
    for spelling in ("R1.2,P9.2\nR1.1,P9.1\n", "R1.2,P1.2\nR1.1,P1.1\n", "R1.2.P1.2\nR1.1.P1.1\n"):
        (tmp_path / "barcodes.txt").write_text(spelling)
        skin = public.read_shareseq(files | {"barcodes": tmp_path / "barcodes.txt"})
        assert np.array_equal(skin["atac"].X.toarray(), [[0, 2], [1, 4]])
        assert np.array_equal(skin["rna"].X.toarray(), [[3, 1], [1, 2]])
        assert list(skin.obs["cell_type"]) == ["Basal", "Mix"]


@pytest.mark.parametrize("chosen", [None, True, False])
def test_what_mudata_was_told_stays(chosen):
    program = f"""
import mudata
mudata.set_options(pull_on_update={chosen})
import cvqvae.cells
print(mudata.set_options(pull_on_update=None).opts["pull_on_update"])
"""
    told = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=True).stdout
    assert told.strip() == str(bool(chosen))
