"""Jobs for processes of their own: a module that imports little, because each of them imports it."""

import os
import time


def ends(common, number):
    "Takes its process down with number 1."
    if number == 1:
        os._exit(3)
    return common + number, os.environ["OMP_NUM_THREADS"]


def waits(common, seconds):
    time.sleep(seconds)


def breaks(task):
    "A method of one's own that fails."
    raise MemoryError("no room for this one\nand more")
