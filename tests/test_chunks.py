"""Zarr stores whose chunks unpack to more than they declare: refused by name, with little memory; honest stores are read."""

import bz2
import gzip
import json
import lzma
import os
import tracemalloc
import zlib
from contextlib import nullcontext

import anndata as ad
import numpy as np
import pytest
from bad_cells import cells
from limits import without_delay

from cvqvae import chunks
from cvqvae.checks import DataError
from cvqvae.command import main
from cvqvae.datasets import read_any
from cvqvae.files import check_file, check_store

numcodecs = pytest.importorskip("numcodecs")
zarr = pytest.importorskip("zarr")
THIRD = int(zarr.__version__.split(".")[0]) >= 3  # can write the third format
FORMATS = [2, pytest.param(3, marks=pytest.mark.skipif(not THIRD, reason="zarr 2 does not know the third format"))]
LARGE = 2**26  # what the bombs unpack to
SOME = 2**24  # what a look at them may take

pytestmark = pytest.mark.filterwarnings("ignore")


def alike(length, last=False):
    "A block of Zstandard that repeats one byte."
    return (last | 1 << 1 | length << 3).to_bytes(3, "little") + b"0"


UNSIZED = bytes.fromhex("28b52ffd0058")  # the head of a frame that does not say what it holds
SKIPPED = bytes.fromhex("502a4d18 04000000") + b"skip"
ZEROS = bytes.fromhex("28b52ffd04584d000010000001000b8707580144e310")  # 10,000 zeros from a program that did not know how many would come
ENDLESS = UNSIZED + (LARGE // 2**17) * alike(2**17) + alike(1, True)
SMALL = numcodecs.Zstd().encode(bytes(100))
CODECS = {
    "zlib": zlib.compress, "gzip": gzip.compress, "bz2": bz2.compress, "lzma": lzma.compress,
    **{name: lambda content, name=name: numcodecs.get_codec({"id": name}).encode(content) for name in ("blosc", "lz4", "zstd")},
}  # fmt: skip


def second(*filters, compressor=None, dtype="<f4", **about):
    own = {"zarr_format": 2, "shape": [60], "chunks": [60], "dtype": dtype, "fill_value": 0, "order": "C"}
    return own | {"filters": [{"id": name} for name in filters] or None, "compressor": compressor and {"id": compressor}} | about


def third(*codecs, dtype="float32", **about):
    codecs = [codec if isinstance(codec, dict) else {"name": codec, "configuration": {}} for codec in codecs]
    grid = {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [60]}}, "chunk_key_encoding": {"name": "default"}}
    return {"zarr_format": 3, "node_type": "array", "shape": [60], "data_type": dtype, "fill_value": 0, "codecs": codecs} | grid | about


def store_with(folder, about, *contents, place="obs/bomb"):
    "A folder with one array of these chunks."
    name, key = (".zarray", "{}") if about["zarr_format"] == 2 else ("zarr.json", "c/{}")
    for i, content in enumerate(contents):
        path = folder / place / key.format(i)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (folder / place).mkdir(parents=True, exist_ok=True)
    (folder / place / name).write_text(json.dumps(about))
    return folder


def memory_of(call):
    "The most that a call took, in bytes."
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def refused(store, words):
    "The memory that it took to refuse a store."

    def look():
        with pytest.raises(DataError, match=words):
            check_file(store, backed=True)

    return memory_of(look)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("codec", CODECS)
def test_a_chunk_that_unpacks_to_more_than_it_declares(tmp_path, monkeypatch, codec, form):
    monkeypatch.setattr(chunks, "_UNSEEN", 0)
    names = ["bytes", codec if codec in ("blosc", "gzip", "zstd") else f"numcodecs.{codec}"]
    store = store_with(tmp_path / "cells.zarr", second(compressor=codec) if form == 2 else third(*names), CODECS[codec](bytes(LARGE)))
    assert refused(store, "cells.zarr: chunk (c/)?0 of obs/bomb unpacks to more than the 240 bytes it declares: .*write it again with anndata") < SOME


@pytest.mark.skipif(not THIRD, reason="zarr 2 unpacks into the array where it can")
@pytest.mark.parametrize("codec", CODECS)
def test_a_reader_would_unpack_it(tmp_path, codec):
    store = store_with(tmp_path / "cells.zarr", second(compressor=codec), CODECS[codec](bytes(LARGE)))

    def read():
        with pytest.raises((ValueError, RuntimeError)):  # once it is unpacked
            zarr.open_array(str(store / "obs" / "bomb"), mode="r")[:]

    assert memory_of(read) > LARGE


def test_a_chunk_of_gzip_is_looked_at_where_it_could_become_large(tmp_path):
    "Many members, each of them harmless."
    member = gzip.compress(bytes(2**22), 1)
    store = store_with(tmp_path / "cells.zarr", second(compressor="gzip"), member * (2**18 // len(member) + 1))
    assert (store / "obs/bomb/0").stat().st_size > 2**28 // 1032
    with pytest.raises(DataError, match="longer than such an array can be|unpacks to more than the 240 bytes"):
        check_store(store)


@pytest.mark.parametrize("content", {
    "a frame that does not say": ENDLESS, "a small one before it": SMALL + ENDLESS, "a skipped one before it": SKIPPED + ENDLESS,
    "many that do": 3 * SMALL, "one that claims": bytes.fromhex("28b52ffd e0") + (2**62).to_bytes(8, "little") + alike(0, True),
}.items(), ids=lambda item: item[0])
def test_all_frames_are_added_up(tmp_path, content):
    store = store_with(tmp_path / "cells.zarr", second(compressor="zstd"), content[1])
    assert refused(store, "unpacks to more than the 240 bytes") < SOME


@pytest.mark.parametrize("declared, fits", [(2500, True), (2499, False)])
def test_a_frame_that_does_not_say_is_measured(tmp_path, declared, fits):
    try:
        numcodecs.Zstd().decode(ZEROS)
    except RuntimeError:
        pytest.skip("this numcodecs reads no such frames")
    store = store_with(tmp_path / "cells.zarr", second(compressor="zstd", shape=[declared], chunks=[declared]), ZEROS)
    if fits:
        check_store(store)
    else:
        refused(store, "unpacks to more than the 9,996 bytes")


@pytest.mark.parametrize("content, words", {
    "cut": (SMALL[:-3], "it ends early"), "of another kind": (zlib.compress(bytes(240)), "not what it says"),
    "of endless blocks": (UNSIZED + 2**20 * alike(0), "longer than such an array"),
}.values())
def test_a_damaged_chunk_is_named(tmp_path, content, words):
    store = store_with(tmp_path / "cells.zarr", second(compressor="zstd"), content)
    refused(store, f"chunk 0 of obs/bomb is .*{words}")


def shard(*pieces, size=None, inner=("bytes", "zstd"), index=("bytes", "crc32c"), where="end"):
    "A description and a file of four chunks of fifteen entries."
    codecs = [[{"name": name} for name in names] for names in (inner, index)]
    about = third({"name": "sharding_indexed", "configuration": {"chunk_shape": [15], "codecs": codecs[0], "index_codecs": codecs[1], "index_location": where}})
    head = 16 * 4 + 4 if where == "start" else 0
    table = np.full((4, 2), 2**64 - 1, dtype="<u8")
    for i, piece in enumerate(pieces):
        table[i] = head + sum(map(len, pieces[:i])), size or len(piece)
    parts = [b"".join(pieces), table.tobytes() + b"sums"]
    return about, b"".join(parts if where == "end" else parts[::-1])


@pytest.mark.parametrize("where", ["start", "end"])
def test_the_chunks_of_a_shard_are_looked_at(tmp_path, where):
    good = numcodecs.Zstd().encode(bytes(60))
    check_store(store_with(tmp_path / "good.zarr", *shard(good, good, where=where)))
    store = store_with(tmp_path / "cells.zarr", *shard(good, ENDLESS, good, where=where))
    assert refused(store, "chunk c/0 of obs/bomb unpacks to more than the 60 bytes") < SOME


@pytest.mark.parametrize("options, words", [
    ({"size": 2**40}, "chunk c/0 of obs/bomb is damaged .*its table points out of it"), ({"index": ("bytes", "gzip")}, "obs/bomb has shards whose table"),
    ({"inner": ("bytes", "gzip", "zstd")}, "obs/bomb is compressed twice"), ({"inner": ("sharding_indexed",)}, "not looked into here .sharding_indexed"),
])
def test_a_shard_that_cannot_be_looked_into_is_refused(tmp_path, options, words):
    refused(store_with(tmp_path / "cells.zarr", *shard(SMALL, **options)), words)


def test_a_shard_in_a_million_pieces_is_refused(tmp_path):
    about, content = shard(SMALL)
    about["chunk_grid"]["configuration"]["chunk_shape"] = about["shape"] = [2**26]
    refused(store_with(tmp_path / "cells.zarr", about, content), "obs/bomb lies in chunks that do not fit into memory, or too many to a file")


@pytest.mark.parametrize("about, words", {
    "twice": (second("zlib", compressor="zlib"), "compressed twice"), "twice in the third": (third("bytes", "gzip", "zstd"), "compressed twice"),
    "unknown": (second(compressor="zfpy"), r"not looked into here \(numcodecs.zfpy\).*write the store again"),
    "entries that become longer": (second("astype", compressor="zlib"), r"\(numcodecs.astype\)"),
    "bytes moved about after packing": (second("zlib", compressor="shuffle"), r"\(numcodecs.shuffle\)"),
    "a checksum in front": (third("bytes", "zstd", "numcodecs.crc32c"), r"\(numcodecs.crc32c\)"),
    "no grid": (third("bytes", chunk_grid={"name": "rectilinear", "configuration": {}}), "no readable zarr store"),
    "less than nothing": (second(shape=[-(10**15)]), "no readable zarr store.*whole numbers"),
    "a chunk larger than memory": (second(shape=[60, 10**9], chunks=[60, 10**9], compressor="zlib"), "claims|do not fit into memory"),
}.values())
def test_what_cannot_be_foreseen_is_refused(tmp_path, about, words):
    for place in ("obs/bomb", "X"):
        refused(store_with(tmp_path / f"{place[:1]}.zarr", about, b"", place=place), words)


def test_a_checksum_may_follow(tmp_path):
    content = numcodecs.Zstd().encode(bytes(240)) + b"sums"
    check_store(store_with(tmp_path / "cells.zarr", third("bytes", "zstd", "crc32c"), content))
    check_store(store_with(tmp_path / "more.zarr", third("bytes", "crc32c", "zstd"), numcodecs.Zstd().encode(bytes(244))))


def test_texts_are_added_up(tmp_path):
    head = bytes([2, 1, 0, 1, *(2**28).to_bytes(4, "little"), *(8 * [0])])  # of a chunk of Blosc
    store = store_with(tmp_path / "cells.zarr", second("vlen-utf8", compressor="blosc", dtype="|O", shape=[600]), *10 * [head])
    check_store(store, limit=3 * 2**30)
    with pytest.raises(DataError, match="cells.zarr claims 3 GiB of arrays, and this machine has 2 GiB"):
        check_store(store, limit=2 * 2**30)
    (store / "obs/bomb/9").write_bytes(head[:7] + b"\x20" + head[8:])
    refused(store, "chunk 9 of obs/bomb unpacks to more than the 268,435,456 bytes that a chunk of texts may take")


def test_a_file_of_holes_is_refused(tmp_path):
    store = store_with(tmp_path / "cells.zarr", second(), b"")
    os.truncate(store / "obs/bomb/0", 2**40)
    assert refused(store, "chunk 0 of obs/bomb is longer than such an array can be") < SOME


def test_two_descriptions_of_an_array_both_count(tmp_path):
    store = store_with(tmp_path / "cells.zarr", second(), CODECS["bz2"](bytes(LARGE)))
    check_store(store)
    (store / ".zmetadata").write_text(json.dumps({"metadata": {"obs/bomb/.zarray": second(compressor="bz2")}}))
    refused(store, "chunk 0 of obs/bomb unpacks")
    (store / ".zmetadata").unlink()
    (store / "zarr.json").write_text(json.dumps({"zarr_format": 3, "consolidated_metadata": {"metadata": {"obs/bomb": second(compressor="bz2")}}}))
    refused(store, "chunk 0 of obs/bomb unpacks")
    (store / "zarr.json").write_text(json.dumps({"zarr_format": 3, "consolidated_metadata": {"metadata": {"../far": second()}}}))
    refused(store, "no readable zarr store.*lies outside")


@pytest.mark.parametrize("place", ["obs/metadata", "metadata", "uns/zarr.json", "0"])
def test_an_array_of_any_name_is_looked_at(tmp_path, place):
    refused(store_with(tmp_path / "cells.zarr", second(compressor="bz2"), CODECS["bz2"](bytes(LARGE)), place=place), f"chunk 0 of {place} unpacks")


def test_the_command_says_so(tmp_path, capsys):
    cells().write_zarr(tmp_path / "cells.zarr")
    store = store_with(tmp_path / "cells.zarr", second(compressor="bz2"), CODECS["bz2"](bytes(LARGE)), place="mod/rna/uns/bomb")
    assert main(["integrate", "--backed", "--mudata", str(store), "--out", str(tmp_path / "out")]) == 2
    assert "chunk 0 of mod/rna/uns/bomb unpacks to more" in capsys.readouterr().err and not (tmp_path / "out").exists()


# honest stores -----------------------------------------------------------------------------------------------------------------------

PACKINGS = {
    2: {"default": {}, "none": {"compressor": None}, **{name: {"compressor": numcodecs.get_codec({"id": name})} for name in CODECS}},
    3: {"default": {}, "none": {"compressors": None}, "sharded": {}} | ({
        "gzip": {"compressors": zarr.codecs.GzipCodec()}, "blosc": {"compressors": zarr.codecs.BloscCodec()}, "zstd": {"compressors": zarr.codecs.ZstdCodec()},
        "summed": {"compressors": (zarr.codecs.ZstdCodec(), zarr.codecs.Crc32cCodec())}} if THIRD else {}),
}  # fmt: skip


@pytest.fixture(params=[pytest.param((form, name), id=f"{form}-{name}") for form, names in PACKINGS.items() for name in names])
def packing(request, monkeypatch):
    "Every way to write a store."
    form, name = request.param
    if form == 3 and not THIRD:
        pytest.skip("zarr 2 does not know the third format")
    monkeypatch.setattr(chunks, "_UNSEEN", 0)
    if name == "sharded" and not hasattr(ad.settings, "auto_shard_zarr_v3"):
        pytest.skip("this anndata makes no shards")
    with ad.settings.override(**({"zarr_write_format": form} if THIRD else {}), **({"auto_shard_zarr_v3": True} if name == "sharded" else {})):
        yield PACKINGS[form][name]


def rich():
    "Cells with everything that a store may hold."
    adata = cells()["rna"]
    adata.obsp["distances"] = adata.X @ adata.X.T
    adata.obsm["X_sparse"] = adata.X[:, :3]
    adata.layers["dense"] = adata.X.toarray()
    adata.obs["metadata"] = np.arange(adata.n_obs) > 3
    adata.uns["ranks"] = np.rec.fromarrays([np.array(["CD3E", "MS4A1"]), np.array([1.0, 2.0], dtype="f4")], names=["gene", "score"])
    adata.uns["notes"] = {"text": "x" * 10_000, "names": np.array(["a", "bb"]), "none": np.zeros((0, 3)), "number": 3}
    return adata


def test_stores_that_are_honest_are_read(tmp_path, packing):
    adata = rich()
    root = zarr.open_group(str(tmp_path / "cells.zarr"), mode="w", **({"zarr_format": ad.settings.zarr_write_format} if THIRD else {}))
    ad.io.write_elem(root, "/", adata, dataset_kwargs=packing)
    assert check_file(tmp_path / "cells.zarr", backed=True)
    sharded = [path for path in (tmp_path / "cells.zarr").rglob("zarr.json") if '"sharding_indexed"' in path.read_text()]
    assert bool(sharded) == (THIRD and ad.settings.zarr_write_format == 3 and getattr(ad.settings, "auto_shard_zarr_v3", None) is True)
    again = ad.read_zarr(tmp_path / "cells.zarr")
    assert (again.X != adata.X).nnz == 0 and again.uns["notes"]["text"] == adata.uns["notes"]["text"] and again.obs["metadata"].sum() == 56


@pytest.mark.parametrize("form", FORMATS)
def test_containers_are_read(tmp_path, form):
    mdata = cells()
    with ad.settings.override(zarr_write_format=form) if THIRD else nullcontext():
        mdata.write_zarr(tmp_path / "cells.zarr")
    stored = read_any(tmp_path / "cells.zarr", backed=True)
    assert list(stored.obs_names) == list(mdata.obs_names) and (stored["rna"].X[:] != mdata["rna"].X).nnz == 0


def test_counts_larger_than_memory_need_no_memory_here(tmp_path):
    "Nor the time to look into each of ten thousand chunks."
    about = second(compressor="blosc", shape=[10**13], chunks=[10**6])
    head = bytes([2, 1, 0, 4, *(4 * 10**6).to_bytes(4, "little"), *(8 * [0])])
    store = store_with(tmp_path / "cells.zarr", about, *10_000 * [head], place="X")
    with without_delay():
        assert memory_of(lambda: check_store(store)) < SOME
