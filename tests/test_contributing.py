"""The worked examples of CONTRIBUTING.md do what they say."""

import re
import warnings
from pathlib import Path

import pytest

from cvqvae import baselines, bottlenecks, cells, downloads, metrics, preprocessing, public

ROOT = Path(__file__).resolve().parents[1]
REGISTRIES = [
    *(baselines.METHODS, bottlenecks.BOTTLENECKS, cells.KINDS, downloads.CATALOGUE),
    *(metrics.METRICS, metrics.ADDED, preprocessing.COMPONENTS, public.CONVERTERS),
]
EXAMPLES = dict(re.findall(r"^### (.+?)\n.*?^```python\n(.*?)^```", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), flags=re.M | re.S))


@pytest.fixture
def registries():
    "What an example registers is gone after it."
    kept = [dict(registry) for registry in REGISTRIES]
    yield
    for registry, before in zip(REGISTRIES, kept):
        registry.clear()
        registry.update(before)


def test_every_way_to_contribute_has_its_example():
    words = ["notebook", "metric", "method", "data set", "modality", "bottleneck"]
    assert all(any(word in title for title in EXAMPLES) for word in words) and len(EXAMPLES) == len(words)


@pytest.mark.parametrize("title", EXAMPLES)
def test_an_example_is_short(title):
    assert len([line for line in EXAMPLES[title].splitlines() if line.strip()]) < 30


@pytest.mark.parametrize("title", EXAMPLES)
def test_an_example_runs(title, tmp_path, monkeypatch, registries):
    monkeypatch.chdir(tmp_path)
    script = tmp_path / "example.py"
    script.write_text(EXAMPLES[title], encoding="utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(compile(script.read_text(encoding="utf-8"), str(script), "exec"), {"__name__": "example"})
