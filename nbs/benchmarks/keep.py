"""Copy of finished runs what is worth keeping to `results/ANALYSIS/DATASET`: small tables, pictures, and the command.

    python keep.py runs/snare-benchmark runs/snare-biology
    python keep.py --add runs/snare-own
    python keep.py --add --pictures runs/snare-most

With `--add` the methods of a comparison replace those of the same names, and the other methods of the kept one stay, with a note of
the command that they came from; so do the pictures, which show methods side by side, unless `--pictures` asks for those of the run.
Pictures are made small (192 colours). Of the record stays what a reader elsewhere can use:
the command, versions, time and memory, and the checksum of the cells.
"""

import json
import shutil
import sys
from pathlib import Path

import pandas as pd
from PIL import Image

from cvqvae.baselines import METHODS
from cvqvae.benchmark import with_shared

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / ".ci"))
from pictures import few_colours  # noqa: E402

RESULTS = Path(__file__).with_name("results")
KEPT = {
    "integrate": ["scores.csv", "figures/umap.png"],
    "benchmark": ["scores.csv", "figures/umap-*.png"],
    "ablation": ["scores.csv", "collapse.csv", "figures/*.png"],
    "biology": ["growth.csv", "label-transfer.csv", "pseudotime-agreement.csv", "pseudotime-agreement-cells.csv"]
    + [f"figures/{name}.png" for name in ("types", "genes", "pseudotime", "markers-types", "markers-codes", "metacells*", "label-transfer")],
}


def keep_picture(source, target, most=1100):
    "A picture with few colours and at most 1,100 pixels a side."
    picture = Image.open(source).convert("RGB")
    picture.thumbnail((most, most))
    few_colours(picture).save(target, optimize=True)


def shown_command(record):
    "The command as another person would type it; files are named without their folder."
    flags = " ".join(f"--{name} {Path(value).name if isinstance(value, str) else value}" for name, value in record["given"].items())
    return f"cvqvae {record['analysis']} {flags}".strip()


def rows_that_stay(target, run):
    "Rows of the kept comparison whose methods are not in this run, the commands that they came from, and when the run of the pictures began."
    before, record = pd.read_csv(target / "scores.csv"), json.loads((target / "run.json").read_text(encoding="utf-8"))
    stay = before[~before["method"].isin(pd.read_csv(run / "scores.csv")["method"])]
    methods, origins = list(dict.fromkeys(stay["method"])), []
    for origin in record.get("earlier", []):
        origins.append(origin | {"methods": [method for method in origin["methods"] if method in methods]})
        methods = [method for method in methods if method not in origin["methods"]]
    origins.append({"methods": methods, "command": record["command"], "started": record["started"]})
    return stay, [origin for origin in origins if origin["methods"]], record.get("pictures", record["started"])


def in_order(scores):
    "Rows by method, own ones first, in whatever order they were measured."
    place = {name: i for i, name in enumerate(METHODS)}
    return scores.sort_values("method", kind="stable", key=lambda names: names.map(place))


def keep(run, add=False, pictures=True):
    "Replace the kept results of the same analysis and cells by those of this run, or those of its methods."
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    analysis = record["analysis"]
    target = RESULTS / analysis / record["given"].get("dataset", "demo")
    stay, earlier, pictured = rows_that_stay(target, run) if add else (None, [], "")
    if not add:
        shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True, exist_ok=True)
    for pattern in KEPT[analysis]:
        for path in sorted(run.glob(pattern)):
            if path.suffix != ".png":
                shutil.copy(path, target / path.name)
            elif pictures:
                keep_picture(path, target / path.name)
    if add:
        together = pd.concat([pd.read_csv(run / "scores.csv"), stay], ignore_index=True)
        in_order(with_shared(together[together["metric"] != "score_shared"])).to_csv(target / "scores.csv", index=False)
    known = {name: record[name] for name in ("versions", "wall_seconds", "peak_memory_gib", "started", "cells_sha256")}
    known |= {"earlier": earlier} if earlier else {}
    known |= {} if pictures else {"pictures": pictured}
    (target / "run.json").write_text(json.dumps({"command": shown_command(record), **known}, indent=1) + "\n", encoding="utf-8")
    print(target)


if __name__ == "__main__":
    add = "--add" in sys.argv
    for name in sys.argv[1:]:
        if not name.startswith("--"):
            keep(Path(name), add, pictures=not add or "--pictures" in sys.argv)
