"""What a measurement says about the machine it was made on."""

import os
import platform
from pathlib import Path

import psutil


def processor():
    "Name of the processor, as the system gives it."
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def this_machine():
    "Processor, cores, memory and threads, as columns of a table."
    memory = round(psutil.virtual_memory().total / 2**30, 1)
    return {"processor": processor(), "cores": os.cpu_count(), "RAM GiB": memory, "threads": int(os.environ.get("OMP_NUM_THREADS", os.cpu_count()))}
