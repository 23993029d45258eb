"""What the website and the measures are checked by is itself checked."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / ".ci"))
from links import broken_links, definitions, linked  # noqa: E402

PAGE = '<h3 id="{0}">{0}</h3><p>{1}</p>'


@pytest.fixture
def site(tmp_path):
    "Two pages that define a name each."
    (tmp_path / "a.html").write_text(PAGE.format("half", '<a href="b.html#third">to b</a>'))
    (tmp_path / "b.html").write_text(PAGE.format("third", "<code>half</code> and <code>half(x)</code>, not <pre><code>half</code></pre>"))
    return tmp_path


def test_a_link_that_leads_nowhere_is_found(site):
    assert broken_links(site) == []
    (site / "c.html").write_text('<a href="b.html#fourth">x</a><a href="d.html">y</a><img src="z.png"><a href="https://example.org">z</a>')
    assert broken_links(site) == [("c.html", "b.html#fourth"), ("c.html", "d.html"), ("c.html", "z.png")]


def test_names_become_links_outside_of_listings(site):
    symbols = {"cvqvae.a": {"cvqvae.a.half": None, "cvqvae.a._hidden": None}, "cvqvae.b": {"cvqvae.b.third": None}}
    known = definitions(site, symbols, {"a": "a.html", "b": "b.html"})
    assert known["half"] == known["cvqvae.a.half"] == known["a.half"] == "a.html#half" and not any("_hidden" in name for name in known)
    text, count = linked((site / "b.html").read_text(), "sub/b.html", known)
    assert count == 2 and text.count('href="../a.html#half"') == 2 and "<pre><code>half</code></pre>" in text


def test_a_name_that_two_chapters_define_is_left_alone(site):
    symbols = {"cvqvae.a": {"cvqvae.a.half": None}, "cvqvae.b": {"cvqvae.b.half": None}}
    (site / "b.html").write_text(PAGE.format("half", ""))
    known = definitions(site, symbols, {"a": "a.html", "b": "b.html"})
    assert "half" not in known and known["cvqvae.b.half"] == "b.html#half"


def test_the_measures_hold():
    result = subprocess.run([sys.executable, ROOT / ".ci" / "measures.py", "--strict"], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-2000:]
