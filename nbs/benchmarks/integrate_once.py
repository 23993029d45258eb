"""Integrate the cells of a file and report memory through time: FILE disk|memory EPOCHS OUT. Called by memory.ipynb."""

import json
import sys
import threading
import time
import warnings

import psutil
from cvqvae import CVQVAE
from cvqvae.backed import write_stored
from cvqvae.datasets import read_any

warnings.simplefilter("ignore")

path, backed, epochs, out = sys.argv[1], sys.argv[2] == "disk", int(sys.argv[3]), sys.argv[4]
line, marks, started, process = [], {}, time.time(), psutil.Process()
imported = process.memory_info().rss / 2**30


def watch():
    "Seconds, resident memory, and the part of it that no file stands behind, in GiB."
    while True:
        memory = process.memory_info()
        line.append((round(time.time() - started, 2), memory.rss / 2**30, (memory.rss - memory.shared) / 2**30))
        time.sleep(0.1)


threading.Thread(target=watch, daemon=True).start()
mdata = read_any(path, backed=backed)
marks["open"] = time.time() - started
model = CVQVAE(mdata, batch_key="batch", epochs=epochs)
marks["preprocess"] = time.time() - started
model.fit(progress=False)
marks["train"] = time.time() - started
model.embed(mdata)
marks["embed"] = time.time() - started
write_stored(mdata, out) if backed else mdata.write(out)
marks["write"] = time.time() - started
print(json.dumps({"imported": imported, "marks": marks, "line": line}))
