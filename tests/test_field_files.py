"""Files as the tools of the field write them: what is in them is read for what it is, or refused with the line that mends it."""

import gzip
import re

import anndata as ad
import mudata
import numpy as np
import pandas as pd
import pytest
from bad_cells import SMALL
from test_datasets import genes, modality, peaks, write_10x

from cvqvae.cells import DataError, declare_kind, pair_modalities
from cvqvae.command import main
from cvqvae.datasets import read_any, read_pair
from cvqvae.explorer import explorer_content
from cvqvae.figures import plot_integration
from cvqvae.ground_truth import Truth
from cvqvae.integration import CVQVAE
from cvqvae.mosaic import join_modalities
from cvqvae.parameters import Parameters, columns_of
from cvqvae.simulation import simulate

PANEL = [f"CD{i}" for i in range(1, 11)]
PROTEINS = {"rna": "rna", "adt": "protein"}


# features ----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tags", [["Hashtag_1", "Hashtag_2"], ["HTO_A", "HTO_B"], ["CMO301", "CMO302"], ["C0251_anti-human_Hashtag_1"]])
@pytest.mark.filterwarnings("ignore:Pairing kept")
def test_hashtags_of_a_multi_run_are_no_proteins(tmp_path, tags):
    names = ["ACTB", "CD3E", *PANEL, "IgG1-isotype", *tags]
    write_10x(tmp_path / "cells.h5", np.ones((4, len(names)), int), names, ["Gene Expression"] * 2 + ["Antibody Capture"] * (len(names) - 2))
    mdata = read_any(tmp_path / "cells.h5")
    assert list(mdata["protein"].var_names) == [*PANEL, "IgG1-isotype"]
    assert mdata.uns["cvqvae_pairing"]["hashtags_protein"] == len(tags)


def stacked():
    "Genes and proteins in one matrix, without a word about which are which."
    mdata = simulate(n_cells=60, n_genes=300, kind="protein")
    whole = ad.concat([mdata["rna"], mdata["protein"]], axis=1)
    whole.obs, whole.var = mdata["rna"].obs.copy(), pd.DataFrame(index=[*mdata["rna"].var_names, *mdata["protein"].var_names + "_TotalSeqB"])
    return whole, mdata["protein"].var_names + "_TotalSeqB"


def test_genes_and_proteins_in_one_matrix_are_told_apart_as_the_error_says(tmp_path):
    whole, proteins = stacked()
    whole.write(tmp_path / "cells.h5ad")
    for read in (lambda: read_any(tmp_path / "cells.h5ad"), lambda: CVQVAE({"rna": whole, "protein": whole[:, proteins].copy()}, **SMALL),
                 lambda: read_pair(whole, whole[:, proteins].copy(), ("rna", "protein"))):  # fmt: skip
        with pytest.raises(DataError, match="feature_types'] is missing") as refused:
            read()
    line = re.search(r"adata\.var\['feature_types'\] = numpy\.where\(.*?'Gene Expression'\)", str(refused.value))[0]
    exec(line, {"adata": whole, "numpy": np, "PROTEINS": proteins})
    whole.write(tmp_path / "cells.h5ad")
    assert {name: adata.n_vars for name, adata in read_any(tmp_path / "cells.h5ad").mod.items()}["protein"] == len(proteins)


def test_proteins_in_obsm_become_a_file_as_the_error_says(tmp_path):
    "As scvi-tools, CELLxGENE and our own `to_anndata` keep them."
    mdata = simulate(n_cells=60, n_genes=300, kind="protein")
    adata = mdata["rna"].copy()
    del adata.var["feature_types"]
    adata.obsm["protein_expression"] = mdata["protein"].to_df().astype(int)
    adata.write(tmp_path / "cells.h5ad")
    with pytest.raises(DataError, match="Proteins seem to lie in obsm") as refused:
        read_any(tmp_path / "cells.h5ad")
    line = re.search(r"anndata\.AnnData\(.*?\)\.write_h5ad\('proteins.h5ad'\)", str(refused.value))[0].replace("proteins.h5ad", str(tmp_path / "proteins.h5ad"))
    exec(line, {"adata": adata, "anndata": ad})
    paired = read_pair(tmp_path / "cells.h5ad", tmp_path / "proteins.h5ad", ("rna", "protein"))
    assert np.array_equal(paired["protein"].X, mdata["protein"].X.toarray()) and paired["protein"].var_names.equals(mdata["protein"].var_names)


@pytest.mark.parametrize("kind", ["rna", "atac"])
def test_the_line_for_proteins_is_no_advice_where_there_are_none(tmp_path, kind):
    adata = simulate(n_cells=20, n_genes=150, n_peaks=100)[kind]
    del adata.var["feature_types"]
    adata.write(tmp_path / "cells.h5ad")
    with pytest.raises(DataError, match="one for each feature. Then write the file again.$"):
        read_any(tmp_path / "cells.h5ad")


def test_genes_that_are_called_as_antibodies_are_genes_where_the_file_says_so():
    whole, proteins = stacked()
    whole.var["feature_types"] = "Gene Expression"
    assert declare_kind(whole, "rna").n_vars == whole.n_vars


def test_hashtags_alone_are_refused(tmp_path):
    write_10x(tmp_path / "cells.h5", np.ones((4, 4), int), ["ACTB", "CD3E", "HTO1", "HTO2"], ["Gene Expression"] * 2 + ["Antibody Capture"] * 2)
    with pytest.raises(DataError, match="only hashtags, such as 'HTO1'"):
        read_any(tmp_path / "cells.h5")


@pytest.mark.parametrize("features, says", [([], "'more' is empty: 4 cells x 0 features"), (["tag_a", "tag_b"], "'more' does not say what it measures")])
def test_a_modality_of_something_else_can_be_left_out_as_the_error_says(tmp_path, features, says):
    parts = {"rna": genes("abcd"), "prot": modality("abcd", PANEL), "more": ad.AnnData(np.ones((4, len(features)), "float32"))}
    parts["more"].obs_names, parts["more"].var_names = list("abcd"), features
    mudata.MuData(parts).write(tmp_path / "cells.h5mu")
    with pytest.raises(DataError, match=says) as refused:
        read_any(tmp_path / "cells.h5mu")
    line = re.search(r"write the file without it: (mudata\..*)\.write", str(refused.value))[1]
    eval(line, {"mudata": mudata, "mdata": mudata.read(tmp_path / "cells.h5mu")}).write(tmp_path / "rest.h5mu")
    assert list(read_any(tmp_path / "rest.h5mu").mod) == ["rna", "prot"]


def test_features_of_another_type_are_told(tmp_path):
    names, types = ["ACTB", "CD3E", "chr1:5-9", "chr1:20-30", "GFP"], ["Gene Expression"] * 2 + ["Peaks"] * 2 + ["Custom"]
    write_10x(tmp_path / "cells.h5", np.ones((4, 5), int), names, types)
    with pytest.warns(UserWarning, match="Left out: 1 feature of the type Custom, such as 'GFP'"):
        read_any(tmp_path / "cells.h5")


def test_genes_of_one_name_are_settled_without_a_remark(tmp_path, recwarn):
    write_10x(tmp_path / "cells.h5", np.ones((4, 4), int), ["ACTB", "ACTB", "CD3", "CD4"], ["Gene Expression"] * 2 + ["Antibody Capture"] * 2)
    assert list(read_any(tmp_path / "cells.h5")["rna"].var_names) == ["ACTB", "ACTB-1"]
    assert not [one for one in recwarn if "not unique" in str(one.message)]


@pytest.mark.parametrize("join", [pair_modalities, join_modalities])
@pytest.mark.parametrize("genes, said", [(1000, True), (100, False)])
def test_a_raw_matrix_is_told(join, genes, said, recwarn):
    rng, names = np.random.default_rng(0), [f"cell{i}" for i in range(50)]
    rna = np.zeros((50, genes), "float32")
    rna[:, 0], rna[:10] = 3, rng.poisson(2, (10, genes))  # ten cells and forty droplets
    cells = modality(names, [f"GENE{i}" for i in range(genes)])
    cells.X = rna
    join({"rna": cells, "adt": modality(names, PANEL)}, PROTEINS)
    assert any("40 of 50 cells of 'rna' have fewer than 10 counts" in str(one.message) for one in recwarn) == said


@pytest.mark.parametrize("kinds", [{"rna": "protein", "adt": "atac"}, {"rna": "protein", "adt": "rna"}])
def test_antibodies_are_neither_peaks_nor_genes(kinds):
    with pytest.raises(DataError, match="features are antibodies.*declare it as 'protein'"):
        pair_modalities({"rna": genes("abc"), "adt": modality("abc", PANEL)}, kinds)


def test_one_file_twice():
    with pytest.raises(DataError, match="the same file twice"):
        pair_modalities({"rna": genes("abc"), "adt": genes("abc")}, PROTEINS)


# cells -------------------------------------------------------------------------------------------------------------------------------

BARCODES = ["GAAACGGTGAAAGTCT", "AAACCCAAGATTGTGA", "TTTGGTTGTCTACGAG"]


@pytest.mark.parametrize("first, second", [("{}-1", "{}"), ("s1_{}-1", "{}-1_1"), ("{}-1", "s1#{}-1")])
def test_one_barcode_in_two_spellings(first, second):
    "A protein may be called as its gene, and `-1_1` reads like a region: neither makes the cells stand in the columns."
    rna, adt = modality([first.format(b) for b in BARCODES], ["CD4", *PANEL[4:]]), modality([second.format(b) for b in BARCODES], PANEL)
    with pytest.raises(DataError, match="barcodes inside are the same.*str.extract") as caught:
        pair_modalities({"rna": rna, "adt": adt}, PROTEINS)
    assert "columns" not in str(caught.value)


def test_barcodes_that_repeat_between_samples_are_not_shortened():
    rna, adt = genes([f"{b}-{i}" for b in BARCODES for i in (1, 2)]), modality(BARCODES, PANEL)
    with pytest.raises(DataError, match="spell the sample in the same way"):
        pair_modalities({"rna": rna, "adt": adt}, PROTEINS)


def test_numbers_are_no_names_of_cells():
    rna, adt = genes(list("012345")), modality(list("0123"), PANEL)
    with pytest.raises(DataError, match="0 to 5 and 0 to 3: the same number is not the same cell"):
        pair_modalities({"rna": rna, "adt": adt}, PROTEINS)
    with pytest.warns(UserWarning, match="paired by that"):
        pair_modalities({"rna": rna, "adt": modality(list("012345"), PANEL)}, PROTEINS)


@pytest.mark.filterwarnings("ignore:Pairing kept")
def test_samples_that_share_barcodes_by_chance():
    rna, adt = genes([f"a{i}" for i in range(30)] + ["x"]), modality([f"b{i}" for i in range(30)] + ["x"], PANEL)
    with pytest.warns(UserWarning, match="Only 1 of 31 cell names are in both files"):
        pair_modalities({"rna": rna, "adt": adt}, PROTEINS)


# counts and formats ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["layers['raw_counts']", "raw"])
def test_counts_in_another_slot_are_pointed_at(tmp_path, place):
    rna = genes("abc")
    scaled = rna.copy()
    scaled.X = rna.X * 0.3
    if place == "raw":
        scaled.raw, words = rna, r"layers\['counts'\] = adata.raw\[:, adata.var_names\].X"
    else:
        scaled.layers["raw_counts"], words = rna.X, r"layers\['counts'\] = adata.layers\['raw_counts'\]"
    scaled.write_h5ad(tmp_path / "rna.h5ad")
    with pytest.raises(DataError, match=words):
        read_pair(tmp_path / "rna.h5ad", peaks("abc"))


@pytest.mark.parametrize("name, words", [
    ("cells.rds", "writeH5AD"), ("cells.h5seurat", "SeuratDisk::Convert"), ("matrix.mtx.gz", "read_10x_mtx"), ("counts.csv.gz", "read_csv"),
    ("cells.loom", "read_loom")])
def test_other_formats_say_how_to_convert_them(tmp_path, name, words, capsys):
    (tmp_path / name).write_bytes(gzip.compress(b"x"))
    for flags in (["--mudata", str(tmp_path / name)], ["--rna", str(tmp_path / name), "--adt", str(tmp_path / name)]):
        assert main(["integrate", *flags, "--out", str(tmp_path / "out")]) == 2
        assert words in capsys.readouterr().err


def test_a_10x_folder_or_matrix_is_explained(tmp_path):
    (tmp_path / "filtered").mkdir()
    (tmp_path / "filtered" / "matrix.mtx.gz").touch()
    with pytest.raises(DataError, match="read_10x_mtx.*--mudata"):
        read_pair(tmp_path / "filtered", peaks("abc"))
    write_10x(tmp_path / "cells.h5", np.ones((3, 2), int), ["ACTB", "CD3E"], ["Gene Expression"] * 2)
    with pytest.raises(DataError, match="10x feature-barcode matrix.*--mudata"):
        read_pair(tmp_path / "cells.h5", peaks("abc"))


# columns -----------------------------------------------------------------------------------------------------------------------------


def cells():
    mdata = simulate(n_cells=80, n_genes=150, n_peaks=200)
    return mudata.MuData({name: ad.AnnData(part.X, obs=part.obs[[]], var=part.var) for name, part in mdata.mod.items()})


def with_columns(tmp_path, joint, **own):
    "An .h5mu whose modalities have columns of their own; values are repeated."
    mdata = cells()
    for name, values in own.items():
        mdata[name].obs["leiden"] = mdata.obs[f"{name}:leiden"] = np.resize(values, mdata.n_obs)
    for name, values in joint.items():
        mdata.obs[name] = np.resize(values, mdata.n_obs)
    mdata.write_h5mu(tmp_path / "cells.h5mu")
    return tmp_path / "cells.h5mu"


@pytest.mark.parametrize("backed", [False, True])
def test_a_joint_clustering_is_not_that_of_one_modality(tmp_path, backed):
    path = with_columns(tmp_path, {"leiden": ["joint0", "joint1"]}, rna=["rna0"])
    assert set(read_any(path, backed=backed).obs["leiden"]) == {"joint0", "joint1"}


def test_a_number_and_its_text_are_one_donor(tmp_path):
    path = with_columns(tmp_path, {}, rna=[1, 2], atac=["1", "2"])
    assert columns_of(Parameters(mudata=str(path), batch="leiden"), mdata := read_any(path))["batch"] == "leiden"
    assert set(mdata.obs["leiden"]) == {1, 2}


@pytest.mark.parametrize("backed", [False, True])
def test_columns_that_differ_are_named_with_their_modality(tmp_path, backed):
    path = with_columns(tmp_path, {}, rna=["r0", "r1"], atac=["a0", "a1"])
    mdata = read_any(path, backed=backed)
    assert columns_of(Parameters(mudata=str(path), labels="rna:leiden"), mdata)["labels"] == "rna:leiden"
    assert set(Truth.from_mudata(mdata, labels_key="rna:leiden").labels) == {"r0", "r1"}


@pytest.mark.filterwarnings("ignore")
def test_a_batch_that_only_the_container_knows_can_be_explored(tmp_path):
    mdata = read_any(with_columns(tmp_path, {"lane": ["a", "b"]}, rna=["r0", "r1"], atac=["a0", "a1"]))
    model = CVQVAE(mdata, batch_key="lane", **SMALL).fit(progress=False)
    page = explorer_content(model.embed(mdata), labels_key="rna:leiden", features=[part.var_names[0] for part in mdata.mod.values()], model=model)
    assert any("predicted" in column["group"] for column in page["columns"])


def test_an_empty_text_is_no_type():
    mdata = cells()
    mdata.obs["kind"] = np.resize(["", "T", "B"], mdata.n_obs)
    for name, part in mdata.mod.items():
        part.obsm["X_cvqvae"] = part.obsm["X_lsi" if name == "atac" else "X_pca"] = np.random.default_rng(0).normal(size=(mdata.n_obs, 3)).astype("float32")
    legend = [text.get_text() for ax in plot_integration(mdata, "kind").axes if ax.get_legend() for text in ax.get_legend().get_texts()]
    assert legend[:3] == ["B", "T", "missing"]


@pytest.mark.parametrize("value, dtype", [(1, "Int64"), (True, "boolean"), ("a", "string")])
def test_cells_without_a_nullable_label_are_not_scored(value, dtype):
    mdata = cells()
    mdata.obs["kind"] = pd.array([value if i % 2 else None for i in range(mdata.n_obs)], dtype=dtype)
    assert Truth.from_mudata(mdata, labels_key="kind").kept.sum() == mdata.n_obs // 2
