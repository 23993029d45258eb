"""Processes killed at random moments, full and read-only disks, several runs at once: nothing is lost, nothing is mixed."""

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest
from faults import EPOCHS

from cvqvae import downloads, files, runs
from cvqvae.checks import DataError
from cvqvae.command import main
from cvqvae.parameters import Parameters
from cvqvae.storage import save_folder

TIMES = int(os.environ.get("CVQVAE_FAULTS", "4"))
OFTEN = TIMES >= 10  # then also what takes minutes


@pytest.fixture(scope="module")
def faults(tmp_path_factory):
    "What came of every job of faults.py except the fuzzer."
    command = [sys.executable, "-W", "ignore", Path(__file__).with_name("faults.py"), tmp_path_factory.mktemp("faults") / "jobs", TIMES]
    names = ["saves", "writes", "downloads", "fits", "runs", "comparisons", "together", "disks"] + ["commands", "crowd"] * OFTEN
    done = subprocess.run([*map(str, command), *names], capture_output=True, text=True)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["job"] for row in rows] == names and not any(row["code"] for row in rows), done.stdout + done.stderr
    return {row["job"]: row["result"] for row in rows}


def test_a_killed_save_leaves_a_whole_model(faults):
    assert len(faults["saves"]) == TIMES  # each was read and compared in the job
    assert len(faults["writes"]) == TIMES


def test_a_killed_download_leaves_the_whole_file_or_none_and_goes_on(faults):
    assert faults["downloads"] == TIMES


def test_a_training_that_was_killed_ends_in_the_same_embedding(faults):
    found = faults["fits"]["epochs found after a kill"]
    assert faults["fits"]["same embedding"] and 10 <= min(found) < EPOCHS, "a kill in the middle"


def test_a_killed_run_is_continued_and_named(faults):
    found = faults["runs"]
    assert found["checkpoints kept"] == 1 and found["same embedding"]
    assert {"run", "whole", "run-interrupted"} <= set(found["folders"])
    assert not [name for name in found["folders"] if name.startswith(".") or name == "checkpoints"]


@pytest.mark.parametrize("job", ["comparisons", pytest.param("commands", marks=pytest.mark.skipif(not OFTEN, reason="minutes: set CVQVAE_FAULTS=10"))])
def test_a_comparison_that_was_killed_ends_in_the_same_table(faults, job):
    found = faults[job]
    assert found["same table"] and found["temporary files left"] == [] and len(found["results kept after a kill"]) >= 2


def test_two_runs_into_one_folder_do_not_mix(faults):
    assert faults["runs"]["refused while another writes"]


def test_a_full_disk_is_an_error_and_loses_nothing(faults):
    found = faults["disks"]
    assert found["save"] and found["write"] and found["training goes on"]
    assert found["old model"] == 7 and found["old file"] == "[7]" and found["left behind"] == ["model", "state.json"]


def test_a_download_without_room_is_an_error_and_leaves_nothing_half(faults):
    found = faults["disks"]
    assert found["download"] and found["half downloads"] == [] and found["next download"] and found["read-only download"]


def test_a_download_that_does_not_fit_says_so_before_its_first_byte(tmp_path, monkeypatch):
    class Answer:
        headers, history, status_code, url = {"Content-Length": str(2**60)}, [], 200, "https://example.org/cells.h5ad"
        raise_for_status = __exit__ = lambda self, *args: None
        __enter__ = lambda self: self

    monkeypatch.setattr("requests.get", lambda *args, **options: Answer())
    with pytest.raises(DataError, match="cells.h5ad cannot be written .*No space left.*free some space"):
        downloads.fetch(downloads.RemoteFile(Answer.url, "0" * 64), tmp_path)
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".lock"] == []


def test_a_read_only_folder_is_an_error_before_any_work(faults):
    assert faults["disks"]["read-only save"] and faults["disks"]["read-only run"]


def test_a_name_that_was_taken_meanwhile_costs_nothing(tmp_path):
    with pytest.raises(DataError, match="lie in .*run-2"), runs.run_folder(tmp_path / "run") as partial:
        (partial / "result").touch()
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "of another").touch()
    assert (tmp_path / "run-2" / "result").exists() and (tmp_path / "run" / "of another").exists()


@pytest.mark.skipif(os.name != "posix", reason="Windows renames no folder with an open file")
def test_a_run_that_is_killed_at_its_very_end_has_its_name(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "_unlock", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt), runs.run_folder(tmp_path / "run") as partial:
        (partial / "result").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["run"] and (tmp_path / "run" / "result").exists()
    monkeypatch.undo()
    with runs.run_folder(tmp_path / "next"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["next", "run"]


def test_a_run_ends_where_open_files_can_not_be_removed(tmp_path, monkeypatch):
    "As on Windows: also one that was killed gets a name that can be seen."
    locks, unlink = [], Path.unlink

    class Lock(runs.FileLock):
        def __init__(self, path, *args, **options):
            super().__init__(path, *args, **options)
            locks.append((str(path), self))

    def refuse(path, missing_ok=False):
        if any(place == str(path) and lock.is_locked for place, lock in locks):
            raise PermissionError(13, "The process cannot access the file because it is being used by another process")
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(runs, "FileLock", Lock)
    monkeypatch.setattr(runs, "os", Mock(**{"name": "nt"}))
    runs.os.name = "nt"
    monkeypatch.setattr(Path, "unlink", refuse)
    (killed := tmp_path / ".run-run-12345678").mkdir()
    (killed / ".running").touch()
    with runs.run_folder(tmp_path / "run") as partial:
        (partial / "result").touch()
    with pytest.raises(RuntimeError), runs.run_folder(tmp_path / "other"):
        raise RuntimeError("whatever")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other-failed", "run", "run-interrupted"]
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["result"]


def test_a_full_disk_does_not_hide_the_error_of_a_run(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError("No space left on device")

    with pytest.raises(RuntimeError, match="the real reason") as caught, runs.run_folder(tmp_path / "run"):
        monkeypatch.setattr(Path, "write_text", full)
        raise RuntimeError("the real reason")
    assert caught.value.folder == tmp_path / "run-failed"


def test_a_result_that_was_damaged_is_computed_again(tmp_path):
    import numpy as np

    from cvqvae.baselines import Result
    from cvqvae.kept import load_result, save_result

    stem = tmp_path / "raw-0-abc"
    save_result(Result({"joint": np.ones((3, 2))}, 1.0, 0.1), stem)
    assert load_result(stem) is not None
    whole = stem.with_suffix(".npz").read_bytes()
    for damaged in (whole[:50], b"", b"\x80\x04junk"):
        stem.with_suffix(".npz").write_bytes(damaged)
        assert load_result(stem) is None
    stem.with_suffix(".npz").write_bytes(whole)
    stem.with_suffix(".json").write_text("{")
    assert load_result(stem) is None


def test_ten_runs_at_once_finish_alike(faults):
    assert faults["together"] == {"codes": [0] * 10, "same embedding": True, "names": ["cells.h5mu", *(f"run{i}" for i in range(10))]}


def test_a_folder_that_another_run_removes_at_that_moment_is_no_error(tmp_path, monkeypatch):
    checkpoint = tmp_path / "checkpoints" / "a.safetensors"
    taken = {"rmdir": Path.rmdir, "mkstemp": files.tempfile.mkstemp}

    def too_late(name, times):
        def removed_before(*args, **options):
            if len(calls) < times:
                calls.append(name)
                taken["rmdir"](checkpoint.parent)
            return taken[name](*args, **options)

        calls = []
        return removed_before

    monkeypatch.setattr(files.tempfile, "mkstemp", too_late("mkstemp", 1))
    files.write_atomically(checkpoint, lambda part: part.write_text("whole"))
    assert checkpoint.read_text() == "whole"
    monkeypatch.setattr(files.tempfile, "mkstemp", too_late("mkstemp", 2))
    checkpoint.unlink()
    with pytest.raises(FileNotFoundError):  # twice is no accident
        files.write_atomically(checkpoint, lambda part: part.write_text("whole"))
    monkeypatch.setattr(Path, "rmdir", too_late("rmdir", 1))
    checkpoint.parent.mkdir(exist_ok=True)
    runs._forget(checkpoint)
    assert not checkpoint.parent.exists()


@pytest.mark.skipif(not OFTEN, reason="minutes: set CVQVAE_FAULTS=10")
def test_ten_commands_at_once_finish_alike_or_say_who_is_first(faults):
    ten, one = faults["crowd"]["ten"], faults["crowd"]["one"]
    assert ten["codes"] == [0] * 10 and ten["whole runs"] == 10 and ten["same embedding"] and ten["said"] == []
    assert ten["names"] == [f"run{i}" for i in range(10)]
    assert set(one["codes"]) <= {0, 1, 2} and one["whole runs"] >= one["codes"].count(0) >= 1 and one["same embedding"]
    assert all("Another run is writing" in line or "was taken while" in line for line in one["said"])


def test_a_run_without_cells_leaves_nothing(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        runs.run_analysis("integrate", Parameters(mudata=str(tmp_path / "none.h5mu")), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


# the terminal ------------------------------------------------------------------------------------------------------------------------


def at_work(monkeypatch, work=lambda: None):
    "In place of a notebook: something is said and done."

    def execute(name, folder, parameters):
        print("begun: gelé, \x1b[2J", flush=True)
        work()
        (folder / f"{name}.ipynb").write_text("{}")

    monkeypatch.setattr(runs, "execute", execute)
    monkeypatch.setattr(runs, "write_html", lambda notebook: None)


@pytest.mark.skipif(os.name != "posix", reason="signals of Unix")
@pytest.mark.parametrize("name, code", [("SIGTERM", 143), ("SIGHUP", 129), ("SIGINT", 130)])
def test_a_run_that_is_told_to_stop_has_a_name(tmp_path, monkeypatch, capsys, name, code):
    number = getattr(signal, name)
    usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
    before = signal.signal(number, usual)  # nohup, or a shell's background, may have it ignored
    at_work(monkeypatch, lambda: os.kill(os.getpid(), number))
    try:
        assert main(["integrate", "--out", str(tmp_path / "run")]) == code
        assert signal.getsignal(number) is usual
    finally:
        signal.signal(number, before)
    assert [path.name for path in tmp_path.iterdir()] == ["run-failed"] and "cvqvae: stopped" in capsys.readouterr().err


@pytest.mark.skipif(os.name != "posix", reason="signals of Unix")
def test_a_run_under_nohup_goes_on(tmp_path, monkeypatch):
    at_work(monkeypatch, lambda: os.kill(os.getpid(), signal.SIGHUP))
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert main(["integrate", "--out", str(tmp_path / "run")]) == 0
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_run_outlives_who_listens_to_it(tmp_path, monkeypatch, stream):
    reading, writing = os.pipe()
    os.close(reading)
    at_work(monkeypatch, lambda: print("a warning", file=sys.stderr, flush=True))
    with open(writing, "w") as closed:
        monkeypatch.setattr(sys, stream, closed)
        assert main(["integrate", "--out", str(tmp_path / "run")]) == 0
        closed.write("anything")
    assert (tmp_path / "run" / "run.json").exists()


def test_what_a_terminal_cannot_show_or_would_obey_is_spelled_out(tmp_path, monkeypatch):
    at_work(monkeypatch)
    said = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", said)
    assert main(["integrate", "--out", str(tmp_path / "Körper")]) == 0
    text = said.buffer.getvalue().decode("ascii")
    assert "begun: gel\\xe9, \\x1b[2J\n" in text and "K\\xf6rper/integrate.html" in text


OPENS = """
import os, subprocess, sys
os.close(1), os.close(2)
from cvqvae import command
def done(flags):
    with open(sys.argv[1], "w") as file:
        file.write(str(file.fileno()))
    subprocess.run([sys.executable, "-c", "import os; os.write(1, b'told'); os.write(2, b'told')"], check=True)
    return "said"
command._done = done
sys.exit(command.main(["integrate"]))
"""


@pytest.mark.skipif(os.name != "posix", reason="descriptors of Unix")
def test_no_file_takes_the_place_of_a_closed_stream(tmp_path):
    assert subprocess.run([sys.executable, "-c", OPENS, tmp_path / "file"]).returncode == 0
    assert int((tmp_path / "file").read_text()) > 2


@pytest.mark.skipif(os.name != "posix", reason="permissions of Unix")
@pytest.mark.parametrize("mask, mode", [(0o077, 0o700), (0o002, 0o775)])
def test_folders_have_the_permissions_that_the_user_gives(tmp_path, mask, mode):
    before = os.umask(mask)
    try:
        with runs.run_folder(tmp_path / "run"):
            pass
        save_folder(tmp_path / "model", {}, {}, overwrite=False)
    finally:
        os.umask(before)
    assert {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {"run": mode, "model": mode}


def test_a_folder_may_have_any_name(tmp_path, monkeypatch):
    import nbformat
    from nbformat.v4 import new_code_cell, new_notebook

    folder = tmp_path / "it's {x} {} [y] %s $HOME \"ü\""
    folder.mkdir()
    cell = new_code_cell("x = 1", metadata={"tags": ["parameters"]})
    nbformat.write(new_notebook(cells=[cell, new_code_cell("print(x)")], metadata={"language_info": {"name": "python"}}), folder / "source.ipynb")
    monkeypatch.setattr(runs, "analysis_path", lambda name: folder / "source.ipynb")
    assert nbformat.read(runs.execute("small", folder, {"x": 7}), 4).cells[-1].outputs[0].text == "7\n"
