"""Jobs in several processes and on a Dask cluster: the table of a serial run, and a row for what failed."""

import os
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import psutil
import pytest
from jobs import breaks, ends

from cvqvae.baselines import METHODS, Method
from cvqvae.benchmark import run_benchmark
from cvqvae.checks import DataError
from cvqvae.preprocessing import preprocess
from cvqvae.simulation import simulate
from cvqvae.workers import Failed, run_jobs

METHODS_COMPARED, SEEDS = ["cvqvae-paper", "cvqvae"], (0, 1)
PLAN = {"batch_key": "batch", "labels_key": "cell_type", "epochs": 2, "evaluation": {"resolutions": 2}}
PLAN["options"] = {"cvqvae-paper": {"hidden": (16,), "n_codes": 16}}


@pytest.fixture(scope="module")
def cells():
    mdata = simulate(n_cells=150, n_genes=200, n_peaks=300, seed=0)
    preprocess(mdata, n_components=8, batch_key="batch")
    return mdata


@pytest.fixture(scope="module")
def serial(cells, tmp_path_factory):
    return run_benchmark(cells, METHODS_COMPARED, SEEDS, tmp_path_factory.mktemp("serial"), **PLAN)


def assert_same_table(found, expected):
    "Equal but for what a job cost, which is measured anew."
    assert found[["method", "seed", "view", "metric"]].equals(expected[["method", "seed", "view", "metric"]])
    cost = expected["metric"].isin(["seconds", "peak_gib"])
    pd.testing.assert_frame_equal(found[~cost], expected[~cost], rtol=1e-6)
    assert (found[cost]["value"] >= 0).all()


def test_workers_give_the_table_of_a_serial_run(cells, serial, tmp_path):
    lines = []
    assert_same_table(run_benchmark(cells, METHODS_COMPARED, SEEDS, tmp_path, lines.append, workers=2, **PLAN), serial)
    assert len(lines) == 7  # a line for each job: raw once, everything else with two seeds
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "results").iterdir()}
    assert_same_table(run_benchmark(cells, METHODS_COMPARED, SEEDS, tmp_path, workers=2, **PLAN), serial)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "results").iterdir()} == before, "what is kept is not computed again"
    next((tmp_path / "results").glob("cvqvae-1-*-*.csv")).unlink()
    next((tmp_path / "results").glob("cvqvae-0-*-*.csv")).write_text("view,metric\nstac")  # damaged: scored again
    assert_same_table(run_benchmark(cells, METHODS_COMPARED, SEEDS, tmp_path, workers=2, **PLAN), serial)


def test_a_dask_cluster_gives_the_table_of_a_serial_run(cells, serial, tmp_path):
    distributed = pytest.importorskip("distributed", reason="a cluster needs the extra cvqvae[dask]")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None, "local_directory": str(tmp_path / "dask")}
        with distributed.LocalCluster(**options, silence_logs="CRITICAL") as cluster:
            table = run_benchmark(cells, METHODS_COMPARED, SEEDS, tmp_path, dask=cluster.scheduler_address, **PLAN)
            assert_same_table(table, serial)
            found = dict(run_jobs(divmod, 7, [(2,), (0,)], dask=cluster.scheduler_address))
    assert found[2,] == (3, 1) and found[0,].reason.startswith("ZeroDivisionError")


def test_a_worker_that_dies_is_a_row_and_the_others_go_on():
    jobs = [(number,) for number in range(4)]
    found = dict(run_jobs(ends, 10, jobs, workers=2))
    threads = str(max(1, min(os.cpu_count() // 2, int(os.environ.get("OMP_NUM_THREADS", os.cpu_count())))))
    assert found == {(0,): (10, threads), (1,): Failed("its process died"), (2,): (12, threads), (3,): (13, threads)}


def test_a_method_of_ones_own_reaches_the_workers(cells, tmp_path, monkeypatch):
    monkeypatch.setitem(METHODS, "own", Method(breaks, "fails", "nobody"))
    table = run_benchmark(cells, ["own"], (0,), tmp_path, workers=2, **PLAN)
    assert set(table.query("method == 'own'")["reason"]) == {"MemoryError: no room for this one"}
    assert np.isfinite(table.query("method == 'raw' and view == 'joint' and metric == 'score'")["value"]).all()


@pytest.mark.parametrize("changes", [{"workers": 0}, {"workers": True}, {"dask": "tcp://127.0.0.1:1"}, {"dask": "nonsense"}])
def test_places_that_cannot_be(changes):
    with pytest.raises(DataError, match="workers=|no Dask scheduler answers|cvqvae\\[dask\\]"):
        list(run_jobs(divmod, 7, [(2,)], **changes))


STARTER = """
from cvqvae.workers import run_jobs
from jobs import waits

if __name__ == "__main__":
    for job in run_jobs(waits, None, [(0,), (0,), (60,), (60,)], workers=2):
        print(job, flush=True)
"""


@pytest.mark.skipif(os.name != "posix", reason="signal 9")
def test_workers_end_when_their_starter_is_killed(root, tmp_path):
    (tmp_path / "starter.py").write_text(STARTER)
    paths = os.pathsep.join([str(root), str(root / "tests")])
    starter = subprocess.Popen([sys.executable, "-W", "ignore", tmp_path / "starter.py"], stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": paths})
    starter.stdout.readline()
    workers = psutil.Process(starter.pid).children(recursive=True)
    assert len(workers) >= 2
    starter.kill()
    starter.communicate()
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert not alive
