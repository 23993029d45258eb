"""Methods behind one signature, results that survive interruption, failures that are rows, tables that say what they show."""

import json
import pickle
import re
import shutil
import sys
import time
from pathlib import Path

import cvqvae
import numpy as np
import pandas as pd
import pytest
import torch

from cvqvae import benchmark, kept, peers
from cvqvae.baselines import METHODS, OWN, Result, TimeLimit, fit_method, list_methods, lacks_components, measured, only_components
from cvqvae.benchmark import attempt, kept_results, run_benchmark, with_shared
from cvqvae.kept import Plan, cells_hash, load_result, save_result
from cvqvae.cells import DataError, counts_of
from cvqvae.collapse import active_units, bottleneck_inputs, collapse_table, effective_dimensions, kl_per_unit, unit_table
from cvqvae.ground_truth import Truth
from cvqvae.integration import CVQVAE
from cvqvae.metrics import ADDED, METRICS, add_metric
from cvqvae.preprocessing import preprocess
from cvqvae.simulation import simulate
from cvqvae.score_figures import reasons
from cvqvae.tables import absences, as_latex, as_markdown, beside_published, benchmark_table, mean_and_spread, published, write_tables

QUICK = {"hidden": (32,), "n_codes": 32, "n_latent": 8}
HEAVY = {"harmony": "harmonypy", "wnn": "muon", "mofa": "mofapy2", "totalvi": "scvi", "multivi": "scvi", "clue": "scglue"}


@pytest.fixture(scope="module")
def cells():
    mdata = simulate(n_cells=160, n_genes=300, n_peaks=600)
    preprocess(mdata, n_components=12)
    return mdata


@pytest.fixture(scope="module")
def cite():
    mdata = simulate(n_cells=160, n_genes=300, kind="protein")
    preprocess(mdata, n_components=12)
    return mdata


@pytest.fixture
def plan():
    return dict(batch_key="batch", labels_key="cell_type", epochs=2, evaluation={"resolutions": 2}, options={"cvqvae-paper": QUICK})


@pytest.mark.parametrize("name", [*OWN, "raw", "random"])
def test_own_methods_and_references_give_all_three_embeddings(cells, name):
    options = {} if name in ("raw", "random") else QUICK
    result = fit_method(name, cells, "batch", epochs=1, **options)
    assert set(result.embeddings) == {"first", "second", "joint"}
    assert all(len(z) == 160 and np.isfinite(z).all() for z in result.embeddings.values())
    assert result.seconds > 0 and result.peak_gib > 0.05 and not result.uses_labels


@pytest.mark.parametrize("name", ["scjoint", "scdart"])
def test_methods_that_read_genes_ask_for_an_annotation(cells, name):
    with pytest.raises(DataError, match="--annotation"):
        fit_method(name, cells, "batch", labels_key="cell_type") if name == "scjoint" else fit_method(name, cells, "batch")


@pytest.mark.parametrize("name", HEAVY)
def test_a_peer_runs_or_says_what_to_install(cells, cite, name, monkeypatch):
    monkeypatch.setitem(sys.modules, HEAVY[name], None)  # as if it were not installed
    with pytest.raises(peers.MissingPeer, match=r"pip install 'cvqvae\[peers\]'"):
        fit_method(name, cite if name == "totalvi" else cells, "batch")


@pytest.mark.parametrize("name", HEAVY)
def test_an_installed_peer_gives_an_embedding(cells, cite, name):
    pytest.importorskip(HEAVY[name], reason="the extra cvqvae[peers] is not installed")
    result = fit_method(name, cite if name == "totalvi" else cells, "batch", epochs=3, max_seconds=30)
    z = result.embeddings["joint"]
    assert len(z) == 160 and np.isfinite(z).all() and z.std(0).max() > 0 and result.note


def test_importing_the_package_imports_no_peer():
    "Nor umap, which takes seconds to import, and half a minute where it is not compiled yet."
    import subprocess

    program = f"import sys, cvqvae.tables; print([m for m in {sorted({*HEAVY.values(), 'umap', 'pynndescent'})} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_a_method_changes_nothing_but_missing_components():
    mdata = simulate(n_cells=160, n_genes=300, n_peaks=600)
    before = counts_of(mdata["rna"]).copy()
    assert lacks_components(mdata)
    fit_method("cvqvae-paper", mdata, "batch", epochs=1, **QUICK)
    assert not lacks_components(mdata) and "X_cvqvae" not in mdata["rna"].obsm
    assert (counts_of(mdata["rna"]) != before).nnz == 0


def test_methods_read_the_components_that_are_there(cells):
    changed = cells.copy()
    changed["rna"].obsm["X_pca"] = changed["rna"].obsm["X_pca"][:, :5].copy()
    assert fit_method("raw", changed).embeddings["joint"].shape[1] == 5 + 12
    history = fit_method("cvqvae-paper", changed, epochs=1, **QUICK).tables["history"]
    assert len(history) == 1 and changed["rna"].obsm["X_pca"].shape[1] == 5


def test_a_preset_that_scales_genes_another_way_reduces_them_itself(cells):
    "And only then: others, and components that somebody brought, stay."
    before = {name: adata.obsm.copy() for name, adata in cells.mod.items()}
    found = fit_method("cvqvae", cells, epochs=1, **QUICK).embeddings
    anew = simulate(n_cells=160, n_genes=300, n_peaks=600)
    anew["atac"].obsm["X_lsi"] = cells["atac"].obsm["X_lsi"]
    model = CVQVAE(anew, n_components=12, epochs=1, seed=0, **QUICK).fit(progress=False)
    assert anew["rna"].obsm["X_pca"].shape == (160, 12) and not np.allclose(anew["rna"].obsm["X_pca"], cells["rna"].obsm["X_pca"], atol=0.1)
    assert np.allclose(found["joint"], model.latents()["joint"].z.numpy(), atol=1e-5)
    assert all(np.array_equal(cells[name].obsm[slot], values) for name, slots in before.items() for slot, values in slots.items())
    kept = fit_method("cvqvae", cells, epochs=1, gene_scale="std", **QUICK).embeddings["joint"]
    light = CVQVAE(only_components(cells), epochs=1, seed=0, **QUICK).fit(progress=False)
    assert np.allclose(kept, light.latents()["joint"].z.numpy(), atol=1e-5) and not np.allclose(kept, found["joint"], atol=1e-2)


def test_labels_are_never_read(cells):
    shuffled = cells.copy()
    shuffled.obs["cell_type"] = shuffled.obs["cell_type"].sample(frac=1, random_state=0).to_numpy()
    one, two = (fit_method("cvqvae-paper", m, "batch", epochs=1, **QUICK).embeddings["joint"] for m in (cells, shuffled))
    np.testing.assert_array_equal(one, two)
    assert list_methods().query("uses_labels").index.tolist() == ["scjoint"]


def test_a_time_limit_stops_and_is_reported(cells):
    result = fit_method("cvqvae-paper", cells, max_seconds=0, epochs=400, **QUICK)
    assert len(result.tables["history"]) == 1 and result.note == "stopped by the limit of 0 s after 1 of 400 epochs"
    assert fit_method("cvqvae-paper", cells, max_seconds=300, epochs=2, **QUICK).note == "2 epochs"


def test_memory_is_measured_while_it_is_held():
    with measured() as cost:
        block = np.ones(2**25)  # 0.25 GiB
        time.sleep(0.1)
        del block
    with measured() as after:
        time.sleep(0.05)
    assert cost.peak_gib - after.peak_gib > 0.2 and cost.seconds >= 0.1


def test_a_method_that_seeds_numpy_leaves_its_generator_as_it_was(cells, monkeypatch):
    seeding = METHODS["raw"].__class__(lambda task: np.random.seed(0) or METHODS["random"].fit(task), "", "")
    monkeypatch.setitem(METHODS, "raw", seeding)
    before = np.random.get_state(legacy=False)["state"]
    fit_method("raw", cells)
    after = np.random.get_state(legacy=False)["state"]
    assert before["pos"] == after["pos"] and np.array_equal(before["key"], after["key"])


def test_harmony_needs_batches(cells):
    pytest.importorskip("harmonypy", reason="the extra cvqvae[peers] is not installed")
    with pytest.raises(DataError, match="needs a batch column"):
        fit_method("harmony", cells)


def test_quiet_peers_leave_logging_as_it_was(capsys):
    import logging

    level = logging.root.manager.disable
    with pytest.raises(RuntimeError), peers.quietly():
        print("noise")
        raise RuntimeError("heard")
    assert logging.root.manager.disable == level and capsys.readouterr().out == ""


def test_quiet_threads_that_overlap_put_everything_back(capsys):
    import logging
    import threading
    import warnings

    before = (sys.stdout, sys.stderr, logging.root.manager.disable, list(warnings.filters))
    inside, first_out = threading.Event(), threading.Event()

    def second():
        with peers.quietly():
            inside.set()
            first_out.wait(10)
            print("noise of the second")

    with peers.quietly():
        other = threading.Thread(target=second)
        other.start()
        inside.wait(10)
    first_out.set()
    other.join()
    assert (sys.stdout, sys.stderr, logging.root.manager.disable, list(warnings.filters)) == before and capsys.readouterr().out == ""


def test_an_interrupted_comparison_goes_on(cells, plan, tmp_path, monkeypatch):
    fitted, fit = [], benchmark.fit_method
    one = pd.DataFrame([("score", "total", 0.5, "")], columns=["metric", "group", "value", "reason"])
    monkeypatch.setattr(benchmark, "score_view", lambda *args, **options: one)  # the real scores are slow, and not the question here

    def fit_two_then_stop(name, *args, **options):
        if len(fitted) == 2:
            raise KeyboardInterrupt
        fitted.append(name)
        return fit(name, *args, **options)

    monkeypatch.setattr(benchmark, "fit_method", fit_two_then_stop)
    with pytest.raises(KeyboardInterrupt):
        run_benchmark(cells, ["cvqvae-paper"], (0, 1), tmp_path, **plan)
    assert fitted == ["raw", "random"]
    calls = []
    monkeypatch.setattr(benchmark, "fit_method", lambda name, *args, **options: calls.append(name) or fit(name, *args, **options))
    scores = run_benchmark(cells, ["cvqvae-paper"], (0, 1), tmp_path, **plan)
    assert calls == ["random", "cvqvae-paper", "cvqvae-paper"]
    assert scores.query("metric == 'score' and view == 'joint'")["value"].notna().all()


def test_a_failing_method_is_a_row_and_changes_no_other(cells, plan, tmp_path, monkeypatch):
    healthy = run_benchmark(cells, ["cvqvae-paper"], (0,), tmp_path / "a", **plan)
    fit = benchmark.fit_method

    def run_out_of_memory(name, *args, **options):
        if name == "mofa":
            raise MemoryError("no room for 85,000 x 85,000")
        return fit(name, *args, **options)

    monkeypatch.setattr(benchmark, "fit_method", run_out_of_memory)
    scores = run_benchmark(cells, ["cvqvae-paper", "mofa"], (0,), tmp_path / "b", **plan)
    failed = scores[scores["method"] == "mofa"]
    assert failed["value"].isna().all() and set(failed["reason"]) == {"MemoryError: no room for 85,000 x 85,000"}
    keys = ["method", "view", "metric"]
    both = healthy.merge(scores, on=keys)[lambda t: t["view"] != "run"]
    np.testing.assert_allclose(both["value_x"], both["value_y"])
    assert not list((tmp_path / "b" / "results").glob("mofa*"))


def test_without_labels_there_is_still_a_table(cells, tmp_path):
    scores = run_benchmark(cells, ["mofa"], (0,), tmp_path, evaluation={"resolutions": 2})
    gone = absences(scores).query("method == 'raw' and metric == 'nmi'")
    assert gone["reason"].str.contains("no column was named").all() and len(gone) == 2
    for view in ("stacked", "joint"):
        table = benchmark_table(scores, view)
        assert list(table.index) == ["raw", "random", "mofa"] and "NMI" not in table
    assert len(write_tables(scores, tmp_path)) == 6


def test_methods_without_any_metric_do_not_break_the_shared_score():
    scores = scores_table().assign(value=np.nan)
    pd.testing.assert_frame_equal(with_shared(scores), scores)


@pytest.mark.parametrize("change", ["counts", "components", "batch", "seed", "options", "epochs"])
def test_the_key_knows_all_that_decides(cells, change):
    plan, mdata, other, seed = Plan("batch", epochs=2), cells.copy(), Plan("batch", epochs=2), 0
    if change == "counts":
        mdata["atac"].layers["counts"].data[3] += 1
    if change == "components":
        mdata["rna"].obsm["X_pca"][0, 0] += 1
    if change == "batch":
        mdata.obs["batch"] = "one"
    if change == "options":
        other = Plan("batch", epochs=2, options={"cvqvae": {"n_codes": 3}})
    if change == "epochs":
        other = Plan("batch", epochs=3)
    if change == "seed":
        seed = 1
    key = plan.fit_key(cells_hash(cells, "batch"), "cvqvae", 0)
    assert key == plan.fit_key(cells_hash(cells.copy(), "batch"), "cvqvae", 0)
    assert key != other.fit_key(cells_hash(mdata, "batch"), "cvqvae", seed)


def test_half_a_result_does_not_count(cells, tmp_path):
    result = fit_method("random", cells)
    save_result(result, tmp_path / "r")
    assert np.array_equal(load_result(tmp_path / "r").embeddings["first"], result.embeddings["first"])
    (tmp_path / "r.json").unlink()
    assert load_result(tmp_path / "r") is None
    assert [path.name for path in tmp_path.iterdir()] == ["r.npz"]


def test_an_unusable_embedding_is_refused(cells, monkeypatch):
    broken = METHODS["raw"].__class__(lambda task: ({"joint": np.full((160, 2), np.nan)}, ""), "", "")
    monkeypatch.setitem(METHODS, "raw", broken)
    assert "unusable 'joint' embedding" in attempt("raw", 0, cells, Plan(), benchmark.Path("never-written"))


def scores_table():
    rng, rows = np.random.default_rng(0), []
    for method in ("ours", "peer"):
        for seed in range(3):
            rows += [(method, seed, "joint", metric, group, rng.uniform(), "") for metric, group in METRICS.items()]
            rows.append((method, seed, "run", "seconds", "cost", 1.0 + seed, "limit"))
    return pd.DataFrame(rows, columns=benchmark.COLUMNS)


def test_shared_scores_are_per_seed():
    scores = scores_table()
    scores.loc[(scores["method"] == "peer") & (scores["metric"] == "trajectory"), "value"] = np.nan
    shared = with_shared(scores)[lambda t: t["metric"] == "score_shared"]
    assert len(shared) == 6 and set(shared["seed"]) == {0, 1, 2}
    own = scores[(scores["method"] == "ours") & (scores["seed"] == 1)].set_index("metric")["value"]
    expected = 0.6 * own[["nmi", "label_asw", "cell_cycle"]].mean() + 0.4 * own[["batch_asw", "graph_connectivity"]].mean()
    assert shared[(shared["method"] == "ours") & (shared["seed"] == 1)]["value"].item() == pytest.approx(expected)


def test_tables_hold_what_the_scores_say(tmp_path):
    scores = scores_table()
    mean, spread = mean_and_spread(scores, "joint")
    values = scores[(scores["method"] == "peer") & (scores["metric"] == "nmi")]["value"]
    assert (mean.loc["peer", "nmi"], spread.loc["peer", "nmi"]) == pytest.approx((values.mean(), values.std(ddof=1)))
    written = write_tables(scores, tmp_path)
    assert {path.name for path in written} == {f"benchmark-{view}{suffix}" for view in ("stacked", "joint") for suffix in (".csv", ".md", ".tex")}
    numbers = pd.read_csv(tmp_path / "benchmark-joint.csv", index_col="method")
    assert numbers.loc["peer", "nmi_sd"] == pytest.approx(values.std(ddof=1)) and numbers.loc["peer", "seconds"] == 2


def test_the_table_in_latex_has_the_columns_of_the_paper_and_one_s_own(tmp_path):
    add_metric("width", lambda z, rows: 0.0)
    try:
        write_tables(scores_table(), tmp_path)
    finally:
        del METRICS["width"], ADDED["width"]
    latex, markdown = ((tmp_path / f"benchmark-joint.{kind}").read_text().splitlines() for kind in ("tex", "md"))
    columns = latex[2].removesuffix(r" \\").split(" & ")[1:]
    assert columns == ["NMI", "cell-type ASW", "CC", "TC", "batch ASW", "graph conn.", "width", "seconds", "note"]
    assert latex[0].endswith("{l" + "r" * (len(columns) - 1) + "l}") and "| iLISI |" in markdown[0]


def test_a_table_has_no_empty_lines_where_lines_end_otherwise(tmp_path, monkeypatch):
    "On Windows pandas ends lines as the system does, and a text file does so once more."
    monkeypatch.setattr("os.linesep", "\r\n")
    for path in write_tables(scores_table(), tmp_path):
        assert b"\r" not in path.read_bytes()


def test_markdown_and_latex_mark_the_same_best():
    table = benchmark_table(scores_table(), "joint", ("**", "**"))
    assert as_markdown(table).count("**") == 2 * as_latex(table).count(r"\textbf")
    assert as_latex(table).count(r" \\") == len(table) + 1 and r"$\pm$" in as_latex(table)


def test_published_numbers_stand_beside_measured_ones():
    scores = scores_table().replace({"method": {"ours": "cvqvae-paper"}, "view": {"joint": "stacked"}})
    table = beside_published(scores, "bmmc-multiome")
    assert table.loc["cvqvae-paper", ("NMI", "published")] == 0.780 and np.isfinite(table.loc["cvqvae-paper", ("NMI", "measured")])
    assert "scjoint" in table.index and published("demo").empty


def test_every_absence_is_listed_once():
    scores = scores_table()
    scores.loc[scores["metric"] == "nmi", ["value", "reason"]] = [np.nan, "no labels"]
    assert absences(scores)[["method", "metric", "reason"]].values.tolist() == [["ours", "nmi", "no labels"], ["peer", "nmi", "no labels"]]
    assert reasons(absences(scores)).drop(columns="views").values.tolist() == [["ours, peer", "NMI", "no labels"]]


def test_a_collapsed_posterior_is_seen():
    rng = np.random.default_rng(0)
    mean = np.column_stack([rng.normal(size=400), np.zeros(400)])
    assert active_units(mean).tolist() == [True, False]
    assert kl_per_unit(mean, np.zeros((400, 2)))[1] == 0
    assert effective_dimensions(mean) == pytest.approx(1)
    assert effective_dimensions(np.zeros((5, 3))) == 0
    assert effective_dimensions(mean[:, :1]) == 1


def test_a_heavy_prior_collapses_the_posterior(cells):
    settings = dict(preset="paper", variant="cvae", epochs=20, hidden=(16,), n_latent=8, learning_rate=1e-2, batch_size=80, device="cpu", lambda_alignment=0.1)
    free, pressed = (CVQVAE(cells, lambda_kl=weight, **settings).fit(progress=False) for weight in (1e-3, 100.0))
    nats = [collapse_table(model)["KL, nats"].mean() for model in (free, pressed)]
    active = [collapse_table(model)["active units"].sum() for model in (free, pressed)]
    assert nats[1] < 0.5 < nats[0] and active[1] < active[0]


@pytest.mark.parametrize("variant, sources", [("cvqvae", ["rna", "atac"]), ("cvqvae-avg", ["joint"]), ("cvae", ["rna", "atac"])])
def test_units_are_those_that_feed_a_decoder(cells, variant, sources):
    model = CVQVAE(cells, preset="paper", variant=variant, epochs=1, device="cpu", **QUICK).fit(progress=False)
    units = unit_table(model)
    assert list(units["source"].unique()) == sources and len(units) == 8 * len(sources)
    assert units["kl"].notna().all() == (variant == "cvae")


ALL = {"routes": "all", "fusion": "encoder", "shared_codebook": True}


@pytest.mark.parametrize("choices", [{"shared_codebook": True}, {"routes": "joint", "fusion": "mean"}, ALL])
def test_each_source_of_a_gaussian_model_has_rows_of_its_own(cells, choices):
    model = CVQVAE(cells, preset="paper", variant="cvae", epochs=1, device="cpu", **QUICK, **choices).fit(progress=False)
    found, latents = bottleneck_inputs(model), model.latents()
    assert list(found) == [name if name == "joint" else model.modalities[name] for name in model.module.sources]
    for name in found:
        assert found[name].shape == (160, 16)
        assert torch.allclose(found[name][:, :8], latents[name].z, atol=1e-5)
    assert list(collapse_table(model)["source"]) == list(found)


def test_kept_results_are_plain_files(cells, plan, tmp_path):
    run_benchmark(cells, ["cvqvae-paper"], (0,), tmp_path, **plan)
    found = kept_results(cells, ["raw", "cvqvae-paper", "clue"], 0, tmp_path / "results", **plan)
    assert list(found) == ["raw", "cvqvae-paper"] and isinstance(found["raw"], Result)
    record = json.loads(next((tmp_path / "results").glob("cvqvae-paper*.json")).read_text())
    assert record["note"] == "2 epochs" and len(record["tables"]["history"]["epoch"]) == 2
    assert TimeLimit(None).stopped is False


@pytest.fixture
def metrics_as_before():
    before, added = dict(METRICS), dict(ADDED)
    yield
    for table, old in ((METRICS, before), (ADDED, added)):
        table.clear()
        table.update(old)


def test_a_metric_that_is_added_or_changed_is_in_the_same_comparison(cells, tmp_path, metrics_as_before):
    ask = dict(methods=["cca"], seeds=(0,), out=tmp_path, labels_key="cell_type", evaluation={"resolutions": 1})
    first = run_benchmark(cells, **ask)
    fitted = {path: path.stat().st_mtime_ns for path in (tmp_path / "results").glob("*.npz")}
    for value in (0.123, 0.999):
        add_metric("purity", lambda z, rows, value=value: value)
        scores = run_benchmark(cells, **ask)
        assert list(scores.query("metric == 'purity'")["value"]) == [value] * 6
    pd.testing.assert_frame_equal(scores[scores["metric"] != "purity"].reset_index(drop=True), first)
    assert fitted == {path: path.stat().st_mtime_ns for path in (tmp_path / "results").glob("*.npz")}


def test_a_metric_that_workers_do_not_know_is_measured_by_who_asked(cells, tmp_path, metrics_as_before):
    add_metric("purity", lambda z, rows: 0.5)
    plan = Plan(labels_key="cell_type", evaluation={"resolutions": 1})
    comparison = benchmark.Comparison(cells, Truth.from_mudata(cells, labels_key="cell_type"), plan, tmp_path)
    sent = pickle.loads(pickle.dumps(comparison))  # a function without a name cannot be sent
    outcome = benchmark.computed(sent, "cca", 0, None)
    assert outcome[1] is None and list(comparison._keep("cca", 0, outcome).query("metric == 'purity'")["value"]) == [0.5, 0.5]


def test_of_many_cells_a_part_is_scored_and_all_are_fitted(cells, tmp_path, metrics_as_before):
    ask, lines = dict(methods=["cca"], seeds=(0, 1), out=tmp_path, batch_key="batch", labels_key="cell_type", evaluation={"resolutions": 1}), []
    add_metric("rows", lambda z, rows: len(z))
    whole = run_benchmark(cells, report=lines.append, **ask)
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "results").iterdir()}
    assert run_benchmark(cells, max_scored=cells.n_obs, **ask).equals(whole) and run_benchmark(cells, max_scored=None, **ask).equals(whole)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "results").iterdir()} == kept and not any("drawn" in line for line in lines)
    part = run_benchmark(cells, report=lines.append, max_scored=60, **ask)
    assert lines.count(f"60 of {cells.n_obs} cells are scored, drawn at random") == 1
    assert {path: path.stat().st_mtime_ns for path in kept} == kept  # fits and scores of all cells stay
    n = part[part["metric"] == "rows"].groupby("view")["value"].unique()
    assert n["joint"].tolist() == [60] and n["stacked"].tolist() == [120]
    rows, plan = benchmark.sampled_rows(cells.n_obs, 60), {name: ask[name] for name in ("batch_key", "labels_key", "evaluation")}
    embedding = kept_results(cells, ["cca"], 0, tmp_path / "results", **plan)["cca"].embeddings
    truth = Truth.from_mudata(cells[rows].copy(), "batch", "cell_type")
    for view in ("stacked", "joint"):
        expected = benchmark.score_view({name: z[rows] for name, z in embedding.items()}, truth, view, seed=0, resolutions=1)
        found = part[(part["method"] == "cca") & (part["view"] == view) & part["metric"].isin(expected["metric"])]
        np.testing.assert_allclose(found.set_index("metric")["value"].reindex(expected["metric"]), expected["value"], rtol=1e-12)


def test_methods_that_learn_from_cell_types_are_kept_with_them(cells):
    renamed, plan = cells.copy(), Plan(labels_key="cell_type", options={"scjoint": {"labels_key": "cell_type"}})
    renamed.obs["cell_type"] = np.roll(renamed.obs["cell_type"].astype(str), 1)
    keys = [[plan.fit_key("cells", name, 0, plan.told(m, name)) for m in (cells, cells.copy(), renamed)] for name in ("scjoint", "cca")]
    assert keys[0][0] == keys[0][1] != keys[0][2] and len(set(keys[1])) == 1


def test_tables_among_the_options_are_known_by_their_content(cells, tmp_path):
    annotation = pd.DataFrame({"gene": [f"g{i}" for i in range(200)], "start": np.arange(200) * 1000})
    moved = annotation.copy()
    moved.loc[50:150, "start"] += 400
    keys = [Plan(options={"scjoint": {"annotation": table}}).fit_key("cells", "scjoint", 0) for table in (annotation, annotation.copy(), moved)]
    assert keys[0] == keys[1] != keys[2]
    swapped = np.arange(5000)
    swapped[[2000, 3000]] = swapped[[3000, 2000]]
    arrays = [Plan(options={"cvqvae": {"weights": values}}).fit_key("cells", "cvqvae", 0) for values in (np.arange(5000), swapped)]
    assert arrays[0] != arrays[1]
    with pytest.raises(TypeError, match="cannot be told by its content"):
        run_benchmark(cells, ["cca"], (0,), tmp_path, options={"cca": {"ridge": object()}})
    assert not list(tmp_path.iterdir())


def test_an_annotation_file_counts_by_what_it_holds(tmp_path):
    paths = [tmp_path / name for name in ("genes.bed", "copy.bed")]
    for path in paths:
        path.write_text("chr1\t10\t20\tA\n")

    def keys():
        return [Plan(options={"scjoint": {"annotation": path}}).fit_key("cells", "scjoint", 0) for path in (str(paths[0]), paths[0], paths[1])]

    before = keys()
    paths[0].write_text("chr1\t10\t30\tA\n")
    after = keys()
    assert len(set(before)) == 1 and after[0] == after[1] != before[0] and after[2] == before[2]


def test_code_that_measures_is_part_of_the_key_of_scores(monkeypatch):
    before = Plan().score_key("fit", "truth")
    monkeypatch.setattr(kept, "_texts", lambda names: [f"{name} changed" for name in names])
    assert Plan().score_key("fit", "truth") != before


HARMLESS = """backed cells checkpoints checks chunks devices files lsi model_card names pairs recording storage stored streams translation""".split()
"What a model of ours is made of and no embedding depends on: reading, keeping and checking, other ways to the same bits, and LSI, whose components are hashed."


def test_every_module_that_a_model_is_made_of_is_known_to_decide_or_not():
    package, found, waiting = Path(cvqvae.__file__).parent, set(), ["integration"]
    while waiting:
        found.add(name := waiting.pop())
        waiting += set(re.findall(r"^\s*from \.(\w+) import", (package / f"{name}.py").read_text(encoding="utf-8"), re.MULTILINE)) - found
    assert sorted(found) == sorted([*kept._OWN, *HARMLESS])


def test_results_are_kept_until_a_module_that_decides_about_them_changes(tmp_path, monkeypatch):
    shutil.copytree(Path(cvqvae.__file__).parent, tmp_path / "cvqvae", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(cvqvae, "__file__", str(tmp_path / "cvqvae" / "__init__.py"))
    assert all((tmp_path / "cvqvae" / f"{name}.py").is_file() for name in [*kept._OWN, *kept._MEASURES, *set().union(*kept._OTHERS.values())])
    before = {name: kept.deciding(name) for name in METHODS}
    changed = {"gene_activity": {"scjoint", "scdart"}, "generative": {"totalvi", "multivi", "clue"}, "explorer": set()}
    changed |= {name: set(OWN) for name in ("quantizer", "streaming")}
    for module, methods in changed.items():
        path = tmp_path / "cvqvae" / f"{module}.py"
        text = path.read_text()
        path.write_text(f"{text}# changed\n")
        assert {name for name in METHODS if kept.deciding(name) != before[name]} == methods
        path.write_text(text)
