"""Faults on purpose: processes killed at random moments, full disks, damaged files.

`python tests/faults.py FOLDER TIMES [JOB ...]` runs the jobs, each in a process of its own, and prints what came of them as JSON: a few times for the
tests, many times for the robustness report. A process that forks must not have used threads before, which is why this is a program of its own.
"""

import contextlib
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import sys
import threading
import time
import traceback
import warnings
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from mudata import read_h5mu

from cvqvae import command, runs
from cvqvae.benchmark import run_benchmark
from cvqvae.checks import DataError
from cvqvae.compiled import import_umap
from cvqvae.datasets import read_mudata, read_pair
from cvqvae.downloads import RemoteFile, fetch
from cvqvae.files import probe_file, write_atomically
from cvqvae.integration import CVQVAE
from cvqvae.parameters import Parameters, read_parameters
from cvqvae.preprocessing import preprocess
from cvqvae.runs import free_folder
from cvqvae.simulation import simulate
from cvqvae.storage import FORMAT, load_folder, save_folder

SMALL = dict(hidden=(16,), n_latent=4, n_codes=8, n_components=6, batch_size=32, device="cpu")
EPOCHS = 200  # of a training that is killed: so many that it is not over when the kill comes


def small_cells(n=60, seed=0):
    return simulate(n_cells=n, n_genes=150, n_peaks=200, seed=seed)


def child(work, before=lambda: None):
    "Start work in a process of its own, silently; returns its id."
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        torch.set_num_threads(1)
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        before()
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def ended(pid):
    "Wait for a process; its exit code, negative for a signal."
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def killed(work, seconds, ready=lambda: True):
    "Run work in a process that is killed (signal 9) so many seconds after it has started, or after it is `ready`; True when it was killed."
    pid = child(work)
    deadline = time.time() + 60
    while not ready() and time.time() < deadline:
        time.sleep(0.001)
    time.sleep(seconds)
    os.kill(pid, signal.SIGKILL)
    return ended(pid) == -signal.SIGKILL


@contextlib.contextmanager
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


# saves -------------------------------------------------------------------------------------------------------------------------------


def generation(number):
    return {f"array{i}": torch.full((40_000,), float(number)) for i in range(4)}, {"format": FORMAT, "generation": number}


def save_forever(folder):
    for number in range(1, 10**6):
        save_folder(folder, *generation(number), overwrite=True)


def kill_saves(folder, times, seed=0):
    "Kill a process that replaces a model again and again; every time the folder must hold one whole model. Returns the generations seen."
    chance, seen = random.Random(seed), []
    save_folder(folder, *generation(0), overwrite=True)
    for _ in range(times):
        assert killed(lambda: save_forever(folder), chance.uniform(0.005, 0.08))
        arrays, metadata = load_folder(folder)
        assert all((value == metadata["generation"]).all() for value in arrays.values()), "a model of two halves"
        seen.append(metadata["generation"])
    return seen


def write_forever(path):
    for number in range(10**9):
        write_atomically(path, lambda part, n=number: part.write_text(json.dumps([n] * 20_000)))


def kill_writes(path, times, seed=0):
    "The same for a single file."
    chance, seen = random.Random(seed), []
    write_atomically(path, lambda part: part.write_text("[0]"))
    for _ in range(times):
        assert killed(lambda: write_forever(path), chance.uniform(0.005, 0.05))
        seen.append(len(set(json.loads(path.read_text()))))
    assert set(seen) == {1}
    return seen


# downloads ---------------------------------------------------------------------------------------------------------------------------

CONTENT = np.random.default_rng(0).bytes(400_000)


class SlowServer(ThreadingHTTPServer):
    "Serves CONTENT in small pieces, and ranges of it."

    def __init__(self, pause=0.002):
        super().__init__(("127.0.0.1", 0), _Slow)
        self.pause, self.sent = pause, 0
        self.url = f"http://127.0.0.1:{self.server_port}/cells.h5ad"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request, client_address):
        "A client that was killed is no error here."


class _Slow(BaseHTTPRequestHandler):
    def do_GET(self):
        header = self.headers.get("Range")
        start = int(header[len("bytes=") : -1]) if header else 0
        self.send_response(206 if header else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        for i in range(start, len(CONTENT), 8192):
            self.wfile.write(CONTENT[i : i + 8192])
            self.server.sent += len(CONTENT[i : i + 8192])
            time.sleep(self.server.pause)

    def log_message(self, *args):
        pass


def kill_downloads(folder, times, seed=0):
    "Kill a process that downloads; under its name the file is whole or absent, and the last attempt completes it."
    chance, server = random.Random(seed), SlowServer()
    remote = RemoteFile(server.url, hashlib.sha256(CONTENT).hexdigest())
    for _ in range(times):
        killed(lambda: fetch(remote, folder), chance.uniform(0.0, 0.06))
        assert not (folder / remote.name).exists() or (folder / remote.name).read_bytes() == CONTENT
    assert fetch(remote, folder).read_bytes() == CONTENT
    assert [path.name for path in folder.iterdir() if path.suffix != ".lock"] == [remote.name]
    server.shutdown()
    server.server_close()
    return times


# training ----------------------------------------------------------------------------------------------------------------------------


def fit_with(mdata, checkpoint=None, epochs=60):
    with quiet():
        return CVQVAE(mdata, batch_key="batch", epochs=epochs, **SMALL).fit(progress=False, checkpoint=checkpoint)


def kill_fits(folder, times, seed=0, epochs=EPOCHS):
    "Kill a training again and again; the last start completes it. Returns the embedding, to be compared with an uninterrupted one, and epochs found."
    from safetensors import safe_open

    chance, path, found = random.Random(seed), folder / "fit.safetensors", []
    for _ in range(times):
        killed(lambda: fit_with(small_cells(), path, epochs), chance.uniform(0.0, 0.2), ready=path.exists)
        with safe_open(path, "pt") as file:
            found.append(json.loads(file.metadata()["cvqvae"])["epoch"])
    model = fit_with(small_cells(), path, epochs)
    return model.latents()["joint"].z, found


# files that are damaged --------------------------------------------------------------------------------------------------------------


def mutated(content, chance):
    "A valid file with something wrong: bytes changed, a piece cut out, doubled, filled or cut off."
    data, kind = bytearray(content), chance.choice(["bytes", "bytes", "bits", "cut", "double", "fill", "end"])
    start = chance.randrange(len(data))
    length = min(chance.choice([1, 8, 64, 512, 4096]), len(data) - start)
    if kind == "bytes":
        for _ in range(chance.choice([1, 3, 10, 50])):
            data[chance.randrange(len(data))] = chance.randrange(256)
    elif kind == "bits":
        data[start] ^= 1 << chance.randrange(8)
    elif kind == "cut":
        del data[start : start + length]
    elif kind == "double":
        data[start:start] = data[start : start + length]
    elif kind == "fill":
        data[start : start + length] = bytes([chance.choice([0, 255, 127])]) * length
    else:
        del data[start:]
    return bytes(data)


def limited(gigabytes=6, seconds=20):
    "Let this process neither grow nor run without bound."
    resource.setrlimit(resource.RLIMIT_AS, (gigabytes * 2**30, resource.RLIM_INFINITY))
    signal.alarm(seconds)


def survive(paths, use, log):
    """Use damaged files in a process of its own, one after the other; a crash costs one file, not the others.

    Returns how often what happened: "accepted", "refused" (DataError), "other: ..." (any other error), "died: ..." (signal)."""
    outcomes, left = {}, list(paths)
    while left:
        log.write_text("")

        def work(left=left):
            for path in left:
                signal.alarm(20)
                with open(log, "a") as file:
                    file.write(f"{outcome_of(use, path)}\n")

        code = ended(child(work, before=limited))
        lines = log.read_text().splitlines()
        if len(lines) < len(left):
            lines.append(f"died: {signal.Signals(-code).name if code < 0 else code} on {left[len(lines)]}")
        for line in lines:
            outcomes[line] = outcomes.get(line, 0) + 1
        left = left[len(lines) :]
    return outcomes


def outcome_of(use, path):
    try:
        with quiet():
            use(path)
        return "accepted"
    except DataError:
        return "refused"
    except BaseException as error:
        return f"other: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''} on {Path(path).name}"


def fuzz_file(valid, folder, use, times, seed=0):
    "So many mutations of a valid file, each used."
    chance, content, paths = random.Random(seed), valid.read_bytes(), []
    assert survive([valid], use, folder / "log.txt") == {"accepted": 1}, f"{valid} is in order"
    for i in range(times):
        paths.append(folder / f"{seed}-{i}{valid.suffix}")
        paths[-1].write_bytes(mutated(content, chance))
    outcomes = survive(paths, use, folder / "log.txt")
    for line in [line for line in outcomes if line.startswith("died") and valid.suffix in (".h5ad", ".h5mu")]:
        if probed(Path(line.split(" on ")[1])):
            outcomes["refused by the probe"] = outcomes.get("refused by the probe", 0) + outcomes.pop(line)
    for path in paths:
        path.unlink()
    return outcomes


def probed(path):
    "Does `probe_file`, which the command calls first, refuse the file?"
    try:
        probe_file(path, 10)
    except DataError:
        return True
    return False


def valid_files(folder):
    "A pair, a MuData, a model and parameters, all in order."
    mdata = small_cells(30)
    for name, adata in mdata.mod.items():
        adata.write_h5ad(folder / f"{name}.h5ad")
    mdata.write_h5mu(folder / "cells.h5mu")
    fit_with(small_cells(40), epochs=2).save(folder / "model")
    (folder / "p.yaml").write_text("epochs: 20\nseed: 3\ndataset: demo\nbatch: batch\nlabels: cell_type\npreset: default\ncomponents: 20\n")


def load_with(folder, name):
    "A user of a model folder in which one of the two files is replaced."

    def use(path):
        copy = folder / f"copy-{os.getpid()}"
        copy.mkdir(exist_ok=True)
        for part in ("model.json", "model.safetensors"):
            (copy / part).write_bytes((path if part == name else folder / "model" / part).read_bytes())
        CVQVAE.load(copy, device="cpu").embed(small_cells(40))

    return use


def fuzz(folder, times, seed=0):
    "Damaged files of every kind that is read, and what came of them."
    assert ended(child(lambda: valid_files(folder))) == 0
    users = {
        "rna.h5ad": lambda path: read_pair(path, folder / "atac.h5ad"), "cells.h5mu": read_mudata, "p.yaml": read_parameters,
        "model/model.json": load_with(folder, "model.json"), "model/model.safetensors": load_with(folder, "model.safetensors"),
    }
    return {name: fuzz_file(folder / name, folder, use, times, seed) for name, use in users.items()}


# full and read-only disks ------------------------------------------------------------------------------------------------------------


def small_disk(megabytes=0.05):
    "Let this process write no file beyond so many megabytes, as if the disk were full."
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(megabytes * 2**20), resource.RLIM_INFINITY))


def nobody():
    "Give up the rights of root, for whom no folder is read-only."
    if os.getuid() == 0:
        os.setgid(65534)
        os.setuid(65534)


def refused(work, expected, limit):
    "True where work, in a process with a limit, ends in the expected error."

    def attempt():
        try:
            with quiet():
                work()
        except expected:
            return
        raise AssertionError("no error was raised")

    return ended(child(attempt, before=limit)) == 0


def full_disks(folder, times=1):
    "What a full or read-only disk does to what was there before."
    save_folder(folder / "model", *generation(7), overwrite=True)
    write_atomically(folder / "state.json", lambda part: part.write_text("[7]"))
    found = {"save": refused(lambda: save_folder(folder / "model", *generation(8), overwrite=True), OSError, small_disk)}
    found["write"] = refused(lambda: write_atomically(folder / "state.json", lambda part: part.write_text("8" * 10**6)), OSError, small_disk)
    found["left behind"] = sorted(path.name for path in folder.iterdir())
    path = folder / "fit.safetensors"
    found["training goes on"] = ended(child(lambda: fit_with(small_cells(), path, 30), before=small_disk)) == 0 and not path.exists()
    folder.chmod(0o755)
    (folder / "closed").mkdir(mode=0o555)
    found["read-only save"] = refused(lambda: save_folder(folder / "closed" / "model", *generation(8), overwrite=True), OSError, nobody)
    found["read-only run"] = refused(lambda: free_folder(folder / "closed" / "run"), DataError, nobody)
    found |= full_downloads(folder / "cache")
    found["old model"] = load_folder(folder / "model")[1]["generation"]
    found["old file"] = (folder / "state.json").read_text()
    return found


def full_downloads(cache):
    "A download that the disk has no room for, one into a read-only folder, and the next one."
    server = SlowServer(pause=0)
    remote, limit = RemoteFile(server.url, hashlib.sha256(CONTENT).hexdigest()), lambda: small_disk(0.2)
    found = {"download": refused(lambda: fetch(remote, cache), DataError, limit), "half downloads": sorted(path.name for path in cache.glob("[!.]*"))}
    found["next download"] = fetch(remote, cache).read_bytes() == CONTENT
    found["read-only download"] = refused(lambda: fetch(remote, cache.parent / "closed" / "cache"), DataError, nobody)
    server.shutdown()
    server.server_close()
    return found


# runs --------------------------------------------------------------------------------------------------------------------------------


def pretended(name, folder, parameters):
    "In place of a notebook: train with the checkpoint that the run was given, keep the embedding."
    model = fit_with(small_cells(), parameters["checkpoint"], 60)
    np.save(folder / "embedding.npy", model.latents()["joint"].z.numpy())
    (folder / f"{name}.ipynb").write_text("{}")


def run_once(cells, out):
    runs.execute, runs.write_html = pretended, lambda notebook: None
    runs.run_analysis("integrate", Parameters(mudata=str(cells), batch="batch", seed=0), out)


def kill_runs(folder, times, seed=0):
    "Kill runs of the command at random moments; the next start continues the training, and every folder is whole or named as interrupted."
    chance, cells = random.Random(seed), folder / "cells.h5mu"
    assert ended(child(lambda: small_cells().write_h5mu(cells))) == 0
    kills = starts = 0
    while kills < max(1, times // 4) and starts < 20:
        running = lambda: next(iter((folder / "checkpoints").glob("*.safetensors")), folder / "none")
        pid, deadline, starts = child(lambda: run_once(cells, folder / "run")), time.time() + 30, starts + 1
        while not running().exists() and time.time() < deadline:
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.3 / starts))
        os.kill(pid, signal.SIGSTOP)  # so that it still runs when the second one comes
        second = refused(lambda: run_once(cells, folder / "run"), DataError, lambda: None)
        os.kill(pid, signal.SIGKILL)
        if ended(pid) == -signal.SIGKILL and not (folder / "run").exists():
            taken, kills = second, kills + 1
        else:  # the run was over before it was stopped
            shutil.rmtree(folder / "run")
    kept = len(list((folder / "checkpoints").glob("*.safetensors")))
    assert ended(child(lambda: run_once(cells, folder / "run"))) == 0
    assert ended(child(lambda: run_once(cells, folder / "whole"))) == 0
    same = np.array_equal(np.load(folder / "run" / "embedding.npy"), np.load(folder / "whole" / "embedding.npy"))
    names = sorted(path.name for path in folder.iterdir())
    return {"refused while another writes": taken, "checkpoints kept": kept, "same embedding": same, "folders": names}


def runs_together(folder, times):
    "Ten runs of the same cells at once, which share the folder of checkpoints."
    cells, number = folder / "cells.h5mu", 10
    assert ended(child(lambda: small_cells().write_h5mu(cells))) == 0
    started = [child(lambda i=i: run_once(cells, folder / f"run{i}")) for i in range(number)]
    codes, names = [ended(pid) for pid in started], sorted(path.name for path in folder.iterdir())
    found = [np.load(folder / f"run{i}" / "embedding.npy") for i in range(number)]
    return {"codes": codes, "same embedding": all(np.array_equal(found[0], other) for other in found), "names": names}


def integrate_by_command(cells, out, cache):
    "The process becomes `cvqvae integrate`, with what it says in a file beside the run and its caches in a folder of all."
    log = os.open(out.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ |= {name: str(cache) for name in ("XDG_CACHE_HOME", "MPLCONFIGDIR", "NUMBA_CACHE_DIR")}
    flags = ["--mudata", cells, "--out", out, *"--batch batch --labels cell_type --epochs 2 --components 6".split()]
    os.execv(sys.executable, [sys.executable, "-W", "ignore", "-c", PROGRAM, "integrate", *map(str, flags)])


def crowd(folder, times):
    "Ten real commands at once, notebooks and all: into ten folders, then into one; with one folder of caches and one of checkpoints."
    cells, number, found = folder / "cells.h5mu", 10, {}
    assert ended(child(lambda: small_cells().write_h5mu(cells))) == 0
    for place, outs in {"ten": [f"run{i}" for i in range(number)], "one": ["run"] * number}.items():
        (folder / place).mkdir()
        started = [child(lambda out=folder / place / out: integrate_by_command(cells, out, folder / "cache")) for out in outs]
        codes, said = [ended(pid) for pid in started], "".join(path.read_text() for path in (folder / place).glob("*.log"))
        read_all(folder / place)
        made = [read_h5mu(path).obsm["X_cvqvae"] for path in (folder / place).glob("*/integrated.h5mu")]
        found[place] = {"codes": sorted(codes), "whole runs": len(made), "same embedding": all(np.array_equal(made[0], other) for other in made),
                        "said": sorted({line for line in said.splitlines() if line.startswith(("cvqvae:", "An earlier", "Traceback", "note:"))}),
                        "names": sorted(path.name for path in (folder / place).iterdir() if path.suffix != ".log")}
    return found


# comparisons -------------------------------------------------------------------------------------------------------------------------

COMPARED = "--batch batch --labels cell_type --methods cvqvae,cvqvae-paper --seeds 0,1 --epochs 2 --components 6 --resolutions 1".split()
PROGRAM = "import sys; from cvqvae.command import main; sys.exit(main())"


def compared(name, folder, parameters):
    "In place of a notebook: the comparison that it makes."
    methods, seeds = parameters["methods"].split(","), [int(seed) for seed in parameters["seeds"].split(",")]
    plan = dict(batch_key="batch", labels_key="cell_type", epochs=parameters["epochs"], evaluation={"resolutions": 1})
    mdata = read_mudata(parameters["mudata"])
    with quiet():
        preprocess(mdata, n_components=6, batch_key="batch")
        run_benchmark(mdata, methods, seeds, folder, results=parameters["results"], **plan)
    (folder / f"{name}.ipynb").write_text("{}")


def compare_once(cells, out):
    "`cvqvae benchmark` without its notebook, which takes longer than what it does here."
    runs.execute, runs.write_html = compared, lambda notebook: None
    assert command.main(["benchmark", "--mudata", str(cells), "--out", str(out), *COMPARED]) == 0


def compare_by_command(cells, out):
    "The process becomes `cvqvae benchmark`, notebook and all."
    os.execv(sys.executable, [sys.executable, "-W", "ignore", "-c", PROGRAM, "benchmark", "--mudata", str(cells), "--out", str(out), *COMPARED])


def read_all(folder):
    "Read every table, record and array below a folder, also those of a run that was killed; returns the temporary files beside them."
    read = {".csv": pd.read_csv, ".json": lambda path: json.loads(path.read_text()), ".npz": lambda path: dict(np.load(path))}
    for path in folder.rglob("*"):
        if path.suffix in read:
            read[path.suffix](path)
    return sorted(str(path.relative_to(folder)) for path in folder.rglob(".*.part"))


def same_table(one, other):
    "Are two tables of scores equal, with every row once? What a job cost may differ."
    tables = [pd.read_csv(run / "scores.csv") for run in (one, other)]
    assert not any(table.duplicated(["method", "seed", "view", "metric"]).any() for table in tables)
    return tables[0][lambda t: t["group"] != "cost"].equals(tables[1][lambda t: t["group"] != "cost"])


def more_than_now(folder, pattern):
    "A function that says whether files have appeared since, or the run is complete."
    before = set(folder.glob(pattern))
    return lambda: (folder / "run").exists() or bool(set(folder.glob(pattern)) - before)


def kill_comparisons(folder, times, start=compare_once, longest=2.0, seed=0):
    "Kill comparisons at random moments; the next start keeps what is whole, does the rest and clears away."
    import_umap()  # once here, and not in every process that is started

    chance, cells, at_work, found = random.Random(seed), folder / "cells.h5mu", folder / "killed", []
    assert ended(child(lambda: small_cells().write_h5mu(cells))) == 0
    undisturbed = child(lambda: start(cells, folder / "whole" / "run"))
    while len(found) < times:
        shutil.rmtree(at_work / "run", ignore_errors=True)
        if killed(lambda: start(cells, at_work / "run"), chance.uniform(0, longest), more_than_now(at_work, chance.choice([".run-run-*", "results/*.npz"]))):
            read_all(at_work)
            found.append(len(list(at_work.glob("results/*.npz"))))
        if len(list(at_work.glob("results/*.npz"))) == 7:  # all that there is to do
            shutil.rmtree(at_work / "results")
    (at_work / "results").mkdir(exist_ok=True)
    (at_work / "results" / ".raw-0-0.npz-abcd1234.part").write_bytes(b"half")
    assert ended(child(lambda: start(cells, at_work / "run"))) == ended(undisturbed) == 0
    return {"same table": same_table(at_work / "run", folder / "whole" / "run"), "results kept after a kill": found,
            "temporary files left": [name for name in read_all(at_work) if name.startswith("results")]}


# the jobs ----------------------------------------------------------------------------------------------------------------------------


def compare_fits(folder, times):
    resumed, found = kill_fits(folder, max(1, times // 4))
    whole = fit_with(small_cells(), None, EPOCHS).latents()["joint"].z
    return {"same embedding": torch.equal(resumed, whole), "epochs found after a kill": found}


JOBS = {
    "saves": lambda folder, times: kill_saves(folder / "model", times), "writes": lambda folder, times: kill_writes(folder / "state.json", times),
    "downloads": lambda folder, times: kill_downloads(folder / "cache", times), "fits": compare_fits, "runs": kill_runs,
    "comparisons": lambda folder, times: kill_comparisons(folder, max(3, times // 2)),
    "commands": lambda folder, times: kill_comparisons(folder, max(2, times // 10), compare_by_command, longest=12.0),
    "together": runs_together, "crowd": crowd,
    "disks": full_disks, "fuzz": fuzz,
}


def main(folder, times, names):
    folder = Path(folder)
    for name in names or JOBS:
        (folder / name).mkdir(parents=True)
        work = lambda name=name: (folder / f"{name}.json").write_text(json.dumps(JOBS[name](folder / name, times)))
        started, code = time.time(), ended(child(work))
        result = json.loads((folder / f"{name}.json").read_text()) if code == 0 else None
        print(json.dumps({"job": name, "code": code, "seconds": round(time.time() - started, 1), "result": result}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
