"People read symbols where genes are called by Ensembl's ids; files, models and matching keep the ids."

import json

import numpy as np
import pandas as pd
import pytest
from anndata import read_h5ad
from browser import browser, needs_chromium

from cvqvae import CVQVAE
from cvqvae.biology import genes_of
from cvqvae.command import main
from cvqvae.datasets import simulate
from cvqvae.cells import DataError
from cvqvae.explorer import explorer_content, export_explorer
from cvqvae.explorer_widget import Explorer
from cvqvae.metacells import metacells
from cvqvae.names import asked_names, meant_by, shown_names


@pytest.fixture(scope="module")
def fitted():
    mdata = simulate(n_cells=200, n_genes=300, n_peaks=300, seed=0)
    rna = mdata["rna"]
    rna.var = rna.var.assign(feature_name=rna.var_names).set_axis([f"ENSG{i:011d}" for i in range(rna.n_vars)])
    model = CVQVAE(mdata, epochs=3, n_codes=16, device="cpu").fit(progress=False)
    model.embed(mdata)
    mdata.obsm["X_umap"] = mdata.obsm["X_cvqvae"][:, :2]
    return model, mdata


def symbols(mdata):
    return mdata["rna"].var["feature_name"]


@pytest.fixture
def page():
    with browser() as opened:
        yield opened


def test_metacells_are_called_by_symbols_and_keep_ids(fitted):
    model, mdata = fitted
    found = metacells(model, n_metacells=4)
    genes = found.obs["name"].str.split(" / ").str[0]
    assert not found.obs["name"].str.contains("ENSG").any()
    assert set(genes[~genes.str.match("–|group ")]) <= set(symbols(mdata))
    assert list(found["rna"].var_names) == list(mdata["rna"].var_names)


def test_the_page_shows_symbols_under_keys_of_ids(fitted):
    model, mdata = fitted
    gene, symbol = symbols(mdata).index[5], symbols(mdata).iloc[5]
    content = explorer_content(mdata, "cell_type", features=[symbol], most_features=40, model=model)
    genes = {c["key"]: c["label"] for c in content["columns"] if c.get("feature") and c["group"] == "rna"}
    assert genes[f"rna:{gene}"] == symbol
    assert not any("ENSG" in label for label in genes.values()) and "ENSG" not in json.dumps(content["code_names"])
    rows = [row for group in content["markers"]["cell_type"].values() for row in group.get("rna", [])]
    assert rows and all(symbols(mdata)[row[0]] == row[3] for row in rows)
    assert explorer_content(mdata, features=[gene], most_features=1)["columns"][-1]["key"].startswith("rna:ENSG")


@needs_chromium
def test_the_browser_finds_a_gene_by_either_name(fitted, page, tmp_path):
    model, mdata = fitted
    gene, symbol = symbols(mdata).index[5], symbols(mdata).iloc[5]
    path = export_explorer(mdata, tmp_path / "cells.html", labels_key="cell_type", features=[gene], most_features=300)
    marked = explorer_content(mdata, "cell_type", most_features=40)["markers"]["cell_type"]
    page.open(f"{path.as_uri()}#type={next(name for name, group in marked.items() if 'rna' in group)}")
    for asked in (symbol, gene):
        page.js("document.getElementById('search').value = ''")
        page.js("document.getElementById('search').focus()")
        page.call("Input.insertText", text=asked)
        page.key("Enter")
        page.wait(f"document.documentElement.dataset.colour === {json.dumps(f'rna:{gene}')}")
    page.wait("document.querySelector('[data-markers=rna] button') !== null")
    first = page.js("document.querySelector('[data-markers=rna] button').textContent")
    page.js("document.querySelector('[data-markers=rna] button').click()")
    page.wait(f"document.documentElement.dataset.colour === {json.dumps('rna:' + symbols(mdata)[lambda s: s == first].index[0])}")
    assert "ENSG" not in page.js("document.body.innerText") and page.complaints() == []


def test_the_notebook_widget_speaks_in_symbols(fitted):
    model, mdata = fitted
    view = Explorer(mdata, model, "cell_type")
    gene, symbol = symbols(mdata).index[5], symbols(mdata).iloc[5]
    assert view.values(symbol).equals(view.values(gene)) and view.values(f"rna:{gene}").name == f"rna:{symbol}"
    for group in mdata.obs["cell_type"].unique():
        assert not any("ENSG" in table.to_html() for table in view.about("cell_type", group).values())
    view.widget  # noqa: B018
    assert not any("ENSG" in option for option in view.colour.options) and any(o.startswith("rna:") for o in view.colour.options)


def test_predictions_keep_the_ids(fitted):
    model, mdata = fitted
    assert list(model.translate(mdata["atac"], to="rna").var_names) == list(model.transforms["rna"].feature_names)
    assert model.transforms["rna"].feature_names.str.startswith("ENSG").all()


def test_a_prediction_is_asked_for_by_either_name(fitted, tmp_path, capsys):
    model, mdata = fitted
    genes = symbols(mdata)[model.transforms["rna"].feature_names[[7, 3]]]
    expected = model.translate(mdata["atac"], to="rna", features=list(genes.index))
    model.save(tmp_path / "model")
    mdata["atac"].write(tmp_path / "atac.h5ad")
    flags = ["--model", tmp_path / "model", "--atac", tmp_path / "atac.h5ad", "--to", "rna"]
    asked = f"{genes.iloc[0]},{genes.index[1]},, {genes.iloc[1]}"
    assert main(["translate", *map(str, flags), "--features", asked, "--out", str(tmp_path / "rna.h5ad")]) == 0
    found = read_h5ad(tmp_path / "rna.h5ad")
    assert list(found.var_names) == list(genes.index) and list(found.var["feature_name"]) == list(genes)
    np.testing.assert_array_equal(found.X, expected.X)
    capsys.readouterr()
    for asked, message in [
        (f"{genes.iloc[0]},{genes.iloc[1].lower()}", f"1 of 2 features is not predicted by this model, such as '{genes.iloc[1].lower()}'"),
        (genes.iloc[1].lower(), f"Did you mean '{genes.iloc[1]}'?"),
        (" , ", "--features names no feature"),
        ("", "--features names no feature"),
    ]:
        assert main(["translate", *map(str, flags), "--features", asked, "--out", str(tmp_path / "none.h5ad")]) == 2
        assert message in capsys.readouterr().err and not (tmp_path / "none.h5ad").exists()


def test_symbols_lie_in_a_model_only_where_there_are_any(fitted, tmp_path):
    model, mdata = fitted
    about = model.save(tmp_path / "model") / "model.json"
    saved = json.loads(about.read_text())
    assert set(saved["transforms"]["rna"]["symbols"]) == set(model.transforms["rna"].feature_names) and "symbols" not in saved["transforms"]["atac"]
    del saved["transforms"]["rna"]["symbols"]  # as in models saved before symbols were kept
    about.write_text(json.dumps(saved))
    before, gene = CVQVAE.load(tmp_path / "model"), symbols(mdata)[model.transforms["rna"].feature_names[:1]]
    np.testing.assert_array_equal(before.translate(mdata["atac"], "rna", features=gene.index).X, model.translate(mdata["atac"], "rna", features=gene).X)
    with pytest.raises(DataError, match="called like 'ENSG"):
        before.translate(mdata["atac"], "rna", features=list(gene))
    saved["transforms"]["rna"]["symbols"] = {gene.index[0]: 3}
    about.write_text(json.dumps(saved))
    with pytest.raises(DataError, match="transforms in model.json"):
        CVQVAE.load(tmp_path / "model")


def test_an_error_offers_what_was_meant(fitted):
    model, mdata = fitted
    symbol = symbols(mdata).iloc[5]
    view = Explorer(mdata, model, "cell_type")
    for ask in (lambda name: explorer_content(mdata, features=[name]), view.values):
        with pytest.raises(DataError, match=f"Did you mean '{symbol}'"):
            ask(symbol.lower())
    with pytest.raises(DataError, match=f"Did you mean '{symbol}'"):
        genes_of(mdata["rna"], [symbol.lower()])
    with pytest.raises(DataError, match="1 of 1 feature is not predicted by this model, such as 7"):
        model.translate(mdata["atac"], to="rna", features=[7])
    many = [f"chr{i % 22}-{i * 1000}-{i * 1000 + 500}" for i in range(100_000)]
    assert meant_by("chr1:1000-1500", many).endswith("'chr1-1000-1500'?") and meant_by("chr1-1000-1501", many) == ""


@pytest.mark.parametrize("column", ["feature_name", "gene_symbols", "gene_symbol", "gene_name", "gene_names", "symbol", "Symbol", "hgnc_symbol", "features"])
def test_usual_columns_of_symbols(column):
    var = pd.DataFrame({"n": [1, 2, 3], column: ["CD4", "CD8A", "LYZ"]}, index=["ENSG00000010610.12", "ENSG00000153563.15", "ENSG00000090382.6"])
    assert shown_names(var).tolist() == ["CD4", "CD8A", "LYZ"]
    assert shown_names(var.set_axis(["GRCh38_" + name for name in var.index])).tolist() == ["CD4", "CD8A", "LYZ"]
    assert asked_names(var)["LYZ"] == "ENSG00000090382.6"


def test_columns_that_hold_no_symbols_are_passed_over():
    ids = [f"ENSMUSG{i:011d}" for i in range(4)]
    var = pd.DataFrame({"feature_name": ids, "features": pd.Categorical(["gene"] * 4), "symbol": ["Cd4", "", "nan", "Lyz2"]}, index=ids)
    assert shown_names(var).tolist() == ["Cd4", ids[1], ids[2], "Lyz2"]
    assert shown_names(var.drop(columns="symbol")).tolist() == ids
    assert shown_names(var.iloc[:0]).tolist() == []
