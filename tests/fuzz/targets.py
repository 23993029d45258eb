"""What a fuzzer feeds: every place where something from outside is read.

Bytes choose how a valid file is edited, so that most inputs get past the first check.
"""

import copy
import json
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import anndata as ad
import h5py
import numpy as np

from cvqvae import explore_command
from cvqvae.checks import DataError, check_modalities, counts_of
from cvqvae.datasets import read_modality, read_mudata
from cvqvae.gene_activity import read_annotation
from cvqvae.integration import CVQVAE
from cvqvae.parameters import read_parameters
from cvqvae.simulation import simulate

SMALL = dict(hidden=(8,), n_latent=3, n_codes=4, n_components=4, batch_size=16, epochs=1, device="cpu")


class Choices:
    "Numbers and plain values from bytes; zeros when they are used up."

    def __init__(self, data: bytes):
        self.data, self.at = data, 0

    def number(self, limit: int) -> int:  # 0 <= number < limit
        self.at += 1
        return self.data[self.at - 1] % limit if self.at <= len(self.data) else 0

    def one_of(self, options):
        return options[self.number(len(options))]

    def text(self) -> str:
        start, self.at = self.at, self.at + self.number(12)
        return self.data[start : self.at].decode("latin-1")

    def value(self, depth: int = 0):
        plain = [None, True, False, 0, 1, -1, 3, 2**31, 10**12, 10**30, 0.5, -1e300, float("nan"), float("inf"), "", "0", "../x", "quantized"]
        kind = self.number(len(plain) + 4)
        if kind < len(plain):
            return plain[kind]
        if kind == len(plain) or depth > 2:
            return self.text()
        items = [self.value(depth + 1) for _ in range(self.number(4))]
        return items if kind % 2 else {self.text(): item for item in items}


def edited(tree, choices: Choices):
    "Plain values with something replaced, removed, added or repeated."
    tree = copy.deepcopy(tree)
    for _ in range(1 + choices.number(3)):
        node = tree
        for _ in range(12):
            keys = list(node) if isinstance(node, dict) else list(range(len(node)))
            if not keys:
                break
            key = choices.one_of(keys)
            if isinstance(node[key], dict | list) and choices.number(5):
                node = node[key]
                continue
            kind = choices.number(4)
            if kind == 1:
                del node[key]
            elif kind == 2 and isinstance(node, list):
                node.insert(key, choices.value())
            elif kind == 2:
                node[choices.text()] = node[key]
            else:
                node[key] = choices.value()
            break
    return tree


ENCODINGS = ("array", "string-array", "csr_matrix", "csc_matrix", "dataframe", "dict", "categorical", "string", "null", "nullable-integer", "rec-array",
             "awkward-array", "MuData", "anndata", "numeric-scalar", "nullable-string-array", "x")  # fmt: skip


def replacement(file: h5py.File, name: str, choices: Choices) -> None:
    "Put something else under a name of an HDF5 file."
    kind, length = choices.number(8), choices.one_of([0, 1, 2, 3, 29, 30, 31, 40])
    if kind == 0:
        file.create_group(name)
    elif kind == 1:
        file[name] = h5py.SoftLink(choices.one_of(["/", "/X", "/obs", "/nowhere", f"/{name}"]))
    elif kind == 2:
        file.create_dataset(name, shape=(choices.one_of([10**6, 10**11, 2**40]),), chunks=(1024,), dtype="f4")
    elif kind == 3:
        file[name] = np.array(["a", choices.text().replace("\0", ""), ""] * length, dtype=h5py.string_dtype())
    elif kind == 4:
        file[name] = h5py.Empty("f4")
    elif kind == 5:
        file[name] = np.zeros(length, dtype=[("index", "S4"), ("x", "f4")])
    else:
        shape, value = choices.one_of([(), (length,), (length, 2), (30, 150), (0, 0)]), choices.one_of([0, 1, -1, 5, 10**9])
        file[name] = np.full(shape, value).astype(choices.one_of(["i8", "f4", "u1", "?"]))


def edit_file(path: Path, choices: Choices) -> None:
    "Change an HDF5 file in place: its members and their attributes."
    with h5py.File(path, "r+") as file:
        names: list[str] = []
        file.visit(names.append)
        for _ in range(1 + choices.number(3)):
            name = names[choices.number(256) * len(names) // 256]
            if name not in file:
                continue
            if choices.number(2):
                attributes = file[name].attrs
                key = choices.one_of([*attributes, "encoding-type", "shape", "column-order", "_index"])
                values = ENCODINGS if key == "encoding-type" else [0, -1, [30], [30, 150], [10**12, 3], 0.5, "x", "cell_type", ["a", "b"]]
                attributes.pop(key, None)
                attributes[key] = choices.one_of(values)
            else:
                del file[name]
                if choices.number(4):
                    replacement(file, name, choices)


@dataclass(frozen=True)
class Target:
    "A reader and how bytes become its input."

    whole: str  # what is in order, in the folder with valid files
    make: Callable  # (folder with valid files, empty folder, bytes) -> path
    use: Callable  # (path) -> anything; raises DataError where it refuses
    seeds: Callable = lambda valid: [bytes([i, j, 7, 3]) for i in range(0, 256, 16) for j in range(0, 256, 32)]  # valid -> list of bytes


@lru_cache
def simulated():
    return simulate(n_cells=30, n_genes=150, n_peaks=200)


def few_cells():
    return simulated().copy()


def valid_files(folder: Path) -> Path:
    "A small example of everything that is read."
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mdata = few_cells()
        for name, adata in mdata.mod.items():
            adata.write_h5ad(folder / f"{name}.h5ad")
        mdata.write_h5mu(folder / "cells.h5mu")
        CVQVAE(mdata, batch_key="batch", **SMALL).fit(progress=False, checkpoint=folder / "fit.safetensors").save(folder / "model")
    (folder / "p.yaml").write_text("epochs: 20\nseed: 3\ndataset: demo\nmethods: [raw, mofa]\nlabels: cell_type\nmax_seconds: 3.5\n")
    (folder / "genes.gtf").write_text('chr1\tx\tgene\t11869\t14409\t.\t+\t.\tgene_id "E1"; gene_name "A";\n1\tx\tgene\t5\t9\t.\t-\t.\tgene_id "E2"\n')
    (folder / "genes.bed").write_text("chr1\t10\t500\tA\t0\t+\nchr2\t10\t500\tB\t0\t-\n")
    (folder / "run").mkdir()
    (folder / "run" / "run.json").write_text('{"parameters": {"labels": "cell_type", "batch": null}}')
    return folder


def raw(name):
    "The bytes are the file."

    def make(valid, folder, data):
        (folder / name).write_bytes(data)
        return folder / name

    return make


def in_folder(place, name, content):
    "One file of a folder is replaced by what `content` makes of the old one."

    def make(valid, folder, data):
        for path in (valid / place).iterdir():
            shutil.copyfile(path, folder / path.name)
        (folder / name).write_bytes(content((folder / name).read_bytes(), Choices(data)))
        return folder

    return make


def hdf5(name):
    def make(valid, folder, data):
        shutil.copyfile(valid / name, folder / name)
        edit_file(folder / name, Choices(data))
        return folder / name

    return make


def edited_json(content: bytes, choices: Choices) -> bytes:
    return json.dumps(edited(json.loads(content), choices)).encode()


def edited_header(content: bytes, choices: Choices) -> bytes:
    "A safetensors file whose header is edited and whose length stays that of a file."
    length = int.from_bytes(content[:8], "little")
    tree = json.loads(content[8 : 8 + length])
    inner = tree.get("__metadata__", {}).get("cvqvae")
    if inner is not None and choices.number(2):
        tree["__metadata__"]["cvqvae"] = json.dumps(edited(json.loads(inner), choices))
    elif choices.number(3):
        tree = edited(tree, choices)
    header, body = json.dumps(tree).encode(), bytearray(content[8 + length :])
    for _ in range(choices.number(4)):
        body[choices.number(256) * len(body) // 256] = choices.number(256)
    return len(header).to_bytes(8, "little") + header + bytes(body[: len(body) - choices.number(2) * choices.number(256)])


def checkpoint(valid, folder, data):
    (folder / "fit.safetensors").write_bytes(edited_header((valid / "fit.safetensors").read_bytes(), Choices(data)))
    return folder / "fit.safetensors"


def load_and_embed(folder):
    model = CVQVAE.load(folder, device="cpu")
    if len(model.history):  # else it was saved before it was trained
        model.embed(few_cells())


def resume(path):
    CVQVAE(few_cells(), batch_key="batch", **SMALL).fit(progress=False, checkpoint=path)


def use_cells(adata: ad.AnnData) -> None:
    "What every run asks of one modality."
    check_modalities({"rna": adata})
    counts_of(adata, "rna")


def texts(*names):
    return lambda valid: [(valid / name).read_bytes() for name in names]


TARGETS = {
    "parameters": Target("p.yaml", raw("p.yaml"), read_parameters, texts("p.yaml")),
    "gtf": Target("genes.gtf", raw("genes.gtf"), read_annotation, texts("genes.gtf")),
    "bed": Target("genes.bed", raw("genes.bed"), read_annotation, texts("genes.bed")),
    "record": Target("run", in_folder("run", "run.json", edited_json), lambda folder: explore_command._told(folder / "run.json")),
    "settings": Target("model", in_folder("model", "model.json", edited_json), load_and_embed),
    "weights": Target("model", in_folder("model", "model.safetensors", edited_header), load_and_embed),
    "checkpoint": Target("fit.safetensors", checkpoint, resume),
    "cells": Target("rna.h5ad", hdf5("rna.h5ad"), lambda path: use_cells(read_modality(path))),
    "container": Target("cells.h5mu", hdf5("cells.h5mu"), read_mudata),
}


def try_bytes(name: str, valid: Path, data: bytes) -> str:
    "Feed bytes to a target: 'accepted' or 'refused'; any other error is raised."
    target = TARGETS[name]
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = target.make(valid, Path(folder), data)
        try:
            target.use(path)
        except DataError as error:
            assert len(str(error)) > 20, f"says too little: {error}"
            return "refused"
    return "accepted"


if __name__ == "__main__":
    print(*TARGETS, file=sys.stdout)
