"""A coverage-guided fuzzer on everything that is read from outside.

    pip install atheris
    python tests/fuzz/run.py FOLDER --runs 20000 [TARGET ...]

Every target runs in a process of its own. Inputs that end in another error than DataError are kept in FOLDER/TARGET/found, one per place in the code, and make
the exit code 1. The corpus in FOLDER/TARGET/corpus grows and is used again the next time. One line of JSON per target is printed at the end.
"""

import argparse
import json
import os
import subprocess
import sys
import time
import traceback
import warnings
from pathlib import Path

HERE = Path(__file__).resolve().parent


def fuzz(name: str, folder: Path, runs: int) -> None:
    "Run one target in this process, which ends with it."
    import atheris

    with atheris.instrument_imports(include=["cvqvae"]):
        import targets
    valid = folder.parent / "valid"
    if not valid.exists():
        valid.mkdir()
        targets.valid_files(valid)
    corpus, found = folder / "corpus", folder / "found"
    for place in (corpus, found):
        place.mkdir(exist_ok=True)
    for i, seed in enumerate(targets.TARGETS[name].seeds(valid)):
        (corpus / f"seed{i}").write_bytes(seed)
    outcomes, places, started = {"accepted": 0, "refused": 0}, {}, time.time()

    def one(data: bytes) -> None:
        try:
            outcomes[targets.try_bytes(name, valid, data)] += 1
        except Exception as error:
            frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "cvqvae" in frame.filename and "fuzz" not in frame.filename]
            place = f"{type(error).__name__} {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else repr(error)
            if place not in places:
                (found / f"{len(places)}.bin").write_bytes(data)
                (found / f"{len(places)}.txt").write_text("".join(traceback.format_exception(error)))
            places[place] = places.get(place, 0) + 1
        if sum(outcomes.values()) + sum(places.values()) >= runs:
            report = {"target": name, **outcomes, "other errors": places, "seconds": round(time.time() - started)}
            (folder / "report.json").write_text(json.dumps(report))
            os._exit(0)

    options = ["-max_len=512", "-timeout=60", "-rss_limit_mb=6000", f"-artifact_prefix={found}/", "-verbosity=0"]
    atheris.Setup([sys.argv[0], *options, str(corpus)], one)
    atheris.Fuzz()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("targets", nargs="*")
    parser.add_argument("--runs", type=int, default=20_000, help="inputs per target")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    flags = parser.parse_intermixed_args()
    if flags.here:
        warnings.simplefilter("ignore")
        fuzz(flags.targets[0], flags.folder, flags.runs)
    if not flags.targets:
        listed = subprocess.run([sys.executable, "-W", "ignore", HERE / "targets.py"], capture_output=True, text=True, check=True)
        flags.targets = listed.stdout.split()
    bad = 0
    for name in flags.targets:
        folder = flags.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "report.json").unlink(missing_ok=True)
        with open(folder / "log.txt", "w") as log:
            command = [sys.executable, "-W", "ignore", __file__, folder, name, "--runs", str(flags.runs), "--here"]
            code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT).returncode
        report = folder / "report.json"
        said = json.loads(report.read_text()) if report.exists() else {"target": name, "died": code, "other errors": {"died, timed out or grew too large": 1}}
        print(json.dumps(said), flush=True)
        bad += bool(said["other errors"])
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
