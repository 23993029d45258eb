"""Peaks and genes that overlap, annotations that are damaged, and the two methods that read gene activity."""

import gzip
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from anndata import AnnData
from scipy.spatial.distance import cdist
from sklearn.neighbors import kneighbors_graph

from cvqvae import scdart
from cvqvae.alignment import foscttm
from cvqvae.cells import DataError, declare_kind
from cvqvae.gene_activity import gene_activity, gene_regions, peak_coordinates, peak_gene_links, read_annotation
from cvqvae.peers import Task
from cvqvae.preprocessing import preprocess
from cvqvae.scdart import ScDART, ScDARTConfig, diffusion_coordinates, discrepancy, fit_scdart, linked_counts, match_latents, prior_loss
from cvqvae.scjoint import Clock, centre_loss, fit_scjoint, label_codes, seen_genes, similarity_loss
from cvqvae.simulation import simulate

ACTIVITY = {"scjoint": fit_scjoint, "scdart": fit_scdart}
GENES = pd.DataFrame({
    "gene": ["plus", "minus", "far"], "chromosome": ["chr1", "chr1", "chr2"], "start": [10_000, 30_000, 500],
    "end": [12_000, 33_000, 900], "strand": ["+", "-", "."],
})
GTF = 'chr1\ttoy\tgene\t10001\t12000\t.\t+\t.\tgene_id "E1"; gene_name "plus";\n'
SMALL = {"hidden_activity": (64, 32), "n_genes": 150, "updates": 60}


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def cells():
    mdata = simulate(n_cells=300, n_genes=300, n_peaks=1200)
    preprocess(mdata, n_components=15)
    return mdata


@pytest.fixture(scope="module")
def drawn(cells):
    "An annotation drawn around the simulator's peaks."
    peaks = peak_coordinates(cells["atac"].var_names).assign(gene=cells["atac"].var["linked_gene"])
    genes = peaks.groupby(["gene", "chromosome"], as_index=False).agg(start=("start", "min"), end=("end", "max"))
    return genes.assign(strand="+")


def chromatin(names, counts):
    return declare_kind(AnnData(sp.csr_matrix(np.asarray(counts, np.float32)), var=pd.DataFrame(index=names)), "atac")


@pytest.mark.parametrize("name", ["chr1-100-200", "chr1:100-200", "chr1_100_200", "chr1:100_200"])
def test_spellings_of_a_peak(name):
    assert peak_coordinates([name]).iloc[0].tolist() == ["chr1", 100, 200]


def test_a_chromosome_may_hold_separators_and_large_numbers():
    found = peak_coordinates(pd.Index(["chrUn_KI270742v1-5-3000000000", "GL000194.1:7-9"]))
    assert found["chromosome"].tolist() == ["chrUn_KI270742v1", "GL000194.1"] and found["end"].iloc[0] == 3_000_000_000


@pytest.mark.parametrize("names, reason", [
    (["chr1-1-2", "peak1", "peak2"], "2 of 3 peaks carry no coordinates"), (["chr1-5-5"], "1 peak ends before it starts"), (["CD34"], "'CD34'"),
])
def test_names_without_a_place_are_refused(names, reason):
    with pytest.raises(DataError, match=reason):
        peak_coordinates(names)


@pytest.mark.parametrize("peak, genes", [
    ("chr1-7999-8000", []),  # ends where the promoter of `plus` begins
    ("chr1-7999-8001", ["plus"]),
    ("chr1-11999-12500", ["plus"]),
    ("chr1-12000-12500", []),  # no promoter after the end of `plus`
    ("chr1-29000-30000", []),  # nor before the start of `minus`, which is its end
    ("chr1-34999-35500", ["minus"]),
    ("chr1-35000-35500", []),
    ("chr1-1-50000", ["plus", "minus"]),  # longer than both
    ("chr2-0-1", ["far"]),  # the promoter stops at the chromosome's first base; no strand counts as plus
    ("chr2-900-901", []),
])
def test_overlaps_by_hand(peak, genes):
    links, found = peak_gene_links([peak, "chr1-11000-11001", "chr1-31000-31001", "chr2-600-601"], GENES)
    assert found.tolist() == ["plus", "minus", "far"]
    assert found[links[0].toarray().ravel() > 0].tolist() == genes


def test_upstream_follows_the_strand():
    regions = gene_regions(GENES, upstream=100)
    assert regions[["start", "end"]].to_numpy().tolist() == [[9_900, 12_000], [30_000, 33_100], [400, 900]]
    assert peak_gene_links(["chr1-11000-11001"], GENES, upstream=0)[1].tolist() == ["plus"]


def test_links_equal_those_of_all_pairs():
    rng = np.random.default_rng(0)
    start, width = rng.integers(0, 3_000, 200), rng.choice([1, 10, 400], 200)
    names = [f"chr{c}-{s}-{s + w}" for c, s, w in zip(rng.integers(1, 4, 200), start, width)]
    begin = rng.integers(0, 3_000, 40)
    genes = pd.DataFrame({"gene": [f"g{i % 35}" for i in range(40)], "chromosome": rng.integers(1, 4, 40).astype(str), "start": begin,
                          "end": begin + rng.integers(1, 200, 40), "strand": rng.choice(["+", "-"], 40)})
    links, found = peak_gene_links(names, genes, upstream=50)
    expected = np.zeros((200, 35))
    regions = gene_regions(genes, 50)
    for i, peak in enumerate(peak_coordinates(names).itertuples()):
        for j, gene in enumerate(regions.itertuples()):
            if peak.chromosome == f"chr{gene.chromosome}" and peak.start < gene.end and peak.end > gene.start:
                expected[i, j % 35] = 1
    order = pd.Index([f"g{i}" for i in range(35)]).get_indexer(found)
    assert np.array_equal(links.toarray(), expected[:, order]) and expected.sum() == links.nnz > 50


@pytest.mark.parametrize("here, there", [("chr1", "1"), ("1", "chr1"), ("chrM", "MT"), ("Chr1", "chr1")])
def test_chromosomes_of_two_dialects_meet(here, there):
    genes = pd.DataFrame({"gene": ["g"], "chromosome": [there], "start": [10], "end": [20], "strand": ["+"]})
    assert peak_gene_links([f"{here}-15-16"], genes)[0].nnz == 1


def test_no_overlap_at_all_is_an_error():
    with pytest.raises(DataError, match="no peak overlaps any gene.*'chr9'.*'chr1'"):
        peak_gene_links(["chr9-1-2"], GENES)
    with pytest.raises(DataError, match="no peak overlaps"):
        peak_gene_links(["chr1-1-2"], GENES)


def test_activity_adds_up_and_stays_sparse(monkeypatch):
    adata = chromatin(["chr1-7999-8001", "chr1-11000-11500", "chr1-31000-31001", "chr7-1-2"], [[1, 2, 4, 8], [0, 3, 0, 9]])
    for name in ("toarray", "todense"):
        monkeypatch.setattr(sp.csr_matrix, name, lambda *_, **__: pytest.fail("the matrix was made dense"))
    activity = gene_activity(adata, GENES)
    monkeypatch.undo()
    assert sp.issparse(activity.X) and activity.X.dtype == np.float32
    assert activity.X.toarray().tolist() == [[3, 4], [3, 0]] and activity.var_names.tolist() == ["plus", "minus"]
    assert activity.var["n_peaks"].tolist() == [2, 1] and activity.obs_names.equals(adata.obs_names)


def test_counts_of_the_layer_come_first_and_normalised_values_are_refused():
    adata = chromatin(["chr1-11000-11500"], [[2], [3]])
    adata.layers["counts"], adata.X = adata.X.copy(), adata.X / 7
    assert gene_activity(adata, GENES).X.toarray().ravel().tolist() == [2, 3]
    del adata.layers["counts"]
    with pytest.raises(DataError, match="whole numbers"):
        gene_activity(adata, GENES)


def test_one_gene_in_every_format(tmp_path):
    bed = "track name=toy\n#chrom\nchr1\t10000\t12000\tplus\t0\t+\n"
    exon = GTF.replace("gene\t", "exon\t", 1)
    for name, text in {"a.gtf": "#!build\n" + exon + GTF, "a.bed": bed}.items():
        (tmp_path / name).write_text(text)
        with gzip.open(tmp_path / f"{name}.gz", "wt") as file:
            file.write(text)
    found = [read_annotation(tmp_path / name).values.tolist() for name in ("a.gtf", "a.gtf.gz", "a.bed", "a.bed.gz")]
    assert found == [[["plus", "chr1", 10_000, 12_000, "+"]]] * 4


def test_a_gene_without_a_name_keeps_its_id(tmp_path):
    (tmp_path / "a.gtf").write_text(GTF.replace(' gene_name "plus";', ""))
    assert read_annotation(str(tmp_path / "a.gtf"))["gene"].tolist() == ["E1"]


@pytest.mark.parametrize("name, text, reason", [
    ("a.gtf", "", "holds no gene"),
    ("a.gtf", GTF.replace("gene\t", "exon\t", 1), "holds no gene"),
    ("a.gtf", GTF.replace("10001", "ten"), "line 1 of a.gtf is no GTF: invalid literal"),
    ("a.gtf", GTF + "chr1\tgene\n", "line 2 of a.gtf is no GTF: 2 columns"),
    ("a.gtf", GTF.replace("\t+\t", "\t*\t"), "a strand is"),
    ("a.gtf", GTF.replace("12000", "9000"), "1 gene ends before it starts, such as chr1:10000-9000"),
    ("a.bed", "chr1\t1\t2\tg\n", "4 columns instead of 6"),
    ("a.gtf.gz", GTF, "cannot read the annotation"),  # named .gz, but plain text
    ("a.csv", GTF, "expected .gtf or .bed"),
])
def test_damaged_annotations_are_refused(tmp_path, name, text, reason):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=reason):
        read_annotation(tmp_path / name)


def test_missing_and_cut_off_annotations_are_refused(tmp_path):
    with pytest.raises(DataError, match="cannot read"):
        read_annotation(tmp_path / "absent.gtf")
    whole = gzip.compress(GTF.encode() * 50)
    (tmp_path / "cut.gtf.gz").write_bytes(whole[:-9])
    with pytest.raises(DataError, match="cannot read"):
        read_annotation(tmp_path / "cut.gtf.gz")
    with pytest.raises(DataError, match="strand missing"):
        gene_regions(GENES.drop(columns="strand"))


@pytest.mark.parametrize("name", ACTIVITY)
def test_both_methods_need_an_annotation(cells, name):
    with pytest.raises(DataError, match=r"needs a gene annotation \(GTF or BED\).*--annotation"):
        ACTIVITY[name](Task(cells))


@pytest.mark.parametrize("name", ACTIVITY)
def test_both_methods_need_chromatin_and_common_genes(cells, drawn, name):
    options = {"annotation": drawn.assign(gene="ENSG" + drawn["gene"]), "labels_key": "cell_type"}
    options = options if name == "scjoint" else {"annotation": options["annotation"]}
    with pytest.raises(DataError, match="no gene in common"):
        ACTIVITY[name](Task(cells, options=options))
    cite = simulate(n_cells=40, n_genes=300, kind="protein")
    with pytest.raises(DataError, match="kind 'atac'"):
        ACTIVITY[name](Task(cite, options=options))


def test_scjoint_says_that_it_needs_labels(cells, drawn):
    for key, reason in ((None, "none was given"), ("absent", "no 'absent' in obs")):
        with pytest.raises(DataError, match=reason):
            fit_scjoint(Task(cells), annotation=drawn, labels_key=key)
    holes = cells.copy()
    holes.obs["half"] = np.where(np.arange(cells.n_obs) % 2, "a", None)
    with pytest.raises(DataError, match="150 cells have no 'half'"):
        label_codes(Task(holes), "half")


def test_inputs_are_sparse_and_fit_together(cells, drawn):
    seen = seen_genes(Task(cells), drawn)
    assert all(sp.issparse(x) and set(np.unique(x.data)) == {1.0} for x in seen.values())
    rna, peaks, links = linked_counts(Task(cells), drawn, n_genes=100)
    assert all(sp.issparse(x) for x in (rna, peaks, links))
    assert rna.shape == (300, 100) and peaks.shape[1] < cells["atac"].n_vars and links.shape == (peaks.shape[1], 100)


def test_losses_by_hand():
    eye = torch.eye(3)
    assert float(similarity_loss(eye[:2], eye)) == pytest.approx(-1)
    assert float(centre_loss(torch.tensor([[0.0, 5.0]]), torch.tensor([1]), torch.tensor([[9.0, 9.0], [0.0, 1.0]]))) == pytest.approx(4 / 2)
    x, y = torch.randn(30, 4, generator=torch.Generator().manual_seed(0)), torch.randn(30, 4, generator=torch.Generator().manual_seed(1))
    assert float(discrepancy(x, x)) < 1e-5 < float(discrepancy(x, y)) < float(discrepancy(x, y + 5))
    links = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert float(prior_loss([2 * eye[:2, :2], torch.tensor([[1.0, 3.0], [0.0, 1.0]])], links, torch.arange(2))) == 6


def test_the_prior_of_some_genes_is_that_of_all_on_average():
    torch.manual_seed(0)
    weights, links = [torch.randn(6, 9), torch.randn(5, 6), torch.randn(8, 5)], (torch.rand(9, 8) > 0.7).float()
    whole = float(((weights[2] @ weights[1] @ weights[0]).abs() * (1 - links.T)).sum())
    parts = [float(prior_loss(weights, links, torch.tensor([i, (i + 1) % 8]))) for i in range(8)]
    assert float(prior_loss(weights, links, torch.arange(8))) == pytest.approx(whole, rel=1e-5) == pytest.approx(np.mean(parts), rel=1e-5)


def test_diffusion_distances_equal_those_of_the_dense_power():
    points = np.random.default_rng(1).normal(size=(80, 4))
    graph = kneighbors_graph(points, 5, include_self=True).toarray()
    walk = (graph + graph.T) / (graph + graph.T).sum(1, keepdims=True)
    for t, coordinates in zip((10, 30), diffusion_coordinates(points, times=(10, 30), n_components=79)):
        power = np.linalg.matrix_power(walk, t)
        wanted, found = cdist(power, power), cdist(coordinates, coordinates)
        assert np.abs(found - wanted / np.linalg.norm(wanted)).max() < 1e-6
    few = diffusion_coordinates(points, times=(30,), n_components=40)[0]
    assert few.shape == (80, 40) and np.abs(cdist(few, few) - found).max() < 1e-5


def test_scjoint_aligns_the_modalities(cells, drawn):
    embeddings, note = fit_scjoint(Task(cells), annotation=drawn, labels_key="cell_type")
    assert note == "40 epochs" and {z.dtype for z in embeddings.values()} == {np.dtype("float32")}
    assert {z.shape for z in embeddings.values()} == {(300, 64)}
    assert foscttm(embeddings["first"], embeddings["second"]) < 0.4
    assert np.allclose(np.linalg.norm(embeddings["first"], axis=1), 1, atol=1e-5)
    assert np.allclose(embeddings["joint"], (embeddings["first"] + embeddings["second"]) / 2)


def test_scdart_trains(cells, drawn, monkeypatch):
    seen = {}
    train = scdart._train_scdart

    def watched(*arguments):
        seen["history"], planned = train(*arguments)
        return seen["history"], planned

    monkeypatch.setattr(scdart, "_train_scdart", watched)
    embeddings, note = fit_scdart(Task(cells), annotation=drawn, **SMALL)
    assert note == "15 epochs" and len(seen["history"]) == 15
    assert seen["history"][-1] < 0.7 * seen["history"][0]
    assert {z.shape for z in embeddings.values()} == {(300, 8)} and all(np.isfinite(z).all() and z.std(0).min() > 0 for z in embeddings.values())


def test_scdart_keeps_the_neighbours_of_a_modality(cells, drawn):
    options = SMALL | {"updates": 200, "matching": 0, "prior_weight": 0.01}
    embeddings, _ = fit_scdart(Task(cells), annotation=drawn, **options)
    wanted = cdist(*[diffusion_coordinates(cells["rna"].obsm["X_pca"], times=(30,))[0]] * 2)
    found = cdist(embeddings["first"], embeddings["first"])
    assert np.corrcoef(wanted.ravel(), found.ravel())[0, 1] > 0.5


def test_no_mini_batch_is_larger_than_asked(drawn):
    model = ScDART(sp.csr_matrix(np.eye(12, 6, dtype=np.float32)), ScDARTConfig(batch_size=40, hidden_activity=(8,)))
    sizes = []
    model.loss = lambda rna, atac, coordinates: sizes.append((len(rna), len(atac), coordinates[0].shape[1])) or next(model.parameters()).square().sum()
    inputs = sp.csr_matrix(np.ones((200, 6), np.float32)), sp.csr_matrix(np.ones((200, 12), np.float32))
    history, planned = scdart._train_scdart(model, inputs, (np.zeros((1, 200, 3), np.float32),) * 2, 2, 0, Clock(None))
    assert planned == len(history) == 2 and set(sizes) == {(40, 40, 40)} and len(sizes) == 10


@pytest.mark.parametrize("name", ACTIVITY)
def test_a_seed_fixes_the_result_and_leaves_the_callers_chance_alone(cells, drawn, name):
    options = {"annotation": drawn} | ({"labels_key": "cell_type"} if name == "scjoint" else SMALL)
    state = torch.random.get_rng_state()
    first, again, other = (ACTIVITY[name](Task(cells, seed=seed, epochs=2, options=options))[0]["joint"] for seed in (3, 3, 4))
    assert np.array_equal(first, again) and not np.allclose(first, other)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("name, epochs", [("scjoint", 40), ("scdart", 15)])
def test_the_limit_in_seconds_is_kept(cells, drawn, name, epochs):
    options = {"annotation": drawn} | ({"labels_key": "cell_type"} if name == "scjoint" else SMALL)
    embeddings, note = ACTIVITY[name](Task(cells, max_seconds=0.0, options=options))
    assert note == f"stopped by the limit of 0 s after 0 of {epochs} epochs"
    assert all(np.isfinite(z).all() and len(z) == 300 for z in embeddings.values())


def test_the_order_of_the_modalities_is_that_of_the_task(cells, drawn):
    turned = type(cells)({"atac": cells["atac"], "rna": cells["rna"]})
    turned.obs = cells.obs.copy()
    one, two = (fit_scjoint(Task(m, epochs=1), annotation=drawn, labels_key="cell_type")[0] for m in (cells, turned))
    assert np.array_equal(one["first"], two["second"]) and np.array_equal(one["second"], two["first"])


def test_an_annotation_may_be_a_file(cells, drawn, tmp_path):
    table = drawn.assign(score=0)[["chromosome", "start", "end", "gene", "score", "strand"]]
    table.to_csv(tmp_path / "genes.bed.gz", sep="\t", header=False, index=False)
    one, two = (fit_scjoint(Task(cells, epochs=1), annotation=a, labels_key="cell_type")[0]["joint"] for a in (drawn, str(tmp_path / "genes.bed.gz")))
    assert np.array_equal(one, two)


def test_the_task_is_not_changed(cells, drawn):
    before = [cells[name].X.copy() for name in cells.mod], cells.obs.copy()
    fit_scdart(Task(cells, epochs=1, options={"annotation": drawn} | SMALL))
    assert all((cells[name].X != x).nnz == 0 for name, x in zip(cells.mod, before[0])) and cells.obs.equals(before[1])


def test_matching_moves_cells_into_the_other_modality():
    fixed = np.random.default_rng(0).normal(size=(40, 3))
    assert np.allclose(match_latents(fixed, fixed, n_neighbors=1), fixed)
    moved = match_latents(fixed + 100, fixed, n_neighbors=3)
    assert (moved <= fixed.max(0) + 1e-6).all() and (moved >= fixed.min(0) - 1e-6).all()


@pytest.mark.parametrize("name", ["genes.bed", "genes.bed.gz"])
def test_names_beyond_ascii_are_read_as_utf_8_whatever_the_machine_writes(name, tmp_path):
    text = "chr1\t1000\t1500\tβ-globin\t0\t+\n".encode()
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    program = "import sys; from cvqvae.gene_activity import read_annotation; print(ascii(read_annotation(sys.argv[1])['gene'][0]))"
    environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    found = subprocess.run([sys.executable, "-c", program, tmp_path / name], capture_output=True, text=True, env=environment)
    assert found.stdout.strip() == r"'\u03b2-globin'", found.stderr


@pytest.mark.parametrize("name, before", [("genes.bed", ""), ("genes.gtf", "#!genome-build GRCh38\n")])
def test_the_mark_that_windows_writes_before_a_text_is_no_part_of_it(name, before, tmp_path):
    text = GTF if name.endswith("gtf") else "chr1\t1000\t1500\tHBB\t0\t+\n"
    (tmp_path / name).write_text(before + text, encoding="utf-8-sig")
    assert read_annotation(tmp_path / name)["chromosome"].tolist() == ["chr1"]


def test_an_annotation_in_another_encoding_says_how_to_save_it(tmp_path):
    (tmp_path / "genes.bed").write_bytes("chr1\t1000\t1500\tβ-globin\t0\t+\n".encode("cp1253"))
    with pytest.raises(DataError, match="cannot read the annotation .*; save it as UTF-8$"):
        read_annotation(tmp_path / "genes.bed")
