"""Time and memory of every metric of simulated rows: ROWS TYPES WIDTH RESOLUTIONS. Called by metrics.ipynb."""

import json
import resource
import sys
import time
import warnings

import numpy as np
from cvqvae.alignment import foscttm, label_transfer
from cvqvae.measures import batch_asw, cell_cycle, graph_connectivity, label_asw, neighbour_graph, nmi, trajectory

warnings.simplefilter("ignore")

n, types, width, resolutions = map(int, sys.argv[1:])
rng, half = np.random.default_rng(0), n // 2
kind, batch = rng.integers(0, types, half), np.tile(rng.integers(0, 13, half), 2).astype(str)
cells = 0.45 * rng.normal(size=(types, width))[kind] + rng.normal(size=(half, width))
z = np.vstack([cells + 0.5 * rng.normal(size=cells.shape) for _ in range(2)]).astype(np.float32)
labels, time_, cycle = np.tile(kind, 2).astype(str), np.tile(cells[:, 0], 2), rng.normal(size=(n, 2))
state, rows = {}, []


def measure(name, call, part_of_score=True):
    clock, cpu = time.time(), time.process_time()
    value = call()
    used = {"metric": name, "seconds": time.process_time() - cpu, "clock": time.time() - clock, "counted": part_of_score}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    found = {"value": float(value), "error": getattr(value, "error", 0.0)} if isinstance(value, float) else {}
    rows.append({**used, "peak GiB": peak, **found})


def warm_up():
    "Compile what numba compiles, once per process and not per row."
    neighbour_graph(rng.normal(size=(5000, 4)))


measure("compilation", warm_up)
measure("neighbours", lambda: state.update(graph=neighbour_graph(z)))
measure("nmi", lambda: nmi(state["graph"], labels, resolutions))
measure("label_asw", lambda: label_asw(z, labels))
measure("cell_cycle", lambda: cell_cycle(z, z + 0.1 * rng.normal(size=z.shape), cycle, batch))
measure("trajectory", lambda: trajectory(state["graph"], time_, labels))
measure("batch_asw", lambda: batch_asw(z, batch, labels))
measure("graph_connectivity", lambda: graph_connectivity(state["graph"], labels))
measure("foscttm", lambda: foscttm(z[:half], z[half:]))
measure("label_transfer", lambda: label_transfer(z[:half], z[half:], labels[:half]))
measure("nmi, Leiden", lambda: nmi(state["graph"], labels, resolutions, "leiden"), False)
measure("label_asw, 5,000 rows", lambda: label_asw(z, labels, max_cells=5000), False)
measure("label_asw, all rows", lambda: label_asw(z, labels, max_cells=None), False)
measure("foscttm, 5,000 cells", lambda: foscttm(z[:half], z[half:], max_cells=5000), False)
print(json.dumps(rows))
