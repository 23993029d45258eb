"""The exported explorer in a real browser: what it shows, that names stay names, and that 50,000 cells can be drawn."""

import base64
import json
import re
import time
import zlib
from functools import partial

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from browser import browser, needs_chromium
from matplotlib import pyplot as plt
from mudata import MuData
from scipy import sparse

from cvqvae.cells import KINDS, DataError
from cvqvae.code_names import specific_features
from cvqvae.command import main
from cvqvae.components import ScaledPCA
from cvqvae.explorer import _named, explorer_content, explorer_page, export_explorer
from cvqvae.explorer_data import FeatureReader, explored, feature_values
from cvqvae.explorer_picture import Colouring, MapFrame, map_picture
from cvqvae.explorer_widget import explore
from cvqvae.integration import CVQVAE
from cvqvae.normalisation import inverse_frequency, log_normalised, tf_idf
from cvqvae.preprocessing import COMPONENTS
from cvqvae.simulation import simulate

SMALL = dict(hidden=(32,), n_latent=8, n_codes=16, n_components=12, batch_size=64, epochs=15, device="cpu")
HOSTILE = "</script><img src=x onerror=window.hacked=1>&amp;"
WHAT, SELECTED = "document.getElementById('what').textContent", "Number(document.documentElement.dataset.selected)"
ROWS = "[...document.querySelectorAll('{} tr')].slice({}).map(row => [...row.cells].map(cell => cell.textContent))"


@pytest.fixture(scope="module")
def fitted():
    mdata = simulate(n_cells=300, seed=0)
    mdata.obs["cell_type"] = mdata.obs["cell_type"].astype(str).replace("Monocyte", HOSTILE)
    mdata["rna"].var_names = [HOSTILE if i == 0 else name for i, name in enumerate(mdata["rna"].var_names)]
    model = CVQVAE(mdata, batch_key="batch", **SMALL).fit(progress=False)
    model.embed(mdata)
    mdata.obsm["X_umap"] = mdata.obsm["X_cvqvae"][:, :2]  # a picture is enough here
    return model, mdata


@pytest.fixture(scope="module")
def written(fitted, tmp_path_factory):
    model, mdata = fitted
    path = tmp_path_factory.mktemp("explorer") / "cells.html"
    return export_explorer(mdata, path, labels_key="cell_type", features=[HOSTILE], model=model, title=HOSTILE)


@pytest.fixture(scope="module")
def page():
    with browser() as page:
        page.size(1280, 800)
        yield page


def opened(page, path, said=""):
    page.open(f"{path.as_uri()}#{said}")
    assert page.complaints() == [] and page.requests() == []
    return page


# in a browser ------------------------------------------------------------------------------------------------------------------------


@needs_chromium
def test_every_cell_and_type_is_shown(page, written, fitted):
    opened(page, written)
    assert page.js("document.documentElement.dataset.cells") == "300"
    assert page.js("document.getElementById('count').textContent") == "300 cells"
    counts = page.js("[...document.querySelectorAll('#legend button')].map(b => [b.children[1].textContent, Number(b.children[2].textContent)])")
    assert dict(counts) == fitted[1].obs["cell_type"].value_counts().to_dict()
    assert page.js("(box => box.scrollHeight <= box.clientHeight)(document.getElementById('legend'))")  # eleven types are seen at once


@needs_chromium
def test_names_from_the_data_do_nothing(page, written):
    opened(page, written, f"colour=cell_type&type={HOSTILE.replace('&', '%26')}")
    assert page.js("window.hacked === undefined && document.images.length === 0")
    assert page.js("document.title") == HOSTILE and HOSTILE in page.js("document.getElementById('legend').textContent")
    assert page.js(WHAT).endswith(HOSTILE)


@needs_chromium
def test_colour_by_a_gene_puts_its_values_into_the_picture(page, written, fitted):
    gene = explored(fitted[1]).modalities["rna"].var_names[0]
    opened(page, written)
    before = page.js("document.getElementById('canvas').toDataURL()")
    page.js("document.getElementById('search').focus()")
    page.call("Input.insertText", text="<img")
    page.key("Enter")
    page.wait("document.documentElement.dataset.colour.startsWith('rna:')")
    assert page.js("document.documentElement.dataset.colour") == f"rna:{gene}"
    page.wait(f"document.getElementById('canvas').toDataURL() !== {json.dumps(before)}", 10)
    values = feature_values(fitted[1]["rna"], [gene], target_sum=fitted[0].transforms["rna"].target_sum)[:, 0]
    low, _, high = page.js("[...document.querySelectorAll('.ends span')].map(s => Number(s.textContent))")
    assert low == pytest.approx(values.min(), abs=0.01) and high == pytest.approx(np.quantile(values, 0.995), rel=0.01)


@needs_chromium
def test_a_code_shows_its_cells_markers_and_neighbours(page, written, fitted):
    model, mdata = fitted
    codes = mdata["rna"].obs["cvqvae_code"].astype(str)
    markers = specific_features(mdata, codes, 6)
    code = markers["group"].value_counts().index[0]
    opened(page, written, f"colour=cell_type&code={code}")
    assert page.js(SELECTED) == (codes == code).sum()
    for name in mdata.mod:
        expected = markers.loc[(markers["group"] == code) & (markers["modality"] == name), "feature"].tolist()
        shown = page.js(ROWS.format(f"[data-markers={name}]", 1))
        assert [row[0] for row in shown] == expected
    book = model.module.bottleneck_of(0).codebook.numpy(force=True)
    near = page.js(ROWS.format("#near", 0))
    others = sorted({int(c) for c in codes} - {int(code)}, key=lambda c: np.linalg.norm(book[c] - book[int(code)]))
    assert [int(row[0].split(" ")[0]) for row in near] == others[:5]
    types = dict((row[0], int(row[1])) for row in page.js(ROWS.format("h3 + table", 0)) if row[0] in set(mdata.obs["cell_type"]))
    assert types == mdata.obs["cell_type"][codes == code].value_counts().head(6).to_dict()


@needs_chromium
def test_predicted_values_stand_beside_measured_ones(page, written, fitted):
    model, mdata = fitted
    some = mdata.obs["cell_type"].value_counts().index[0]
    opened(page, written, f"type={some.replace('&', '%26')}")
    shown = page.js(ROWS.format("#predicted", 1))
    inside = (mdata.obs["cell_type"] == some).to_numpy()
    features = [row[0] for row in shown]
    predicted = model.translate(mdata["rna"], "atac", features=features).X[inside].mean(0)
    measured = feature_values(mdata["atac"], features)[inside].mean(0)
    assert len(shown) == 8
    assert np.corrcoef(predicted, [float(row[2]) for row in shown])[0, 1] > 0.98
    assert np.corrcoef(measured, [float(row[1]) for row in shown])[0, 1] > 0.9  # the largest values are cut


@needs_chromium
def test_a_click_takes_a_cell_and_a_lasso_many(page, written):
    opened(page, written)
    x, y = page.js("(() => { const r = canvas.getBoundingClientRect(), [x, y] = onScreen(xy, 7); return [x + r.left, y + r.top]; })()")
    page.click(x, y)
    page.wait("document.documentElement.dataset.selected === '1'")
    name = page.js(WHAT)
    assert name.startswith("1 cell · cell ")
    page.key("Escape")
    page.wait("document.documentElement.dataset.selected === '0'")
    page.js("document.getElementById('lasso').click()")
    page.mouse("Pressed", 20, 120)
    for corner in [(900, 120), (900, 780), (20, 780)]:
        page.mouse("Moved", *corner)
    page.mouse("Released", 20, 780)
    page.wait(f"{SELECTED} > 1")
    inside = page.js("[...Array(n).keys()].filter(i => { const [x, y] = onScreen(xy, i), r = canvas.getBoundingClientRect(); "
                     "return x + r.left > 20 && x + r.left < 900 && y + r.top > 120 && y + r.top < 780; }).length")
    assert page.js(SELECTED) == inside


@needs_chromium
def test_the_keyboard_is_enough(page, written):
    opened(page, written)
    page.js("canvas.focus()")
    page.key("+")
    page.key("ArrowRight")
    assert page.js("view.k") == pytest.approx(1.25) and page.js("view.x") > 0.5
    page.key("0")
    assert page.js("[view.k, view.x]") == [1, 0.5]
    page.js("document.querySelector('#legend button').focus()")
    page.key("Enter", text="\r")
    page.wait(f"{SELECTED} > 0")
    assert page.js("document.querySelector('#legend button').getAttribute('aria-pressed')") == "true"


@needs_chromium
def test_lines_join_the_places_of_two_modalities(page, written, fitted):
    opened(page, written, "lines=1&cell=" + fitted[1].obs_names[3])
    assert page.js("document.documentElement.dataset.lines") == "1"
    opened(page, written, "position=atac")
    assert page.js("document.getElementById('position').value") == "atac" and page.js("xy === places.atac")


@needs_chromium
def test_an_address_brings_the_view_back(page, written):
    opened(page, written, "colour=batch")
    page.js("document.querySelector('#legend button').click()")
    page.wait(f"{SELECTED} > 0")
    count, address = page.js(SELECTED), page.js("location.hash.slice(1)")
    opened(page, written, address)
    assert page.js(SELECTED) == count and page.js("document.documentElement.dataset.colour") == "batch"


@needs_chromium
def test_a_phone_can_use_it(page, written):
    page.size(390, 844, phone=True)
    try:
        opened(page, written, "colour=cell_type&type=HSC")
        assert page.js("document.documentElement.scrollWidth") <= 390
        assert page.js("(box => box.scrollHeight <= box.clientHeight)(document.getElementById('legend'))")
        assert page.js("Math.min(...[...document.querySelectorAll('.tools button, #legend button')].map(b => b.getBoundingClientRect().height))") >= 36
    finally:
        page.call("Emulation.setDeviceMetricsOverride", width=1280, height=800, deviceScaleFactor=1, mobile=False)


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    rng, n = np.random.default_rng(0), 50_000
    kinds = rng.integers(0, 8, n)
    counts = rng.poisson(np.where(np.arange(20) % 8 == kinds[:, None], 3, 0.3)).astype(np.float32)
    var = pd.DataFrame({"feature_types": "Gene Expression"}, index=[f"GENE{i}" for i in range(20)])
    codes = (kinds * 8 + rng.integers(0, 8, n)).astype(str)
    obs = pd.DataFrame({"cell_type": [f"type {k}" for k in kinds], "cvqvae_code": codes}, index=[f"cell{i}" for i in range(n)])
    z = (rng.normal(size=(n, 2)) + 6 * np.c_[np.cos(kinds), np.sin(kinds)]).astype(np.float32)
    cells = AnnData(counts, obs, var, obsm={"X_cvqvae": z, "X_umap": z})
    return export_explorer(cells, tmp_path_factory.mktemp("many") / "many.html", labels_key="cell_type")


@needs_chromium
def test_fifty_thousand_cells_are_drawn(page, many, record_property):
    opened(page, many, "colour=cell_type&bench=20")
    assert page.js("document.documentElement.dataset.cells") == "50000"
    painted = page.js("new Set(pixels).size > 8 && pixels.reduce((a, p) => a + (p !== 4294967295), 0) / pixels.length")
    frame = float(page.js("document.documentElement.dataset.frameMs"))
    record_property("median_frame_ms", frame)
    print(f"median redraw of 50,000 cells: {frame} ms; {many.stat().st_size / 1e6:.2f} MB")
    assert painted > 0.05 and frame > 0


# without a browser -------------------------------------------------------------------------------------------------------------------


def test_a_mosaic_can_be_explored(fitted):
    model, mdata = fitted
    part = MuData({"rna": mdata["rna"][:250].copy(), "atac": mdata["atac"][50:].copy()})
    for slot in ("X_cvqvae", "X_umap"):
        part.obsm[slot] = mdata[part.obs_names].obsm[slot]
    content = explorer_content(part, "cell_type", features=[part["atac"].var_names[0]], most_features=20)
    assert content["cells"] == 300 and set(content["positions"]) == {"joint", "rna", "atac"}
    assert set(content["markers"]) == {"cell_type", "code:rna"} and json.dumps(content, allow_nan=False)
    peak = part["atac"].var_names[0]
    columns = {c["key"]: c for c in explorer_content(part, "cell_type", features=[peak], most_features=20, model=model)["columns"]}
    levels = np.frombuffer(zlib.decompress(base64.b64decode(columns[f"atac predicted from rna:{peak}"]["values"])), np.uint8)
    lacking = ~part.obs_names.isin(part["rna"].obs_names)
    assert ((levels == 255) == lacking).all() and lacking.sum() == 50
    table = explore(part, "cell_type", model=model).about("cell_type", part["rna"].obs["cell_type"].mode()[0])["atac from rna"]
    assert len(table) and table.notna().all(axis=None)


def test_more_named_features_than_a_page_holds_leave_no_room_for_markers(fitted):
    mdata = fitted[1].copy()
    named = list(mdata["rna"].var_names[:12])
    content = explorer_content(mdata, "cell_type", features=named, most_features=10)
    assert [column["label"] for column in content["columns"] if column.get("feature")] == named


def test_a_feature_may_be_asked_of_one_modality(fitted):
    mdata = fitted[1].copy()
    gene = mdata["rna"].var_names[0]
    assert _named(explored(mdata), [f"rna:{gene}"])["rna"] == [gene]
    with pytest.raises(DataError, match="'atac:NOGENE'; features are called"):
        _named(explored(mdata), ["atac:NOGENE"])


def test_what_cannot_be_shown_is_said_before_a_file_is_made(fitted, tmp_path):
    mdata = fitted[1].copy()
    mdata.obs["depth"] = np.arange(mdata.n_obs) / 7
    for choices, message in [
        (dict(labels_key="clan"), "clan: no such column"),
        (dict(labels_key="depth"), "is it a barcode or a measurement"),
        (dict(features=["NOGENE"]), f"in no modality, such as 'NOGENE'; features are called like '{mdata['rna'].var_names[0]}' in rna"),
    ]:
        with pytest.raises(DataError, match=message):
            export_explorer(mdata, tmp_path / "cells.html", **choices)
        if "features" not in choices:
            with pytest.raises(DataError, match=message):
                explore(mdata, **choices)
    with pytest.raises(DataError, match="must end in .html"):
        export_explorer(mdata, tmp_path / "cells.png")
    bare = MuData({name: AnnData(adata.X.copy(), adata.obs.copy(), adata.var.copy()) for name, adata in mdata.mod.items()})
    with pytest.raises(DataError, match="model.embed"):
        export_explorer(bare, tmp_path / "cells.html")
    assert list(tmp_path.iterdir()) == []


def test_a_model_in_the_wrong_place_is_told_where_it_belongs(fitted, tmp_path):
    model, mdata = fitted
    for ask, message in [
        (lambda: explore(mdata, model), "CVQVAE was given.*model=model"),
        (lambda: explore(mdata, "cell_type", model), "CVQVAE was given.*model=model"),
        (lambda: explore(mdata, model="my-run/model"), "str was given: model=CVQVAE.load"),
        (lambda: explore("integrated.h5mu"), "not str"),
        (lambda: explore([mdata["rna"], mdata["atac"]]), "not list"),
        (lambda: export_explorer(model, tmp_path / "cells.html"), "not CVQVAE"),
        (lambda: export_explorer(mdata, tmp_path / "cells.html", labels_key=model), "CVQVAE was given"),
    ]:
        with pytest.raises(DataError, match=message):
            ask()
    assert list(tmp_path.iterdir()) == []


def test_the_caller_keeps_what_was_given(fitted):
    mdata = fitted[1]
    before = [set(mdata.obsm), set(mdata.obs), mdata["rna"].obs.shape, dict(mdata.uns).keys()]
    page = explorer_page(explorer_content(mdata, "cell_type", most_features=10))
    assert before == [set(mdata.obsm), set(mdata.obs), mdata["rna"].obs.shape, dict(mdata.uns).keys()]
    assert page == explorer_page(explorer_content(mdata, "cell_type", most_features=10))


def test_features_that_are_named_leave_no_room_for_others(fitted):
    mdata = fitted[1]
    named = list(mdata["rna"].var_names[:10])
    for most, expected in [(5, 10), (10, 10), (12, 12)]:
        columns = explorer_content(mdata, "cell_type", features=named, most_features=most)["columns"]
        assert sum(column.get("feature", False) for column in columns) == expected


def test_the_command_writes_the_page_of_a_run(fitted, tmp_path, capsys):
    model, mdata = fitted
    mdata.write(tmp_path / "integrated.h5mu")
    model.save(tmp_path / "model")
    (tmp_path / "run.json").write_text(json.dumps({"parameters": {"labels": "cell_type", "batch": "batch"}}))
    command = ["explore", str(tmp_path), "--most-features", "20", "--out", str(tmp_path / "explorer.html")]
    assert main(command) == 0 and "300 cells" in capsys.readouterr().out
    assert "atac predicted from rna" in (tmp_path / "explorer.html").read_text()
    assert main(command) == 2 and "exists already" in capsys.readouterr().err
    assert main(["explore", str(tmp_path / "integrated.h5mu"), "--labels", "clan", "--most_features", "20", "--out", str(tmp_path / "b.html")]) == 2
    assert "clan: no such column" in capsys.readouterr().err and not (tmp_path / "b.html").exists()


@pytest.mark.filterwarnings("default")
def test_a_protein_called_as_its_gene_is_nothing_to_note(tmp_path, capsys):
    mdata = simulate(n_cells=120, kind="protein", n_genes=200, n_proteins=20, seed=0)
    protein = mdata["protein"].copy()
    protein.var_names = [mdata["rna"].var_names[0], *protein.var_names[1:]]
    pair = [mdata["rna"].copy(), protein]
    CVQVAE(pair, n_components=5, hidden=(8,), epochs=1).fit(progress=False).embed(pair).write(tmp_path / "cells.h5mu")
    assert main(["explore", str(tmp_path / "cells.h5mu"), "--out", str(tmp_path / "page.html")]) == 0
    assert "unique" not in capsys.readouterr().err


def test_the_notebook_answers_as_the_page_does(fitted):
    model, mdata = fitted
    view, content = explore(model, "cell_type"), explorer_content(mdata, "cell_type", most_features=20)
    code = max(content["markers"]["code:rna"], key=lambda code: len(content["markers"]["code:rna"][code]))
    tables = view.about("code (rna)", code)
    assert tables["markers (rna)"].index.tolist() == [row[0] for row in content["markers"]["code:rna"][code]["rna"]]
    assert tables["nearest codes"].index.tolist() == [other for other, _ in content["near"][code]]
    assert list(view.widget.children)
    view.grouping.value, view.group.value = "cell_type", HOSTILE
    assert "<img src=x" not in view.text.value and view.said.value.startswith(f"{(mdata.obs['cell_type'] == HOSTILE).sum()} of 300")
    frame = view.page(most_features=5).data
    assert "<script" not in frame and "<img" not in frame


def test_a_model_that_was_trained_again_is_explored_as_it_is_now():
    mdata = simulate(n_cells=120, n_genes=200, n_peaks=400, seed=0)
    mdata.obsm["X_umap"] = np.random.default_rng(0).normal(size=(120, 2))
    model = CVQVAE(mdata, n_components=10, epochs=2, device="cpu").fit(progress=False)
    before = explore(model).cells.z
    mdata["rna"].obs["cvqvae_code"] = "mine"
    assert (explore(model).cells.codes["rna"] == "mine").all()  # what is embedded already is left alone
    model.fit(4, progress=False)
    after = explore(model).cells
    np.testing.assert_allclose(after.z, model.latents()["joint"].z, atol=1e-5)
    assert not np.allclose(after.z, before, atol=1e-3) and not (after.codes["rna"] == "mine").any()


def test_the_page_is_part_of_the_package(root):
    assert re.search(r'"cvqvae": \[.*"explorer.html"', (root / "setup.py").read_text())


# the picture in the notebook ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        pd.Series([None] * 4, dtype=object),
        pd.Series([np.nan] * 4),
        pd.Series([2.0] * 4),
        pd.Series([True, False, True, True]),
        pd.Series(["$x^", HOSTILE, "a" * 200, None]),
        pd.Series([1, 2, None, 3], dtype="Int64"),
        pd.Series(["b"] * 4, dtype=pd.CategoricalDtype(["a", "b"])),
    ],
)
def test_any_column_can_be_painted(values):
    for coordinates in (np.zeros((4, 2)), np.array([[0, 0], [1, 0], [0, 1], [5, 5]], float)):
        picture = map_picture(MapFrame(coordinates), Colouring(values, "$"), np.array([True, True, False, True]))
        assert picture.startswith(b"\x89PNG")


def test_selected_cells_lie_above_the_others():
    frame, colouring = MapFrame(np.zeros((2, 2))), Colouring(pd.Series(["a", "b"]), "")
    painted = frame.paint(colouring.colours, np.array([0, 1]))
    centre = painted[240, 270]
    assert centre.tolist() == colouring.colours[1].tolist()
    assert frame.paint(colouring.colours, np.array([1, 0]))[240, 270].tolist() == colouring.colours[0].tolist()


def test_every_cell_is_painted_where_it_lies():
    rng = np.random.default_rng(0)
    coordinates = rng.normal(size=(300, 2))
    frame = MapFrame(coordinates)
    painted = frame.paint(np.zeros((300, 3), np.uint8), np.zeros(300))
    assert (painted[tuple((frame.places // 2).T)] < 255).all()
    right, high = coordinates[:, 0].argmax(), coordinates[:, 1].argmax()
    assert frame.places[right, 1] == frame.places[:, 1].max() and frame.places[high, 0] == frame.places[:, 0].min()


def test_a_reader_gives_what_whole_matrices_give():
    mdata = simulate(n_cells=80, n_genes=150, n_peaks=200, seed=1)
    mdata["rna"].X = (sparse.diags((np.arange(mdata.n_obs) != 3) * 1.0) @ mdata["rna"].X).tocsr().astype(np.float32)  # a cell without counts
    for form in (lambda x: x, lambda x: x.toarray(), lambda x: x.tocsc(), lambda x: x.astype(np.int32)):
        for name, whole in (("rna", log_normalised), ("atac", lambda x: tf_idf(x, inverse_frequency(x)))):
            adata = AnnData(form(mdata[name].X), var=mdata[name].var)
            expected, read = whole(mdata[name].X).toarray(), FeatureReader(adata, name)
            some = [5, 0, 17]
            np.testing.assert_allclose(read(adata.var_names[some]), expected[:, some], rtol=1e-5)
            for i in some:
                np.testing.assert_allclose(read([adata.var_names[i]])[:, 0], expected[:, i], rtol=1e-5)
            with pytest.raises(DataError, match="has no feature 'NOGENE'"):
                read(["NOGENE"])


def test_a_kind_of_ones_own_is_read_as_its_components_read_it(monkeypatch):
    class Lipids(ScaledPCA):
        kind = "lipid"

        def normalise(self, counts, features=None):
            values = np.sqrt(counts.toarray())
            return values if features is None else values[:, features]

    monkeypatch.setitem(KINDS, "lipid", "Lipid")
    monkeypatch.setitem(COMPONENTS, "lipid", Lipids)
    proteins = simulate(n_cells=80, kind="protein", n_genes=150)["protein"]
    lipids = AnnData(proteins.X, var=pd.DataFrame({"feature_types": "Lipid"}, index=[f"lipid {i}" for i in range(proteins.n_vars)]))
    np.testing.assert_allclose(feature_values(lipids, ["lipid 3", "lipid 0"]), np.sqrt(proteins.X.toarray()[:, [3, 0]]), rtol=1e-6)


def test_a_new_colour_takes_a_fraction_of_a_scatter_plot(record_property):
    "Measured against drawing the same cells with matplotlib in this process, so that a slow or busy machine slows both."
    rng, n = np.random.default_rng(0), 50_000
    kinds = rng.integers(0, 8, n)
    z = (rng.normal(size=(n, 2)) + 6 * np.c_[np.cos(kinds), np.sin(kinds)]).astype(np.float32)
    counts = sparse.random(n, 500, 0.1, format="csr", dtype=np.float32, random_state=0).ceil()
    obs = pd.DataFrame({"cvqvae_code": (kinds * 32 + rng.integers(0, 32, n)).astype(str)}, index=[f"cell{i}" for i in range(n)])
    rna = AnnData(counts, obs, pd.DataFrame({"feature_types": "Gene Expression"}, index=[f"GENE{i}" for i in range(500)]), obsm={"X_cvqvae": z})
    mdata = MuData({"rna": rna})
    mdata.obs["cell_type"], mdata.obs["depth"] = [f"type {k}" for k in kinds], rng.gamma(2, size=n)
    mdata.obsm["X_cvqvae"] = mdata.obsm["X_umap"] = z
    view = explore(mdata, "cell_type")
    view.picture("rna:GENE0")  # fonts are loaded

    def quickest(work):
        times = []
        for _ in range(3):
            view._colourings.clear()
            began = time.process_time()
            work()
            times.append(time.process_time() - began)
        return round(1000 * min(times))

    fig, ax = plt.subplots(figsize=(7, 7))
    scatter = quickest(lambda: (ax.clear(), ax.scatter(*z.T, s=3, c=kinds), fig.canvas.draw()))
    plt.close(fig)
    spent = {colour: quickest(partial(view.picture, colour)) for colour in ("cell_type", "code (rna)", "depth", "rna:GENE1")}
    record_property("new_colour_ms", spent)
    print(f"processor time for 50,000 cells, ms: scatter plot {scatter}, new colours {spent}")
    assert max(spent.values()) < scatter / 2
