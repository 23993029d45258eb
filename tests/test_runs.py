"""The command: help, refusals before any work, one real run, and a run that fails."""

import json
import re
import shutil
import subprocess
import sys
import warnings

import anndata as ad
import mudata
import nbformat
import numpy as np
import pandas as pd
import pytest
from browser import browser, needs_chromium

from cvqvae import CVQVAE, runs
from cvqvae.cells import DataError
from cvqvae.checks import cells_per_group
from cvqvae.command import command_line, main
from cvqvae.figures import filled
from cvqvae.parameters import REPORTS, Parameters, checked, columns_of, fields_of, load_cells, read_parameters
from cvqvae.runs import earlier_model
from cvqvae.simulation import simulate
from cvqvae.tables import as_markdown


MARKUP = "<b onclick=alert(1)>$\\frac{$</b>"  # a cell type that would be markup in a page, and broken mathematics in a figure


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cells")
    mdata = simulate(n_cells=120, n_genes=300, n_peaks=600)
    for name, adata in mdata.mod.items():
        adata.obs = adata.obs[["cell_type", "batch"]]
        common = next(name for name in adata.obs["cell_type"].value_counts().index if name != "HSC")
        adata.obs["cell_type"] = adata.obs["cell_type"].cat.rename_categories({common: MARKUP})
        adata.obs["batch"] = adata.obs["batch"].cat.rename_categories({"batch1": "$\\sqrt{$"})
        if name == "rna":
            adata.var_names = [f"{gene} $\\frac{{$" for gene in adata.var_names]
        adata.write(folder / f"{name}.h5ad")
    proteins = simulate(n_cells=120, kind="protein", n_genes=300)["protein"]
    mudata.MuData({**mdata.mod, "adt": proteins}).write(folder / "three.h5mu")
    return folder


@pytest.fixture(scope="module")
def run(files):
    out = files / "run"
    flags = ["--rna", files / "rna.h5ad", "--atac", files / "atac.h5ad", "--batch", "batch", "--labels", "cell_type"]
    code = main(["integrate", *map(str, flags), "--epochs", "2", "--components", "10", "--seed", "3", "--out", str(out)])
    assert code == 0
    return out


def test_help_is_for_people(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["integrate", "--help"])
    text = capsys.readouterr().out
    assert stop.value.code == 0
    for flag in "--rna --atac --adt --mudata --dataset --batch --labels --preset --epochs --components --seed --out --params".split():
        assert flag in text
    assert "never for training" in " ".join(text.split())


def test_help_waits_for_no_picture():
    "What takes seconds to import, or warns on import, is left to the commands that need it."
    told = subprocess.run([sys.executable, "-X", "importtime", "-m", "cvqvae.command"], capture_output=True, text=True, check=True)
    assert not {"umap", "scanpy", "louvain"} & {line.split("|")[-1].strip() for line in told.stderr.splitlines()}
    assert "Warning" not in told.stderr


@pytest.mark.parametrize("arguments", [["--preset", "nonsense"], ["--epochs", "many"], ["--unknown"]])
def test_bad_flags_exit_with_2(arguments):
    with pytest.raises(SystemExit) as stop:
        main(["integrate", *arguments])
    assert stop.value.code == 2


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--rna", "{}/rna.h5ad"], "a file with several alone, as --mudata"),
        (["--rna", "{}/rna.h5ad", "--atac", "{}/missing.h5ad"], "no such file"),
        (["--rna", "{}/rna.h5ad", "--atac", "{}/atac.h5ad", "--batch", "donor"], "no such column"),
        (["--rna", "{}/rna.h5ad", "--dataset", "demo"], "exclude each other"),
        (["--dataset", "nonsense"], "No data set"),
        (["--epochs", "0"], "at least 1"),
        (["--params", "{}/missing.yaml"], "no such file"),
    ],
)
def test_bad_input_exits_with_2_and_leaves_nothing(files, tmp_path, capsys, arguments, message):
    out = tmp_path / "out"
    assert main(["integrate", *(a.format(files) for a in arguments), "--out", str(out)]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_something_in_it_is_refused(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main(["integrate", "--out", str(tmp_path)]) == 2
    assert "already exists" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["epoch: 3", "epochs: ten", "epochs: true", "preset: mine", "- 1", "a: [", "epochs: 1.5"])
def test_parameter_files_are_checked(tmp_path, text):
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(DataError):
        read_parameters(tmp_path / "p.yaml")


def test_a_parameter_file_of_another_alphabet_says_how_to_save_it(tmp_path):
    (tmp_path / "p.yaml").write_bytes("rna: Müller.h5ad".encode("latin-1"))
    with pytest.raises(DataError, match="not readable YAML.*save it as UTF-8"):
        read_parameters(tmp_path / "p.yaml")


def test_yaml_cannot_run_code(tmp_path):
    (tmp_path / "p.yaml").write_text("rna: !!python/object/apply:os.getcwd []")
    with pytest.raises(DataError, match="not readable YAML"):
        read_parameters(tmp_path / "p.yaml")


def test_flags_win_over_the_file(tmp_path):
    from cvqvae.parameters import from_flags

    (tmp_path / "p.yaml").write_text("epochs: 3\nseed: 5\ndataset: bmmc-cite")
    flags = command_line().parse_args(["integrate", "--params", str(tmp_path / "p.yaml"), "--epochs", "7", "--mudata", "/x.h5mu"])
    assert from_flags(flags).given() == {"mudata": "/x.h5mu", "epochs": 7, "seed": 5}


def test_a_run_leaves_one_whole_folder(run):
    names = {path.name for path in run.iterdir()}
    assert names == {"integrate.ipynb", "integrate.html", "integrated.h5mu", "scores.csv", "history.csv", "figures", "model", "run.json"}
    assert {"umap.png", "history.png", "codes.png"} <= {path.name for path in (run / "figures").iterdir()}
    assert not [path for path in run.parent.iterdir() if path.name.startswith(".run-")]


def test_the_record_says_how(run, files):
    from cvqvae.downloads import sha256_of

    record = json.loads((run / "run.json").read_text())
    assert record["parameters"]["epochs"] == 2 and record["seed"] == 3
    assert record["data_sha256"][str(files / "rna.h5ad")] == sha256_of(files / "rna.h5ad")
    assert record["versions"]["torch"] and record["wall_seconds"] > 1 and record["peak_memory_gib"] > 0.1


def test_results_can_be_read_again(run, files):
    mdata = mudata.read_h5mu(run / "integrated.h5mu")
    assert mdata.obsm["X_cvqvae"].shape[0] == 120
    assert list(mdata.obs_names) == list(ad.read_h5ad(files / "rna.h5ad").obs_names)
    assert len(pd.read_csv(run / "history.csv")) == 2
    scores = pd.read_csv(run / "scores.csv")
    assert set(scores["method"]) == {"cvqvae", "raw", "random"} and set(scores["view"]) == {"stacked", "joint"}


def test_the_report_folds_its_code_and_shows_pictures(run):
    page = (run / "integrate.html").read_text()
    assert page.count("<summary>code</summary>") > 10 and page.count("data:image/png") >= 3
    cells = json.loads((run / "integrate.ipynb").read_text())["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    assert outputs and not [output for output in outputs if output["output_type"] == "error" or "is deprecated" in json.dumps(output)]


def test_names_from_files_are_no_markup_in_the_report(run):
    page = (run / "integrate.html").read_text()
    assert "&lt;b onclick" in page and "<b onclick" not in page


def test_two_runs_are_never_mixed(run, files):
    with pytest.raises(DataError, match="already exists"):
        runs.run_analysis("integrate", Parameters(), run)


def test_proteins_without_labels_or_batch(tmp_path):
    for name, adata in simulate(n_cells=120, kind="protein", n_genes=300, n_proteins=20).mod.items():
        adata.write(tmp_path / f"{name}.h5ad")
    said = checked({"rna": str(tmp_path / "rna.h5ad"), "adt": str(tmp_path / "protein.h5ad"), "epochs": 1, "components": 10})
    out = runs.run_analysis("integrate", said, tmp_path / "plain")
    scores = pd.read_csv(out / "scores.csv")
    absent = scores[(scores["metric"] == "nmi") & (scores["method"] == "cvqvae")]
    assert absent["value"].isna().all() and absent["reason"].str.contains("no column was named \\(--labels\\)").all()
    cells = nbformat.read(out / "integrate.ipynb", 4).cells
    told = "".join(str(output) for cell in cells for output in cell.get("outputs", []))
    assert not [word for word in ("constrained_layout", "labels_key", "score (shared)", "'share'", "<th>share</th>") if word in told]
    assert "Isotype controls among" not in told  # there are none among the first twenty proteins
    assert "**FOSCTTM** (0 to 1, less is better)" in told and "(--labels)" in told
    integrated = mudata.read_h5mu(out / "integrated.h5mu")
    rna, proteins = integrated.mod.values()
    assert integrated.obs["cvqvae_code"].notna().all() and rna.obsm["X_umap"].shape == proteins.obsm["X_umap"].shape == (rna.n_obs, 2)
    assert type(proteins.X) is type(proteins.layers["counts"]) is np.ndarray and rna.layers["counts"].format == "csr"  # as totalVI reads them


def test_a_comparison_names_isotype_controls_as_an_integration_does(tmp_path):
    for name, adata in simulate(n_cells=120, kind="protein", n_genes=300).mod.items():
        adata.write(tmp_path / f"{name}.h5ad")
    said = {"rna": str(tmp_path / "rna.h5ad"), "adt": str(tmp_path / "protein.h5ad"), "methods": "raw", "seeds": "0", "components": 10, "resolutions": 1}
    out = runs.run_analysis("benchmark", checked(said), tmp_path / "out")
    told = "".join(output.get("text", "") for cell in nbformat.read(out / "benchmark.ipynb", 4).cells for output in cell.get("outputs", []))
    assert "Isotype controls among the proteins: IgG1-isotype, IgG2a-isotype." in told


@pytest.mark.parametrize("name", ["integrate", "benchmark", "ablation", "biology"])
def test_every_report_names_isotype_controls(name):
    sources = [cell.source for cell in nbformat.read(runs.analysis_path(name), 4).cells if cell.cell_type == "code"]
    assert sources[sources.index("describe_cells(mdata)") + 1] == "if note := isotype_note(mdata):\n    print(note)"


def test_three_modalities_have_a_report(files, tmp_path):
    cells = mudata.read_h5mu(files / "three.h5mu")
    for name, adata in cells.mod.items():
        adata.obs = cells["rna"].obs[["cell_type", "batch"]].replace({"batch": {"batch2": "2"}})
        adata.write(tmp_path / f"{name}.h5ad")
    sources = [argument for name in ("rna", "atac", "adt") for argument in (f"--{name}", str(tmp_path / f"{name}.h5ad"))]
    settings = ["--batch", "batch", "--labels", "cell_type", "--epochs", "2", "--components", "10", "--max_cells", "100", "--out", str(tmp_path / "three")]
    assert main(["integrate", *sources, *settings]) == 0
    scores = pd.read_csv(tmp_path / "three" / "scores.csv").set_index(["method", "view", "metric"])["value"]
    for method in ("cvqvae", "raw", "random"):
        assert np.isfinite(scores[[(method, "stacked", name) for name in ("foscttm", "label_transfer", "modality_asw", "score")]]).all()
    outputs = [output for cell in nbformat.read(tmp_path / "three" / "integrate.ipynb", 4).cells for output in cell.get("outputs", [])]
    assert "Isotype controls among the proteins: IgG1-isotype, IgG2a-isotype." in "".join(output.get("text", "") for output in outputs)
    assert any("Scored are 100 of the 120 cells." in str(output) for output in outputs)
    table = next(text for output in outputs if "type" in (text := output.get("data", {}).get("text/plain", "")) and text.startswith("batch"))
    assert table.split()[:3] == ["batch", "2", "$\\sqrt{$"]  # numbers first
    integrated = mudata.read_h5mu(tmp_path / "three" / "integrated.h5mu")
    assert [adata.obsm["X_cvqvae"].shape for adata in integrated.mod.values()] == 3 * [(120, 64)]


@pytest.mark.parametrize("name", ["benchmark", "biology", "ablation"])
@pytest.mark.parametrize("cells", [["--mudata", "{}/three.h5mu"], ["--rna", "{}/rna.h5ad", "--atac", "{}/atac.h5ad", "--adt", "{}/rna.h5ad"]])
def test_a_comparison_is_of_two_modalities(name, cells, files, tmp_path, capsys):
    assert main([name, *(argument.format(files) for argument in cells), "--out", str(tmp_path / "out")]) == 2
    assert f"`cvqvae {name}` compares two modalities, got" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def comparison(files):
    flags = ["--rna", files / "rna.h5ad", "--atac", files / "atac.h5ad", "--batch", "batch", "--labels", "cell_type", "--methods", "cvqvae,totalvi"]
    flags += ["--seeds", "0,1", "--epochs", "2", "--components", "10", "--resolutions", "3", "--out", files / "compared"]
    assert main(["benchmark", *map(str, flags)]) == 0
    return files / "compared"


def test_a_comparison_leaves_tables_and_keeps_its_results_beside_it(comparison):
    names = {path.name for path in comparison.iterdir()}
    assert names == {"benchmark.ipynb", "benchmark.html", "scores.csv", "tables", "figures", "run.json"}
    scores = pd.read_csv(comparison / "scores.csv")
    assert set(scores["method"]) == {"raw", "random", "cvqvae", "totalvi"} and set(scores["seed"]) == {0, 1}
    refused = scores[(scores["method"] == "totalvi") & scores["value"].isna()]
    assert len(refused) and refused["reason"].str.contains("protein|not installed").all()
    assert len(list((comparison.parent / "results").glob("cvqvae-*.npz"))) == 2
    assert json.loads((comparison / "run.json").read_text())["seed"] == "0,1"
    page = (comparison / "benchmark.html").read_text()
    assert page.count("<strong>seconds</strong> (less is better)") == page.count("<strong>graph conn.</strong> (0 to 1, more is better)") == 2  # tables


def test_an_interrupted_comparison_goes_on_from_what_is_kept(comparison, monkeypatch, files):
    kept = {path: path.stat().st_mtime_ns for path in (comparison.parent / "results").iterdir()}
    shutil.rmtree(comparison)
    flags = ["--rna", files / "rna.h5ad", "--atac", files / "atac.h5ad", "--batch", "batch", "--labels", "cell_type", "--methods", "cvqvae"]
    flags += ["--seeds", "0,1", "--epochs", "2", "--components", "10", "--resolutions", "3", "--out", comparison]
    assert main(["benchmark", *map(str, flags)]) == 0
    assert {path: path.stat().st_mtime_ns for path in (comparison.parent / "results").iterdir()} == kept
    assert "120 cells are scored" not in (comparison / "benchmark.html").read_text()
    unlabelled = [flag for flag in map(str, flags[:-1]) if flag not in ("--labels", "cell_type")]
    assert main(["benchmark", *unlabelled, str(comparison.parent / "fewer"), "--max_cells", "100"]) == 0
    assert {path: path.stat().st_mtime_ns for path in kept} == kept  # nothing is fitted again
    page = (comparison.parent / "fewer" / "benchmark.html").read_text()
    assert page.count("Scored are 100 of the 120 cells, drawn at random") == 2 and "100 of 120 cells are scored" in page
    assert "no column was named (--labels)" in page and "named (labels_key)" not in page


def test_an_ablation_measures_the_collapse_of_every_variant(files, tmp_path):
    flags = ["--rna", files / "rna.h5ad", "--atac", files / "atac.h5ad", "--seeds", "0", "--epochs", "2", "--components", "10", "--resolutions", "1"]
    assert main(["ablation", *map(str, flags), "--max-cells", "100", "--out", str(tmp_path / "out")]) == 0
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"ablation.ipynb", "ablation.html", "scores.csv", "collapse.csv", "units.csv", "tables", "figures", "run.json"}
    collapse, units = (pd.read_csv(tmp_path / "out" / f"{name}.csv") for name in ("collapse", "units"))
    for table in (collapse, units):
        assert set(table["variant"]) == {"cvae", "cvqvae-paper", "cvqvae-avg", "cvqvae-lin"}
    gaussian = collapse["variant"] == "cvae"
    assert collapse["KL, nats"].notna().equals(gaussian) and collapse["codes used"].isna().equals(gaussian)
    page = (tmp_path / "out" / "ablation.html").read_text()
    assert page.count("Scored are 100 of the 120 cells, drawn at random") == 2 and "no column was named (--labels)" in page


def test_the_biology_of_a_run_lies_in_one_folder(files, tmp_path):
    rna = ad.read_h5ad(files / "rna.h5ad")
    others = (rna.obs["cell_type"] != MARKUP) & (rna.obs["cell_type"] != "HSC")
    rna.obs["kind"] = rna.obs["cell_type"].astype(object).mask(others & (np.arange(120) % 4 == 0), "Unknown")
    rna.write(tmp_path / "rna.h5ad")
    flags = ["--rna", tmp_path / "rna.h5ad", "--atac", files / "atac.h5ad", "--labels", "kind", "--root", "HSC", "--epochs", "2", "--components", "10"]
    assert main(["biology", *map(str, flags), "--out", str(tmp_path / "read")]) == 0
    names = {path.name for path in (tmp_path / "read").iterdir()}
    written = {"biology.html", "markers-types.csv", "metacells.h5mu", "metacells.csv", "pseudotime.csv",
        "growth.csv", "label-transfer.csv", "figures", "run.json", "cells.csv", "integrated.h5mu", "model", "pseudotime-agreement-cells.csv"}
    assert written <= names
    times = pd.read_csv(tmp_path / "read" / "pseudotime.csv", index_col=0)
    page = (tmp_path / "read" / "biology.html").read_text()
    assert "&lt;b onclick" in page and "<b onclick" not in page
    assert len(times) == 120 and {"rna before", "both before", "integrated"} <= set(times)
    cells, markers = pd.read_csv(tmp_path / "read" / "cells.csv", index_col="cell"), pd.read_csv(tmp_path / "read" / "markers-types.csv")
    integrated = mudata.read_h5mu(tmp_path / "read" / "integrated.h5mu")
    assert list(cells.index) == list(integrated.obs_names) and integrated.obsm["X_cvqvae"].shape[0] == 120
    assert set(markers["group"]) <= set(cells["type"].dropna())
    assert set(cells["metacell"]) == set(pd.read_csv(tmp_path / "read" / "metacells.csv", index_col=0).index)
    assert {"code", "umap_1", "umap_2", "pseudotime integrated"} <= set(cells) and set(markers["modality"]) <= {"rna", "atac"}
    unknown = integrated.obs["kind"] == "Unknown"
    assert unknown.any() and cells["type"].isna().tolist() == unknown.tolist()
    assert "Unknown" not in set(pd.read_csv(tmp_path / "read" / "metacells.csv")["label"])
    assert CVQVAE.load(tmp_path / "read" / "model").modalities == ["rna", "atac"]


def test_biology_reads_the_space_of_an_earlier_run(run, files, tmp_path):
    flags = ["--rna", files / "rna.h5ad", "--atac", files / "atac.h5ad", "--labels", "cell_type", "--root", "HSC", "--model", run / "model"]
    assert main(["biology", *map(str, flags), "--out", str(tmp_path / "read")]) == 0
    before, after = (mudata.read_h5mu(folder / "integrated.h5mu") for folder in (run, tmp_path / "read"))
    np.testing.assert_allclose(after.obsm["X_cvqvae"], before.obsm["X_cvqvae"], atol=1e-4)
    cells = pd.read_csv(tmp_path / "read" / "cells.csv", index_col="cell")
    assert cells["code"].astype(str).tolist() == before.obs["cvqvae_code"].astype(str).tolist()
    assert {"rna before", "integrated"} <= set(pd.read_csv(tmp_path / "read" / "pseudotime.csv"))
    own, again = (CVQVAE.load(folder / "model") for folder in (run, tmp_path / "read"))
    assert len(own.history) == len(again.history) == 2
    assert "column `batch`" in (tmp_path / "read" / "biology.ipynb").read_text()  # as the model was told


@pytest.mark.parametrize("form", ["files", "cells.h5mu", "cells.h5ad"])
def test_a_gene_that_no_cell_shows_is_no_missing_gene(form, run, files, tmp_path, recwarn):
    "Few cells show few genes: a model that knows the others reads zeros, and not their averages."
    parts = {name: ad.read_h5ad(files / f"{name}.h5ad")[:40].copy() for name in ("rna", "atac")}
    for (name, part), kind in zip(parts.items(), ("Gene Expression", "Peaks")):
        part.var["feature_types"] = kind
        part.X[:, :50] = 0
        part.write(tmp_path / f"{name}.h5ad")
    mudata.MuData(parts).write(tmp_path / "cells.h5mu")
    ad.concat(parts, axis=1, merge="first").write(tmp_path / "cells.h5ad")
    source = {"rna": str(tmp_path / "rna.h5ad"), "atac": str(tmp_path / "atac.h5ad")} if form == "files" else {"mudata": str(tmp_path / form)}
    parameters = Parameters(**source, model=str(run / "model"))
    model, cells = earlier_model(parameters, load_cells(parameters, "biology"))
    assert [part.n_vars for part in cells.mod.values()] == [part.n_vars for part in parts.values()]
    assert load_cells(Parameters(**source), "biology")["rna"].n_vars <= parts["rna"].n_vars - 50  # a model that is trained on them has nothing to learn there
    found, alone = model.latents(cells), model.latents(mudata.MuData(parts))
    np.testing.assert_array_equal(found["joint"].z, alone["joint"].z)
    assert not [str(told.message) for told in recwarn if "missing here" in str(told.message)]


def test_biology_reads_a_model_that_calls_its_modalities_otherwise(run, files, tmp_path):
    "The names in an .h5mu, and those that Python was given, are anyone's; the kinds decide."
    cells = mudata.MuData({"open": ad.read_h5ad(files / "atac.h5ad"), "GEX": ad.read_h5ad(files / "rna.h5ad")})
    for name, kind in {"open": "Peaks", "GEX": "Gene Expression"}.items():
        cells[name].var["feature_types"] = kind
    cells.write(tmp_path / "cells.h5mu")
    flags = ["--mudata", tmp_path / "cells.h5mu", "--labels", "cell_type", "--root", "HSC", "--model", run / "model"]
    assert main(["biology", *map(str, flags), "--out", str(tmp_path / "read")]) == 0
    before, after = (mudata.read_h5mu(folder / "integrated.h5mu") for folder in (run, tmp_path / "read"))
    assert list(after.mod) == ["rna", "atac"]
    np.testing.assert_allclose(after[before.obs_names].obsm["X_cvqvae"], before.obsm["X_cvqvae"], atol=1e-4)


@pytest.mark.parametrize(
    "change, message",
    [
        (["--epochs", "3"], "--model and --epochs exclude each other"),
        (["--model", "{}/none"], "none"),
        (["--batch", "cell_type"], "its batches are in the column batch"),
        (["--atac", None, "--adt", "{}/proteins.h5ad"], "it was trained on rna and atac, and these cells have rna and protein"),
        (["--rna", "{}/others.h5ad"], "only 0 of the 299 rna features of the model are here"),
        (["--rna", "{}/unbatched.h5ad", "--atac", "{}/unbatched-atac.h5ad"], "trained with batches from obs\\['batch'\\]"),
    ],
)
def test_a_model_that_does_not_fit_is_refused_before_any_work(change, message, run, files, tmp_path, capsys):
    mdata, proteins = mudata.read_h5mu(files / "three.h5mu"), "adt"
    rna, atac = (ad.read_h5ad(files / f"{name}.h5ad") for name in ("rna", "atac"))
    mdata[proteins].write(tmp_path / "proteins.h5ad")
    for adata, name in ((rna, "unbatched"), (atac, "unbatched-atac")):
        bare = adata.copy()
        del bare.obs["batch"]
        bare.write(tmp_path / f"{name}.h5ad")
    rna.var_names = [f"other {i}" for i in range(rna.n_vars)]
    rna.write(tmp_path / "others.h5ad")
    said = {"--rna": str(files / "rna.h5ad"), "--atac": str(files / "atac.h5ad"), "--model": str(run / "model")}
    said |= {flag: value and value.format(tmp_path) for flag, value in zip(change[::2], change[1::2])}
    arguments = [word for flag, value in said.items() if value for word in (flag, value)]
    assert main(["biology", *arguments, "--out", str(tmp_path / "out")]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not list(tmp_path.glob("*out*"))


@pytest.mark.parametrize("batch, told", [("batch", False), ("sorted", True)])
def test_batches_that_are_cell_types_are_told_before_the_training(batch, told, files, tmp_path, monkeypatch, recwarn):
    monkeypatch.setattr(runs, "execute", lambda name, folder, used: folder / "integrate.ipynb")
    monkeypatch.setattr(runs, "write_html", lambda path: None)
    for name in ("rna", "atac"):
        cells = ad.read_h5ad(files / f"{name}.h5ad")
        cells.obs["sorted"] = cells.obs["cell_type"].isin(cells.obs["cell_type"].unique()[:3])
        cells.write(tmp_path / f"{name}.h5ad")
    source = {name: str(tmp_path / f"{name}.h5ad") for name in ("rna", "atac")}
    runs.run_analysis("integrate", Parameters(**source, batch=batch, labels="cell_type"), tmp_path / "run")
    assert any("that only one batch of 'sorted' has" in str(warning.message) for warning in recwarn) == told


@pytest.mark.parametrize("value", ["", "Unknown", None])
def test_labels_that_name_no_type_are_refused_before_any_work(value, files):
    mdata = load_cells(parameters := Parameters(rna=str(files / "rna.h5ad"), atac=str(files / "atac.h5ad"), labels="kind"))
    mdata.obs["kind"] = value
    with pytest.raises(DataError, match="--labels kind: 120 of 120 cells have no value"):
        columns_of(parameters, mdata)


WISHES = [
    (["--annotation", "none.gtf"], "none.gtf: no such file"),
    (["--methods", "raw,guesswork"], "no guesswork"),
    (["--seeds", "0,x"], "whole numbers"),
    (["--max_seconds", "0"], "at least 1"),
    (["--max-seconds", "0"], "at least 1"),
    (["--methods", ","], "names with commas"),
]


@pytest.mark.parametrize("arguments, message", WISHES)
def test_wishes_of_a_comparison_are_checked_first(arguments, message, tmp_path, capsys):
    assert main(["benchmark", *arguments, "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_more_processes_than_devices_are_refused_before_any_cell_is_read(tmp_path, capsys):
    assert main(["integrate", "--processes", "1000", "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr()
    assert "this machine has" in said.err and "cells" not in said.out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", REPORTS)
def test_a_report_declares_what_it_can_be_told(name):
    cells = json.loads(runs.analysis_path(name).read_text())["cells"]
    source = next("".join(cell["source"]) for cell in cells if "parameters" in cell["metadata"].get("tags", []))
    declared = {line.split(" = ")[0] for line in source.splitlines() if " = " in line}
    assert declared - {"out", "results", "checkpoint"} == set(fields_of(name))


def test_a_failed_run_says_so_and_exits_with_1(monkeypatch, tmp_path, capsys):
    def fail(name, folder, parameters):
        (folder / f"{name}.ipynb").write_text("{}")
        raise RuntimeError("the machine caught fire")

    monkeypatch.setattr(runs, "execute", fail)
    assert main(["integrate", "--out", str(tmp_path / "run")]) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["run-failed"]
    assert "caught fire" in (tmp_path / "run-failed" / "error.txt").read_text()
    assert "caught fire" in capsys.readouterr().err


# the page ----------------------------------------------------------------------------------------------------------------------------


@needs_chromium
def test_a_wide_table_scrolls_in_its_own_box(tmp_path):
    table = pd.DataFrame(np.ones((2, 60)), columns=[f"column{i}" for i in range(60)])
    output = nbformat.v4.new_output("execute_result", data={"text/html": table.to_html()}, execution_count=1)
    wide = nbformat.v4.new_output("execute_result", data={"text/markdown": as_markdown(table)}, execution_count=1)
    cells = [nbformat.v4.new_code_cell("1", outputs=[one]) for one in (output, wide)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "r.ipynb")
    path = runs.write_html(tmp_path / "r.ipynb")
    with browser() as page:
        for width in (1200, 400):
            page.size(width, 800, phone=width == 400)
            page.open(path.as_uri(), "document.readyState === 'complete'")
            assert page.js("document.body.scrollWidth <= innerWidth")
            for box in page.js("[...document.querySelectorAll('.jp-OutputArea-output')].map(box => [box.scrollLeft = 90, box.scrollLeft])"):
                assert box == [90, 90]
            rows = "[...document.querySelectorAll('.jp-RenderedMarkdown td:first-child')].map(cell => cell.getBoundingClientRect().left)"
            assert min(page.js(rows)) >= 0


@pytest.mark.parametrize("name", REPORTS)
def test_a_report_warns_in_sentences(name):
    cells = [cell["source"] for cell in nbformat.read(runs.analysis_path(name), 4).cells if cell["cell_type"] == "code"]
    shown = next(number for number, source in enumerate(cells) if "load_cells(parameters" in source)
    assert any("\nwarn_plainly()\n" in source for source in cells[:shown])


def test_a_note_about_the_cells_is_told_once(files, tmp_path, monkeypatch, capsys):
    "Cells are read before a run and by its notebook, which both remark on them; the notebook keeps its remark."
    mdata = mudata.read(files / "three.h5mu")
    for adata in mdata.mod.values():
        adata.var = adata.var.drop(columns="feature_types")
    mdata.write(tmp_path / "unsaid.h5mu")

    def notebook(name, folder, parameters):
        print(f"[1 s] cells\n{told}\nnote: something new", file=runs._Untold(sys.stderr), end="")
        raise DataError("enough")

    monkeypatch.setattr(runs, "execute", notebook)
    told = "note: var['feature_types'] is missing, so names say what was measured: 'rna' is rna, 'atac' is atac, 'adt' is protein."
    for number in range(2):
        assert main(["integrate", "--mudata", str(tmp_path / "unsaid.h5mu"), "--out", str(tmp_path / f"run{number}")]) != 0
        said = capsys.readouterr().err
        assert said.count(told) == 1 and "note: something new" in said and "[1 s] cells\n" in said


def test_labels_that_are_truth_values_are_counted_without_a_remark():
    source = next(cell["source"] for cell in nbformat.read(runs.analysis_path("integrate"), 4).cells if cell["source"].startswith("unknown = "))
    mdata = simulate(n_cells=60, n_genes=150, n_peaks=100)
    mdata.obs["doublet"] = np.resize([True, False], mdata.n_obs)
    known = {"pd": pd, "filled": filled, "cells_per_group": cells_per_group, "mdata": mdata, "columns": {"labels": "doublet", "batch": "batch"}}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exec(source, known)
    assert list(known["types"][:2]) == [True, False]
