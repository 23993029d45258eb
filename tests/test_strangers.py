"""Files and parameters from strangers: they cannot execute code, read or write elsewhere, or ask for more memory and disk than they are worth."""

import gzip
import json
import os
import pickle
import re
import subprocess
import sys
import zipfile
import zlib
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch
import yaml
from bad_cells import SMALL, cells, files
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from limits import without_delay
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from cvqvae import files as opened
from cvqvae import gene_activity, public, runs
from cvqvae.checks import DataError
from cvqvae.command import main
from cvqvae.datasets import load_dataset, read_any, read_modality, read_mudata
from cvqvae.downloads import RemoteFile, fetch, fetch_all
from cvqvae.files import check_contents, check_file, probe_file, unpack
from cvqvae.integration import CVQVAE
from cvqvae.parameters import Parameters, checked, read_parameters

pytestmark = pytest.mark.filterwarnings("ignore")


class Bomb:
    "Leaves a file behind when it is unpickled."

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return (Path.touch, (self.trace,))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stranger") / "model"
    CVQVAE(cells(), batch_key="batch", **SMALL).fit(progress=False).save(folder)
    return folder


@pytest.fixture
def copy(model, tmp_path):
    "A model folder to spoil."
    target = tmp_path / "model"
    target.mkdir()
    for path in model.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


def edited(folder, change):
    metadata = json.loads((folder / "model.json").read_text())
    change(metadata)
    (folder / "model.json").write_text(json.dumps(metadata))
    return folder


# code --------------------------------------------------------------------------------------------------------------------------------


def test_a_bomb_would_go_off(tmp_path):
    pickle.loads(pickle.dumps(Bomb(tmp_path / "trace")))
    assert (tmp_path / "trace").exists()


def test_pickles_in_a_model_folder_are_not_opened(copy, tmp_path):
    bomb = pickle.dumps(Bomb(tmp_path / "trace"))
    (copy / "model.pkl").write_bytes(bomb)
    (copy / "pytorch_model.bin").write_bytes(bomb)
    CVQVAE.load(copy, device="cpu")
    (copy / "model.safetensors").write_bytes(bomb)
    with pytest.raises(DataError, match="not a saved CVQVAE model"):
        CVQVAE.load(copy, device="cpu")
    torch.save({"module.x": Bomb(tmp_path / "trace")}, copy / "model.safetensors")
    with pytest.raises(DataError, match="not a saved CVQVAE model"):
        CVQVAE.load(copy, device="cpu")
    assert not (tmp_path / "trace").exists()


def test_pickles_in_a_checkpoint_are_not_opened(tmp_path):
    torch.save({"model": Bomb(tmp_path / "trace")}, tmp_path / "fit.safetensors")
    with pytest.raises(DataError, match="fit.safetensors is no checkpoint.*remove"):
        CVQVAE(cells(), batch_key="batch", **SMALL).fit(progress=False, checkpoint=tmp_path / "fit.safetensors")
    (tmp_path / "fit.safetensors").write_bytes(pickle.dumps(Bomb(tmp_path / "trace")))
    with pytest.raises(DataError, match="fit.safetensors is no checkpoint.*remove"):
        CVQVAE(cells(), batch_key="batch", **SMALL).fit(progress=False, checkpoint=tmp_path / "fit.safetensors")
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("change", [dict(history=[None]), dict(history={}), dict(epoch=10**30), dict(epoch="2"), dict(step=-1), dict(step=True)])
def test_the_counters_of_a_checkpoint_are_looked_at(tmp_path, change):
    path = tmp_path / "fit.safetensors"
    CVQVAE(cells(), batch_key="batch", **SMALL).fit(progress=False, checkpoint=path)
    with safe_open(path, "pt") as file:
        state = json.loads(file.metadata()["cvqvae"]) | change
    save_file(load_file(path), path, metadata={"cvqvae": json.dumps(state)})
    with pytest.raises(DataError, match="fit.safetensors does not say how far it came: remove"):
        CVQVAE(cells(), batch_key="batch", **SMALL).fit(progress=False, checkpoint=path)


def store_with(folder, about, content):
    "A zarr folder with one array more, in both of its tables."
    pytest.importorskip("zarr")
    cells().write_zarr(folder)
    for place in ("obs", "mod/rna/uns"):
        (folder / place / "bomb").mkdir(parents=True)
        (folder / place / "bomb" / ".zarray").write_text(json.dumps({"zarr_format": 2, "chunks": [60], "fill_value": None, "order": "C"} | about))
        (folder / place / "bomb" / ".zattrs").write_text('{"encoding-type": "array", "encoding-version": "0.2.0"}')
        (folder / place / "bomb" / "0").write_bytes(content)
    return folder


@pytest.mark.parametrize("packing", [{"filters": [{"id": "pickle"}], "compressor": None}, {"filters": None, "compressor": {"id": "pickle"}}])
def test_pickles_in_a_zarr_store_are_not_opened(tmp_path, packing):
    store = store_with(tmp_path / "cells.zarr", {"shape": [60], "dtype": "|O"} | packing, pickle.dumps([Bomb(tmp_path / "trace")] * 60))
    with pytest.raises(DataError, match="bomb is packed as a pickle"):
        read_any(store, backed=True)
    assert main(["integrate", "--backed", "--mudata", str(store), "--out", str(tmp_path / "out")]) == 2
    assert not (tmp_path / "trace").exists() and not (tmp_path / "out").exists()


def test_a_zarr_store_stays_within_its_folder_and_memory(tmp_path):
    store = store_with(tmp_path / "cells.zarr", {"shape": [60, 10**12], "dtype": "<f4", "filters": None, "compressor": None}, b"")
    with pytest.raises(DataError, match="cells.zarr claims .* GiB"):
        read_any(store, backed=True)
    store_with(store, {"shape": [60], "chunks": [10**13], "dtype": "<f4", "filters": None, "compressor": None}, b"")
    with pytest.raises(DataError, match="cells.zarr claims .* GiB"):
        read_any(store, backed=True)
    (store / "obs" / "bomb" / "0").unlink()
    (store / "obs" / "bomb" / "0").symlink_to("/etc/passwd")
    with pytest.raises(DataError, match="obs/bomb/0 is a link"):
        read_any(store, backed=True)


def test_pickles_in_kept_results_are_not_opened(tmp_path):
    from cvqvae.kept import load_result

    stem = tmp_path / "raw-0-abc"
    np.savez(stem.with_suffix(".npz"), joint=np.array([Bomb(tmp_path / "trace")], dtype=object))
    stem.with_suffix(".json").write_text('{"seconds": 1, "peak_gib": 1, "note": "", "uses_labels": false, "tables": {}}')
    assert load_result(stem) is None and not (tmp_path / "trace").exists()


@pytest.mark.parametrize("slot", ["obsm/X_bomb", "uns/bomb", "layers/bomb", "obs/bomb"])
def test_pickles_in_cells_are_not_opened(tmp_path, slot):
    path, bomb = files(tmp_path) / "rna.h5ad", pickle.dumps(Bomb(tmp_path / "trace"))
    with h5py.File(path, "r+") as file:
        file[slot] = np.void(bomb)
        file[slot].attrs["encoding-type"], file[slot].attrs["encoding-version"] = "pickle", "0.1.0"
        file["X"].attrs["pickle"] = np.void(bomb)
    try:
        read_modality(path)
    except DataError:
        pass
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("text", [
    "rna: !!python/object/apply:pathlib.Path.touch [{trace}]", "rna: !!python/object/new:os.system [touch {trace}]", "!!python/name:os.system",
    "rna: !!python/module:antigravity", "? !!python/object/apply:os.system [touch {trace}]\n: 1"])
def test_parameters_cannot_run_code(tmp_path, text):
    (tmp_path / "p.yaml").write_text(text.replace("{trace}", str(tmp_path / "trace")))
    with pytest.raises(DataError):
        read_parameters(tmp_path / "p.yaml")
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("name, value", [
    ("labels", "x'); import os; os.system('touch {trace}'); ('"), ("batch", '"\nimport os\nos.system("touch {trace}")\n"'), ("dataset", "demo\nimport os"),
    ("labels", "cell_type\u2028import os")])
def test_parameters_are_data_in_the_notebook(tmp_path, name, value):
    from papermill.parameterize import parameterize_notebook
    from papermill.iorw import load_notebook_node

    value = value.replace("{trace}", str(tmp_path / "trace"))
    notebook = parameterize_notebook(load_notebook_node(str(runs.analysis_path("integrate"))), {name: value})
    source = next(cell["source"] for cell in notebook.cells if "injected-parameters" in cell["metadata"].get("tags", []))
    scope = {}
    exec(source, scope)
    assert scope[name] == value and not (tmp_path / "trace").exists() and "os" not in scope


def test_a_parameters_file_cannot_name_a_machine_that_runs_code(tmp_path):
    "What a Dask scheduler sends is unpickled by its client."
    (tmp_path / "p.yaml").write_text("dask: tcp://127.0.0.1:8786")
    with pytest.raises(DataError, match="p.yaml: dask names a machine.*--dask"):
        read_parameters(tmp_path / "p.yaml", "benchmark")
    assert checked({"dask": "tcp://127.0.0.1:8786"}).dask  # the flag may


def test_modules_in_the_working_directory_are_not_imported(tmp_path, monkeypatch):
    path = files(tmp_path) / "rna.h5ad"
    for name in ("h5py", "psutil", "os", "numpy", "resource"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'trace')!r}, 'w').close()")
    monkeypatch.chdir(tmp_path)
    probe_file(path)
    assert not (tmp_path / "trace").exists()


def test_no_module_unpickles_or_evaluates(root):
    for path in (root / "cvqvae").glob("*.py"):
        text = re.sub(r'"[^"\n]*"', "", path.read_text())
        assert not re.search(r"(?<![.\w])(eval|exec)\(|\bpickle\b(?!d)|yaml\.(load|unsafe_load|full_load)\(|os\.system|shell=True|__import__\(", text), path


# reading and writing elsewhere -------------------------------------------------------------------------------------------------------


def test_a_parameters_file_cannot_say_where_to_write(tmp_path):
    for name in ("out", "results", "checkpoint"):
        (tmp_path / "p.yaml").write_text(f"{name}: /etc")
        with pytest.raises(DataError, match=f"unknown {name}"):
            read_parameters(tmp_path / "p.yaml")


@pytest.mark.parametrize("name", ["../../etc/passwd", "..", "/etc", "a/../../b", "demo\x00"])
def test_a_data_set_is_a_name_and_no_path(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="No data set"):
        load_dataset(name)
    assert main(["integrate", "--dataset", name.replace("\x00", "0"), "--out", str(tmp_path / "out")]) == 2
    assert list(tmp_path.iterdir()) == []


def test_a_file_name_cannot_lead_a_download_elsewhere(tmp_path):
    assert RemoteFile("https://example.org/a/..%2F..%2Fetc%2Fpasswd").name.count("/") == 0
    assert RemoteFile("https://example.org/x/../../cells.h5ad").name == "cells.h5ad"


@pytest.mark.parametrize("kind", ["soft", "hard", "loop"])
def test_links_inside_a_file_are_followed_safely(tmp_path, kind):
    path = files(tmp_path) / "rna.h5ad"
    with h5py.File(path, "r+") as file:
        if kind == "soft":
            file["obsm/X_lost"] = h5py.SoftLink("/nowhere")
        elif kind == "hard":
            file["layers/counts"] = file["X"]
        else:
            file["uns/self"] = file["/"]
    refused = nullcontext() if kind == "hard" else pytest.raises(DataError, match="rna.h5ad" if kind == "soft" else "uns/self/ holds itself")
    with without_delay(), refused:
        read_modality(path)


def branching(file):
    "Each of thirty groups holds the next one twice: a thousand million members for a reader."
    for i in range(30):
        for name in "ab":
            file.require_group("uns/deep0" if i == 0 else f"deep{i}")[name] = file.require_group(f"deep{i + 1}")


def nested(file):
    file.create_group("uns" + "/x" * 2000)


@pytest.mark.parametrize("change, words", [(branching, "the same groups as another name"), (nested, "holds itself")])
def test_groups_without_end_are_refused_at_once(tmp_path, change, words):
    "Followed to the end of the stack, they would leave h5py's lock taken for good."
    path = files(tmp_path) / "rna.h5ad"
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(DataError, match=words):
        read_modality(path)


@pytest.mark.parametrize("backed", [False, True])
def test_a_container_that_reads_another_file(tmp_path, backed):
    folder = files(tmp_path)
    with h5py.File(folder / "cells.h5mu", "r+") as file:
        file["obsm/X_far"] = h5py.ExternalLink(str(folder / "rna.h5ad"), "X/data")
    with pytest.raises(DataError, match="obsm/X_far lies in another file"):
        read_any(folder / "cells.h5mu", backed=backed)


def test_counts_on_disk_may_be_larger_than_memory(tmp_path):
    with h5py.File(files(tmp_path) / "cells.h5mu", "r+") as file:
        file["mod/rna/layers"].create_dataset("huge", (60, 10**11), "float32", chunks=(1, 1024))
    assert check_file(tmp_path / "cells.h5mu", backed=True)
    with pytest.raises(DataError, match="--backed"):
        check_file(tmp_path / "cells.h5mu")


def test_a_virtual_data_set_is_refused(tmp_path):
    path = files(tmp_path) / "rna.h5ad"
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["key"] = np.ones((60, 2))
    layout = h5py.VirtualLayout(shape=(60, 2), dtype="float64")
    layout[...] = h5py.VirtualSource(tmp_path / "secret.h5", "key", shape=(60, 2))
    with h5py.File(path, "r+") as file:
        file["obsm"].create_virtual_dataset("X_far", layout)
    with pytest.raises(DataError, match="X_far lies in another file"):
        read_modality(path)


def test_a_report_forbids_scripts(tmp_path):
    import nbformat

    output = nbformat.v4.new_output("display_data", data={"text/html": "<script>document.title = 'owned'</script><img src=x onerror=alert(1)>"})
    cell = nbformat.v4.new_code_cell("1", outputs=[output])
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("**<script>alert(1)</script>**"), cell]), tmp_path / "r.ipynb")
    page = runs.write_html(tmp_path / "r.ipynb").read_text()
    policy = re.search(r"<meta[^>]*Content-Security-Policy[^>]*>", page)
    assert "default-src 'none'" in policy[0] and "script-src" not in policy[0]
    assert policy.start() < page.index("<script")


# size --------------------------------------------------------------------------------------------------------------------------------


def header_of_ten_terabytes(path):
    header = json.dumps({"module.x": {"dtype": "F32", "shape": [2_500_000, 1_000_000], "data_offsets": [0, 10**13]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)


HUGE = {
    "a header that claims ten terabytes": lambda f: header_of_ten_terabytes(f / "model.safetensors"),
    "a header longer than the file": lambda f: (f / "model.safetensors").write_bytes((10**13).to_bytes(8, "little") + b"{}"),
    "a million hidden layers": lambda f: edited(f, lambda m: m["settings"]["model"].update(hidden=[4] * 10**6)),
    "a layer of a billion units": lambda f: edited(f, lambda m: m["settings"]["model"].update(hidden=[10**12])),
    "a codebook of a trillion": lambda f: edited(f, lambda m: m["settings"]["model"].update(n_codes=10**12)),
    "a latent beyond integers": lambda f: edited(f, lambda m: m["settings"]["model"].update(n_latent=10**30)),
    "a billion components": lambda f: edited(f, lambda m: m.update(n_inputs=[10**9, 10**9])),
    "a million modalities": lambda f: edited(f, lambda m: m.update(n_inputs=[2] * 10**6)),
    "too many batches": lambda f: edited(f, lambda m: m.update(batches=[str(i) for i in range(10**5)])),
}
WRONG = {
    "a list instead of settings": lambda f: (f / "model.json").write_text("[1, 2]"),
    "a number instead of settings": lambda f: (f / "model.json").write_text("1e999"),
    "brackets without end": lambda f: (f / "model.json").write_text("[" * 10**5),
    "a format that is text": lambda f: edited(f, lambda m: m.update(format="one")),
    "an unknown setting": lambda f: edited(f, lambda m: m["settings"]["model"].update(backdoor=1)),
    "a setting of another type": lambda f: edited(f, lambda m: m["settings"]["model"].update(n_latent="four")),
    "an unknown kind": lambda f: edited(f, lambda m: m["kinds"].update(rna="../../x")),
    "a missing part": lambda f: edited(f, lambda m: m.pop("history")),
    "features that are lost": lambda f: edited(f, lambda m: m["transforms"]["rna"].update(feature_names=["a"])),
    "batches that are no names": lambda f: edited(f, lambda m: m.update(batches=["batch1", None])),
    "a column that is no name": lambda f: edited(f, lambda m: m.update(batch_key={"batch": 1})),
    "batches without a column": lambda f: edited(f, lambda m: m.update(batch_key=None)),
    "a history of other lengths": lambda f: edited(f, lambda m: m["history"].update(train_loss=[1.0, 2.0])),
    "weights of other names": lambda f: save_file({f"x.{k}": v for k, v in load_file(f / "model.safetensors").items()}, f / "model.safetensors"),
    "weights of NaN": lambda f: save_file({k: v * float("nan") if v.is_floating_point() else v for k, v in load_file(f / "model.safetensors").items()},
                                          f / "model.safetensors"),
}


@pytest.mark.parametrize("name", HUGE | WRONG)
def test_a_model_is_checked_before_memory_is_taken(copy, name):
    import resource

    (HUGE | WRONG)[name](copy)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with without_delay(), pytest.raises(DataError, match=re.escape(str(copy))):
        CVQVAE.load(copy, device="cpu")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000


def test_a_model_of_a_later_release_says_update(copy):
    edited(copy, lambda m: m.update(format=99, secret_of_the_future=1))
    with pytest.raises(DataError, match="later release .*update cvqvae"):
        CVQVAE.load(copy, device="cpu")


def test_overwriting_deletes_nothing_but_a_model(copy, tmp_path):
    loaded = CVQVAE.load(copy, device="cpu")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("years of work")
    with pytest.raises(FileExistsError, match="holds more than a model"):
        loaded.save(tmp_path / "thesis", overwrite=True)
    assert (tmp_path / "thesis" / "chapter1.tex").exists()
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "README.md").write_text("not a model card")
    with pytest.raises(FileExistsError, match="README.md"):
        loaded.save(tmp_path / "project", overwrite=True)
    loaded.save(copy, overwrite=True)


def test_an_archive_that_unpacks_to_a_thousand_times_its_size(tmp_path):
    (tmp_path / "cells.h5ad.gz").write_bytes(gzip.compress(bytes(50_000_000)))
    with pytest.raises(DataError, match="unpacks to more than"):
        unpack(tmp_path / "cells.h5ad.gz", tmp_path / "cells.h5ad", least=1_000_000)
    assert [path.name for path in tmp_path.iterdir()] == ["cells.h5ad.gz"]


def test_an_archive_with_paths_in_it_is_no_data(tmp_path):
    with zipfile.ZipFile(tmp_path / "cells.h5ad", "w") as file:
        file.writestr("../../evil", "x")
    with pytest.raises(DataError, match="zip archive"):
        check_file(tmp_path / "cells.h5ad")


def test_a_matrix_that_claims_more_than_its_names(tmp_path):
    (tmp_path / "m.mtx").write_text("%%MatrixMarket matrix coordinate integer general\n1000000000 1000000000 999999999999\n1 1 2\n")
    (tmp_path / "p.bed").write_text("chr1\t1\t5\n")
    (tmp_path / "b.txt").write_text("cell1\n")
    with pytest.raises(DataError, match="claims 999,999,999,999 entries"):
        public.read_peak_matrix(tmp_path / "m.mtx", tmp_path / "p.bed", tmp_path / "b.txt")


def test_files_of_one_name_in_read_only_folders_stay_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(public.pooch, "os_cache", lambda name: tmp_path / "cache")
    monkeypatch.setattr(public.os, "access", lambda *a: False)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "cells.h5ad.gz").write_bytes(gzip.compress(name.encode()))
    assert [public.unpacked(tmp_path / name / "cells.h5ad.gz").read_text() for name in ("one", "two")] == ["one", "two"]


@pytest.mark.parametrize("name", ["workers", "processes"])
def test_a_parameters_file_cannot_ask_for_a_million_processes(tmp_path, name):
    (tmp_path / "p.yaml").write_text(f"{name}: 1000000")
    with pytest.raises(DataError, match=f"p.yaml: {name} must be at most 1024, got 1000000"):
        read_parameters(tmp_path / "p.yaml")


def test_a_parameters_file_that_laughs_a_billion_times(tmp_path):
    levels = [f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}" for i in range(1, 12)]
    (tmp_path / "p.yaml").write_text("\n".join(["a0: &a0 {epochs: 3}", *levels]))
    with without_delay(), pytest.raises(DataError, match="p.yaml is not readable YAML: references"):
        read_parameters(tmp_path / "p.yaml")


def unfolding(path, times=2**16):
    "Texts in a file that take 64 GB once they are read."
    with h5py.File(path, "r+") as file:
        file["uns"].create_dataset("bomb", (times,), h5py.string_dtype(), chunks=(times,), compression="gzip")[0] = "x" * 1_000_000
    with h5py.File(path, "r+") as file:
        texts = file["uns/bomb"]
        reference = zlib.decompress(texts.id.read_direct_chunk((0,))[1])[:16]
        texts.id.write_direct_chunk((0,), zlib.compress(reference * times))
        texts.attrs["encoding-type"], texts.attrs["encoding-version"] = "string-array", "0.2.0"


def test_a_text_that_is_stored_once_and_named_a_million_times(tmp_path):
    path = files(tmp_path) / "rna.h5ad"
    unfolding(path)
    assert path.stat().st_size < 3_000_000
    for reader in (probe_file, read_modality, lambda path: read_any(path, backed=True)):
        with pytest.raises(DataError, match="rna.h5ad holds texts that unfold to many times its size"):
            reader(path)


@pytest.mark.parametrize("free", ["4 * 2**20", "2**24", "22 * 2**20"])  # where memory ends decides how HDF5 puts it
def test_texts_in_fields_and_attributes_unfold_too(tmp_path, free):
    path, texts = files(tmp_path) / "rna.h5ad", np.array([("x" * 1_000_000, 1.0)] * 40, dtype=[("gene", h5py.string_dtype()), ("score", "f4")])
    program = opened._PROBE.replace("2**31 + 8 * os.path.getsize(sys.argv[1])", free)
    probe_file(path, program=program)
    with h5py.File(path, "r+") as file:
        before = opened._texts(file)
        file["uns/ranks"] = texts
        file["uns"].attrs.create("names", ["a"] * 50, dtype=h5py.string_dtype())
    with h5py.File(path) as file:
        assert opened._texts(file) == before + 90
    with pytest.raises(DataError, match="texts that unfold"):
        probe_file(path, program=program)


def test_readers_probe_only_what_could_unfold_and_only_once(tmp_path, monkeypatch):
    probed = []
    monkeypatch.setattr(opened, "probe_file", probed.append)
    read_modality(files(tmp_path) / "rna.h5ad")
    assert probed == []
    monkeypatch.setattr(opened, "_FREE", 2**20)
    for _ in range(2):
        read_modality(tmp_path / "rna.h5ad")
    assert probed == [tmp_path / "rna.h5ad"]


def test_the_command_and_its_readers_probe_a_file_once(tmp_path, monkeypatch):
    probed, folder = [], files(tmp_path)
    monkeypatch.setattr(opened.subprocess, "run", lambda command, **_: probed.append(Path(command[-1])) or SimpleNamespace(returncode=0))
    monkeypatch.setattr(opened, "_FREE", 2**20)
    runs._prepared("integrate", Parameters(rna=str(folder / "rna.h5ad"), atac=str(folder / "atac.h5ad")), tmp_path / "run")
    assert sorted(path.name for path in probed) == ["atac.h5ad", "rna.h5ad"]


@pytest.mark.parametrize("code, refused", [(0, False), (1, False), (-11, True), (0xC0000005, True)])
def test_a_crash_is_told_from_an_error_on_windows_too(tmp_path, monkeypatch, code, refused):
    "There a process that crashed has no negative number, but one of 32 bits."
    monkeypatch.setattr(opened.subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=code))
    with pytest.raises(DataError, match="library crash") if refused else nullcontext():
        probe_file(tmp_path / "rna.h5ad")


def test_a_chunk_larger_than_its_array_is_counted(tmp_path):
    path = files(tmp_path) / "rna.h5ad"
    with h5py.File(path, "r+") as file:
        file.create_dataset("obsm/X_chunk", (60, 2), "f4", maxshape=(None, None), chunks=(2**15, 2**14))
    check_file(path)
    with h5py.File(path) as file, pytest.raises(DataError, match="claims"):
        check_contents(file, limit=2**30)


def with_chunk(path, packed, skipped=0, **options):
    "An array in the file whose one chunk holds these bytes."
    with h5py.File(path, "r+") as file:
        array = file.create_dataset("obsm/X_chunk", (60, 50), "f4", chunks=(60, 50), **options)
        array.id.write_direct_chunk((0, 0), packed, skipped)
    return path


@pytest.mark.parametrize("skipped, options", [(0, {}), (1, {"shuffle": True}), (0, {"shuffle": True, "fletcher32": True})])
def test_a_chunk_that_unpacks_to_more_than_it_declares(tmp_path, monkeypatch, skipped, options):
    monkeypatch.setattr(opened, "_INFLATED", 2**20)
    path = with_chunk(files(tmp_path) / "rna.h5ad", zlib.compress(bytes(2**24)), skipped, compression="gzip", **options)
    with pytest.raises(DataError, match=r"obsm/X_chunk has a chunk that unpacks to more than the 12,000 bytes"):
        check_file(path)


def test_chunks_that_are_honest_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(opened, "_INFLATED", 0)
    path = with_chunk(files(tmp_path) / "rna.h5ad", zlib.compress(bytes(12_000)), compression="gzip")
    with h5py.File(path, "r+") as file:
        file.create_dataset("obsm/X_other", data=np.random.default_rng(0).normal(size=(60, 5)), compression="gzip", shuffle=True, chunks=(7, 3))
    check_file(path)


def test_a_chunk_that_is_packed_twice_is_refused(tmp_path):
    path = files(tmp_path) / "rna.h5ad"
    with h5py.File(path, "r+") as file:
        plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plan.set_chunk((60, 2))
        plan.set_deflate(9)
        plan.set_deflate(9)
        h5py.h5d.create(file["obsm"].id, b"X_twice", h5py.h5t.NATIVE_FLOAT, h5py.h5s.create_simple((60, 2)), plan)
    with pytest.raises(DataError, match="obsm/X_twice is compressed twice"):
        check_file(path)


@pytest.mark.parametrize("content, words", [(b"x" * 2_000_000, "has no end"), (b"chr1\t10\t500\tA\t0\t+\n" * 1001, "genes.bed.gz holds more than 1,000 genes")])
def test_an_annotation_that_unpacks_without_end(tmp_path, monkeypatch, content, words):
    monkeypatch.setattr(gene_activity, "_MOST", 1000)
    (tmp_path / "genes.bed.gz").write_bytes(gzip.compress(content, 1))
    with pytest.raises(DataError, match=words):
        gene_activity.read_annotation(tmp_path / "genes.bed.gz")


# downloads ---------------------------------------------------------------------------------------------------------------------------


def test_without_a_checksum_nothing_is_downloaded_unless_asked(tmp_path, monkeypatch):
    monkeypatch.delenv("CVQVAE_TRUST_FIRST_USE", raising=False)
    monkeypatch.setattr("requests.get", lambda *a, **k: pytest.fail("went to the network"))
    with pytest.raises(DataError, match="trust_first_use=True.*CVQVAE_TRUST_FIRST_USE=1"):
        fetch_all("share-seq-skin", data_home=tmp_path)
    assert not list(tmp_path.rglob("*.gz"))


class Answer:
    "What `requests.get` would return."

    def __init__(self, content=b"x" * 100, url="https://example.org/f.gz", history=()):
        self.content, self.url, self.history, self.status_code = content, url, [type("Hop", (), {"url": hop}) for hop in history], 200
        self.headers = {}

    def __enter__(self):
        return self

    def __exit__(self, *args):
        return False

    def raise_for_status(self):
        pass

    def iter_content(self, size):
        while True:
            yield self.content


def test_a_download_without_end_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr("requests.get", lambda *a, **k: Answer(b"x" * 10_000))
    with pytest.raises(DataError, match="sends more than 50,000 bytes"):
        fetch(RemoteFile("https://example.org/f.gz", "ab" * 32, size=50_000), tmp_path)
    assert not (tmp_path / "f.gz").exists()


def test_a_download_that_is_led_to_http_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("requests.get", lambda *a, **k: Answer(url="http://example.org/f.gz", history=["https://example.org/f.gz"]))
    with pytest.raises(DataError, match="not https"):
        fetch(RemoteFile("https://example.org/f.gz", "ab" * 32), tmp_path)


def test_a_login_page_does_not_become_the_trusted_file(tmp_path, monkeypatch):
    class Page(Answer):
        def iter_content(self, size):
            yield b"<html>log in</html>"

    monkeypatch.setattr("requests.get", lambda *a, **k: Page())
    with pytest.raises(DataError, match="no.* gzip|gzip file"):
        fetch(RemoteFile("https://example.org/f.gz"), tmp_path, trust_first_use=True)
    assert not (tmp_path / "checksums.json").exists() and not (tmp_path / "f.gz").exists()


# what nobody thought of --------------------------------------------------------------------------------------------------------------

PLAIN = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8), lambda inner: st.lists(inner, max_size=3)
                     | st.dictionaries(st.sampled_from(["rna", "epochs", "seeds", "methods", "x"]), inner, max_size=3), max_leaves=8)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from(["rna", "dataset", "epochs", "seed", "seeds", "methods", "max_seconds", "labels", "preset"]), PLAIN, max_size=4))
def test_any_parameters_are_taken_or_refused(values):
    try:
        parameters = checked(values)
    except DataError:
        return
    assert isinstance(parameters, Parameters)
    assert parameters.epochs is None or 1 <= parameters.epochs
    assert parameters.seed is None or 0 <= parameters.seed < 2**32
    assert parameters.max_seconds is None or parameters.max_seconds >= 1


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=200))
def test_any_text_is_parameters_or_refused(tmp_path, text):
    (tmp_path / "p.yaml").write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        read_parameters(tmp_path / "p.yaml")
    except DataError as error:
        assert "p.yaml" in str(error)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["n_latent", "n_codes", "hidden", "decay", "dropout", "bottleneck", "routes", "fusion", "norm"]), PLAIN)
def test_any_setting_of_a_saved_model_loads_or_is_refused(model, tmp_path_factory, name, value):
    folder = tmp_path_factory.mktemp("any")
    for path in model.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    try:
        CVQVAE.load(edited(folder, lambda m: m["settings"]["model"].update({name: value})), device="cpu")
    except DataError:
        pass


def test_damaged_files_are_refused_without_a_crash(tmp_path):
    "A few mutations of each kind of file; `python tests/faults.py FOLDER 1000 fuzz` runs more."
    command = [sys.executable, "-W", "ignore", Path(__file__).with_name("faults.py"), tmp_path / "jobs", os.environ.get("CVQVAE_FAULTS", "12"), "fuzz"]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=True)
    row = json.loads(done.stdout.splitlines()[-1])
    assert row["code"] == 0, done.stderr
    for name, outcomes in row["result"].items():
        assert set(outcomes) <= {"accepted", "refused", "refused by the probe"}, (name, outcomes)
        assert outcomes["refused"] > 0


def test_a_file_that_makes_the_library_hang_or_crash_is_refused(tmp_path):
    path = files(tmp_path) / "rna.h5ad"
    probe_file(path)
    with pytest.raises(DataError, match="rna.h5ad could not be read in 1 s"):
        probe_file(path, 1, "while True: pass")
    with pytest.raises(DataError, match="rna.h5ad makes the HDF5 library crash"):
        probe_file(path, program="import os; os.kill(os.getpid(), 11)")


def test_yaml_is_loaded_safely():
    with pytest.raises(yaml.YAMLError):
        yaml.safe_load("!!python/object/apply:os.getcwd []")


def test_cells_of_strangers_are_read_by_the_same_door(tmp_path):
    folder = files(tmp_path)
    assert read_any(folder / "cells.h5mu").n_obs == read_mudata(folder / "cells.h5mu").n_obs == 60
