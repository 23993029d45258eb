"""Copy of finished runs what is worth keeping to `results/ANALYSIS/DATASET`: small tables, pictures, and the command.

    python keep.py runs/snare-benchmark runs/snare-biology

Pictures are made small (192 colours). Of the record stays what a reader elsewhere can use:
the command, versions, time and memory, and the checksum of the cells.
"""

import json
import shutil
import sys
from pathlib import Path

from PIL import Image

RESULTS = Path(__file__).with_name("results")
KEPT = {
    "integrate": ["scores.csv", "figures/umap.png"],
    "benchmark": ["scores.csv", "figures/umap-*.png"],
    "ablation": ["scores.csv", "collapse.csv", "figures/*.png"],
    "biology": ["growth.csv", "label-transfer.csv", "pseudotime-agreement.csv", "figures/*.png"],
}


def keep_picture(source, target, colours=192, most=1100):
    "A picture with few colours and at most 1,100 pixels a side."
    picture = Image.open(source).convert("RGB")
    picture.thumbnail((most, most))
    picture.quantize(colours, method=Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.NONE).save(target, optimize=True)


def shown_command(record):
    "The command as another person would type it; files are named without their folder."
    flags = " ".join(f"--{name} {Path(value).name if isinstance(value, str) else value}" for name, value in record["given"].items())
    return f"cvqvae {record['analysis']} {flags}".strip()


def keep(run):
    "Replace the kept results of the same analysis and cells by those of this run."
    record = json.loads((run / "run.json").read_text())
    analysis = record["analysis"]
    target = RESULTS / analysis / record["given"].get("dataset", "demo")
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for pattern in KEPT[analysis]:
        for path in sorted(run.glob(pattern)):
            keep_picture(path, target / path.name) if path.suffix == ".png" else shutil.copy(path, target / path.name)
    known = {name: record[name] for name in ("versions", "wall_seconds", "peak_memory_gib", "started", "cells_sha256")}
    (target / "run.json").write_text(json.dumps({"command": shown_command(record), **known}, indent=1) + "\n")
    print(target)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        keep(Path(name))
