"""Guards against work without end. They are no measurement: a machine may be ten times slower than the one they were written on."""

import time
from contextlib import contextmanager


@contextmanager
def without_delay(seconds=20):
    "Fails where the block takes more processor time than a slow and busy machine would need for it."
    started = time.process_time()
    yield
    assert time.process_time() - started < seconds
