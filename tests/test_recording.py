"""Recorded steps where there is no GPU: the order of warming up, recording and replaying, with a graph that runs Python again."""

from contextlib import contextmanager

import pytest
import torch

from cvqvae.batches import CellData
from cvqvae.recording import StepRecorder


class Graph:
    "Stands in for `torch.cuda.CUDAGraph`: a replay calls what was recorded, on the memory it was recorded on."

    made = []

    def __init__(self):
        Graph.made.append(self)

    def replay(self):
        self.work()


class Step:
    "Adds the sum of its cells to a weight; as a recorded step does, it writes into memory that it owns."

    def __init__(self):
        self.weight, self.calls, self.recording = torch.nn.Parameter(torch.zeros(())), 0, None

    def __call__(self, batch, others=()):
        self.calls += 1
        out = torch.zeros(())

        def work():
            out.copy_(sum(x.sum() for group in (batch, *others) for x in group.inputs if x is not None))

        self.weight.grad = out
        if self.recording is None:
            work()
        else:
            self.recording.work = work
        return out


@pytest.fixture
def step(monkeypatch):
    step = Step()

    @contextmanager
    def graph(graph, stream):
        step.recording = graph
        yield
        step.recording = None

    Graph.made.clear()
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", graph)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: None)
    return step


def batch(value, n=4):
    return CellData([torch.full((n, 1), float(value)), None])


def test_a_step_is_run_twice_recorded_once_and_then_replayed_on_new_cells(step):
    recorder = StepRecorder(step, [step.weight])
    assert [recorder(batch(i)).item() for i in range(6)] == [0, 4, 8, 12, 16, 20]
    assert step.calls == 3 and len(Graph.made) == 1


def test_every_shape_has_its_own_recording_and_its_own_gradients(step):
    recorder = StepRecorder(step, [step.weight], warm_up=1)
    for value in range(4):
        assert recorder(batch(value)).item() == 4 * value == step.weight.grad
        assert recorder(batch(value, n=2)).item() == 2 * value == step.weight.grad
        assert recorder(batch(value), [batch(1, n=3)]).item() == 4 * value + 3
    assert len(recorder.recordings) == 3


def test_the_cells_of_the_caller_are_not_written_to(step):
    recorder, first = StepRecorder(step, [step.weight], warm_up=0), batch(1)
    recorder(first), recorder(batch(5))
    assert first.inputs[0].eq(1).all()
