"""Compiled code on disk: kept where that is safe, and never a reason to fail."""

import importlib
import os
import subprocess
import sys

import numba
import numpy as np
import pytest
from numba.core.caching import IndexDataCacheFile

from cvqvae.compiled import compiled_folder, import_umap, keeping_compiled


@pytest.fixture
def package(tmp_path, monkeypatch):
    "Imports a new package with one function, and hands the function out."
    monkeypatch.syspath_prepend(tmp_path)

    def declared(folder, name):
        (tmp_path / f"{name}.py").write_text("import numba\n\n@numba.njit\ndef double(x):\n    return 2 * x\n")
        importlib.invalidate_caches()
        with keeping_compiled(folder):
            return importlib.import_module(name).double

    return declared


def files(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_full_disk_keeps_nothing_and_compiles(tmp_path, package, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(IndexDataCacheFile, "save", full)
    assert package(tmp_path / "kept", "compiled_a")(3) == 6 and files(tmp_path / "kept") == []


def test_a_folder_that_others_can_write_to_is_not_used(tmp_path, package):
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    assert package(tmp_path / "open", "compiled_b")(3) == 6 and files(tmp_path / "open") == []
    assert package(tmp_path / "own", "compiled_c")(3) == 6 and files(tmp_path / "own")


def test_numbas_own_setting_wins(tmp_path, package, monkeypatch):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "chosen"))
    assert compiled_folder() == tmp_path / "chosen"
    assert package(None, "compiled_d")(3) == 6 and files(tmp_path / "chosen")
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    assert f"numba-{numba.__version__}" in compiled_folder().name


def test_an_error_of_the_import_leaves_numba_as_it_was(tmp_path):
    before = numba.jit, numba.njit, numba.config.CACHE_DIR
    with pytest.raises(ModuleNotFoundError), keeping_compiled(tmp_path):
        importlib.import_module("no_such_package")
    assert before == (numba.jit, numba.njit, numba.config.CACHE_DIR)


MAP = """
import numpy as np
from cvqvae.figures import umap_coordinates
np.save("map.npy", umap_coordinates(np.random.default_rng(0).normal(size=(90, 5))))
import umap.umap_
print(sum(umap.umap_.smooth_knn_dist.stats.cache_hits.values()))
"""


def test_a_second_process_compiles_no_umap_and_draws_the_same_map(tmp_path):
    found = []
    for _ in range(2):
        done = subprocess.run([sys.executable, "-W", "ignore", "-c", MAP], cwd=tmp_path, env=os.environ | {"NUMBA_CACHE_DIR": str(compiled_folder())},
                              capture_output=True, text=True, check=True)
        found.append((int(done.stdout), np.load(tmp_path / "map.npy")))
    assert found[1][0] == 1
    np.testing.assert_array_equal(found[0][1], found[1][1])


def test_umap_is_imported_once():
    assert import_umap() is import_umap()
