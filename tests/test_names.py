"What is called in unusual ways is read all the same: genomes before genes, kinds in the names of modalities, barcodes in other spellings."

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from mudata import MuData

from cvqvae import CVQVAE, DataError
from cvqvae.cells import modality_kind, pair_modalities
from cvqvae.datasets import read_any, simulate
from cvqvae.ground_truth import Truth, cycle_genes, organism_of
from cvqvae.mosaic import join_modalities
from cvqvae.names import isotype_controls, matched_names


@pytest.mark.parametrize("genome", ["GRCh38_", "GRCh38______", "hg19_", "GRCh38-2020-A_"])
def test_a_genome_before_the_genes_hides_neither_cycle_nor_organism(genome):
    mdata = simulate(n_cells=60, n_genes=300, n_peaks=100)
    del mdata.uns["organism"]
    for adata in mdata.mod.values():
        adata.uns.pop("organism", None)
    plain = Truth.from_mudata(mdata)
    assert plain.cycle is not None, plain.reasons
    names = mdata["rna"].var_names
    mdata["rna"].var_names = genome + names
    truth = Truth.from_mudata(mdata)
    assert truth.organism == plain.organism == "human"
    assert truth.cycle is not None and np.allclose(truth.cycle, plain.cycle)
    assert mdata["rna"].var_names[0] == genome + names[0]
    found = cycle_genes(mdata["rna"].var_names, "human")
    assert all(gene.startswith(genome) for genes in found.values() for gene in genes)


@pytest.mark.parametrize("genes", [["mm10___Cd3e", "mm10___Lyz2", "mm10___mt-Co1"], ["mm10___ENSMUSG00000032093"], ["Cd3e", "Lyz2"]])
def test_mice_are_known_by_their_genes(genes):
    var = pd.DataFrame({"feature_types": "Gene Expression"}, index=genes)
    assert organism_of(MuData({"rna": AnnData(np.ones((3, len(genes)), np.float32), var=var)})) == "mouse"


def test_map_says_how_barcodes_are_made_to_agree(tmp_path):
    mdata = simulate(n_cells=60, kind="protein", n_genes=200, n_proteins=20)
    barcodes = pd.Index(["".join(np.random.default_rng(i).choice(list("ACGT"), 16)) for i in range(60)])
    rna, adt = mdata["rna"].copy(), mdata["protein"].copy()
    rna.obs_names, adt.obs_names = barcodes + "-1", "s1_" + barcodes
    with pytest.raises(DataError, match="str.extract"):
        join_modalities({"rna": rna, "protein": adt})
    adt.obs_names = adt.obs_names.str[3:] + "-2"
    rna.obs_names = [f"cell {i}" for i in range(60)]
    with pytest.raises(DataError, match="make the spellings agree.$"):
        join_modalities({"rna": rna, "protein": adt})




@pytest.mark.parametrize("ones_own", ["chr1:", "column", "category", "turned"])
def test_the_features_of_a_model_are_found_however_they_are_called(ones_own):
    mdata = simulate(n_cells=120, n_genes=200, n_peaks=300)
    model = CVQVAE(mdata.copy(), hidden=(16,), n_latent=4, n_codes=8, n_components=6, epochs=1, device="cpu").fit(progress=False)
    name = "atac" if ones_own == "chr1:" else "rna"
    new, expected = mdata[name].copy(), model.latents(mdata[name].copy())[name].z.numpy()
    if ones_own == "turned":
        turned = new.T.copy()
        turned.var["feature_types"] = "Gene Expression"
        with pytest.raises(DataError, match="the cells stand in the columns, transpose them"):
            model.latents(turned)
        return
    if ones_own == "chr1:":
        new.var_names = new.var_names.str.replace("-", ":", n=1)
    else:
        new.var["gene_symbols"] = new.var_names.astype("category" if ones_own == "category" else object)
        new.var_names = [f"ENSG{i:011d}" for i in range(new.n_vars)]
    with pytest.warns(UserWarning, match=f"{name} features are matched by var") as told:
        found = model.latents(new)[name].z.numpy()
    assert len([w for w in told if "are matched by" in str(w.message)]) == 1
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_names_that_two_features_share_are_not_guessed():
    var = pd.DataFrame({"gene_name": ["A", "A", "B", "C", None], "batch": list("ABCDE")}, index=[f"E{i}" for i in range(5)])
    names, where = matched_names(pd.Index(list("ABC")), var)
    assert (list(names), where) == (["E0", "E1", "B", "C", "E4"], "var['gene_name']")
    assert matched_names(pd.Index(list("AD")), var)[1] == ""


@pytest.mark.parametrize("which", [("rna",), ("adt",), ("rna", "adt")])
@pytest.mark.parametrize("barcodes", [True, False])
@pytest.mark.parametrize("join", [pair_modalities, join_modalities])
def test_files_with_cells_in_the_columns_are_told_by_name(which, barcodes, join):
    mdata = simulate(n_cells=60, kind="protein", n_genes=200, n_proteins=20)
    names = ["".join(np.random.default_rng(i).choice(list("ACGT"), 16)) + "-1" if barcodes else f"cell {i}" for i in range(60)]
    modalities = {"rna": mdata["rna"].copy(), "adt": mdata["protein"].copy()}
    for name, adata in modalities.items():
        adata.obs_names = names
        adata.var.drop(columns="feature_types", inplace=True)
        modalities[name] = adata.T if name in which else adata
    with pytest.raises(DataError, match="stand in the columns.*[Tt]ranspose") as caught:
        join(modalities, {"rna": "rna", "adt": "protein"})
    if barcodes or len(which) == 1:
        assert f"'{which[0]}'" in str(caught.value) and "both" not in str(caught.value)


def undeclared(kind, *names):
    "Paired cells whose modalities have other names and say nothing about what they measure."
    parts = dict(zip(names, simulate(n_cells=60, kind=kind, n_genes=200, n_peaks=120, n_proteins=20).mod.values()))
    return MuData({name: AnnData(a.X, obs=a.obs[[]], var=a.var[[]]) for name, a in parts.items()})


@pytest.mark.parametrize("kind, names", [("atac", ("rna", "atac")), ("atac", ("GEX", "peaks")), ("protein", ("rna", "prot")), ("protein", ("gex", "adt"))])
def test_usual_names_of_modalities_say_what_they_measure(tmp_path, kind, names):
    mdata = undeclared(kind, *names)
    mdata.write(tmp_path / "cells.h5mu")
    with pytest.warns(UserWarning, match=f"names say what was measured: {names[0]!r} is rna, {names[1]!r} is {kind}"):
        assert [modality_kind(a) for a in read_any(tmp_path / "cells.h5mu").mod.values()] == ["rna", kind]
    with pytest.warns(UserWarning, match="names say what"):
        model = CVQVAE(mdata, epochs=1, device="cpu").fit(progress=False)
    assert model.embed(mdata) is mdata and mdata.obsm["X_cvqvae"].shape[0] == mdata.n_obs
    assert model.kinds == dict(zip(names, ("rna", kind))) and all("feature_types" not in a.var for a in mdata.mod.values())
    assert model.translate(mdata[names[0]], to=names[1], source=names[0]).n_obs == mdata.n_obs
    assert Truth.from_mudata(mdata).components is not None


@pytest.mark.parametrize("names, words", [(("rna", "chromatin"), "'chromatin' does not say"), (("atac", "rna"), "swap the files")])
def test_names_that_say_nothing_or_lie_are_errors(names, words):
    with pytest.raises(DataError, match=words):
        CVQVAE(undeclared("atac", *names))


@pytest.mark.parametrize("name, control", [
    ("IgG1_control_TotalSeqB", True), ("IgG2a_control_TotalSeqB", True), ("IgG2b_control", True), ("IgG1-isotype", True), ("Rat IgG2b, κ Isotype Ctrl", True),
    ("rat_IgG2b", True), ("Mouse-IgG1", True), ("MouseIgG2aKappaIsotype", True), ("isotype_RTK4174", True), ("armenian-hamster-igg1", True),
    ("ArmenianHamsterIsotype", True), ("IgG2bk", True), ("neg_ctrl_1", True), ("CD16", False), ("CD32", False), ("IgM", False), ("IgD_TotalSeqB", False),
    ("Ig light chain kappa", False), ("IgG Fc", False), ("anti-human IgG1", False), ("IgG4_Fc", False), ("TIGIT_TotalSeqB", False), ("FceRIa", False),
    ("controlled", False), ("CD152 (CTLA-4)", False)])
def test_isotype_controls_are_told_from_other_proteins(name, control):
    assert isotype_controls(pd.Index([name]))[0] == control
