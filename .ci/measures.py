"""The measures that the notebooks promise to keep: lengths of cells and functions, prose to code, exports without an example, sizes of outputs.

Reports for every notebook; with `--strict` it fails where a limit is passed.
"""

import argparse
import ast
import json
import re
import statistics
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CELL, FUNCTION, MODULE = 50, 25, 300  # lines
OUTPUT = {"nbs": 150, "tutorials": 1000, "analyses": 1000, "benchmarks": 1000}  # kB


def lines_of(text: str) -> int:
    "Lines with something on them."
    return sum(bool(line.strip()) for line in text.splitlines())


def notebooks() -> list[Path]:
    "Every notebook, numbered ones first."
    return sorted((p for p in (ROOT / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts), key=lambda p: (p.parent.name != "nbs", p))


def functions(cells: list[str]) -> list[tuple[str, int]]:
    "(name, lines of the body without docstring) of every function in code cells."
    found = []
    for cell in cells:
        tree = ast.parse(re.sub(r"^\s*[%!].*$", "", cell, flags=re.M))
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                body = node.body[1:] if ast.get_docstring(node) and len(node.body) > 1 else node.body
                found.append((node.name, body[-1].end_lineno - body[0].lineno + 1))
    return found


def exports(cells: list[str]) -> list[str]:
    "Public functions and classes of exported cells."
    trees = [ast.parse(cell) for cell in cells if re.match(r"#\|\s*export", cell)]
    kinds = (ast.FunctionDef, ast.ClassDef)
    return [node.name for tree in trees for node in tree.body if isinstance(node, kinds) and not node.name.startswith("_")]


def unused(cells: list[str]) -> list[str]:
    "Exports that stand in no asserting example of their own chapter; those that other exported code uses are marked."
    examples = [cell for cell in cells if not re.match(r"#\|\s*(export|default_exp)", cell)]
    checks = re.compile(r"\bassert\b|\btest_\w+\(|pytest\.raises|test_fail")
    checked = "\n".join(cell for cell in examples if checks.search(cell))
    exported = "\n".join(cell for cell in cells if re.match(r"#\|\s*export", cell))
    through = lambda name: any(re.search(rf"\b{name}\b", line) and not re.match(rf"\s*(def|class) {name}\b", line) for line in exported.splitlines())
    return [f"{name}{' (only through another)' if through(name) else ''}" for name in exports(cells) if not re.search(rf"\b{name}\b", checked)]


def measured(path: Path) -> dict:
    "The measures of one notebook."
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    text = {kind: ["".join(c["source"]) for c in cells if c["cell_type"] == kind] for kind in ("code", "markdown")}
    characters = {kind: sum(map(len, found)) for kind, found in text.items()}
    lengths = [lines_of(cell) for cell in text["code"]] or [0]
    outputs = len(json.dumps([c.get("outputs", []) for c in cells if c["cell_type"] == "code"])) // 1000
    return {
        "path": path, "cells": lengths, "functions": functions(text["code"]), "ratio": characters["markdown"] / max(characters["code"], 1),
        "unused": unused(text["code"]), "outputs": outputs, "limit": OUTPUT[path.parent.name],
    }  # fmt: skip


def faults(found: dict) -> list[str]:
    "What passes a limit in one notebook."
    name = found["path"].relative_to(ROOT / "nbs")
    said = [f"{name}: a cell of {n} lines" for n in found["cells"] if n > CELL]
    said += [f"{name}: {function} has {n} lines" for function, n in found["functions"] if n > FUNCTION]
    return said + ([f"{name}: {found['outputs']} kB of outputs"] if found["outputs"] > found["limit"] else [])


def module_lines() -> dict[str, int]:
    "Lines of every module of the package."
    return {path.stem: lines_of(path.read_text(encoding="utf-8")) for path in (ROOT / "cvqvae").glob("[a-z]*.py")}


def report(every: list[dict]) -> None:
    "One line per notebook, then the totals."
    print(f"{'notebook':42} {'cells':>5} {'median':>6} {'longest':>7} {'function':>8} {'prose:code':>10} {'kB':>5}  exports without an example that asserts")
    for m in every:
        longest = max((n for _, n in m["functions"]), default=0)
        name = str(m["path"].relative_to(ROOT / "nbs"))
        row = f"{name:42} {len(m['cells']):5} {statistics.median(m['cells']):6.0f} {max(m['cells']):7} {longest:8} {m['ratio']:10.2f} {m['outputs']:5}"
        print(row, "", ", ".join(m["unused"]))
    bodies, modules = [n for m in every for _, n in m["functions"]], module_lines()
    print(f"\nfunctions: {len(bodies)}, median {statistics.median(bodies):.0f} lines, {sum(n < FUNCTION for n in bodies) / len(bodies):.1%} below {FUNCTION}")
    print(f"cells: median {statistics.median(n for m in every for n in m['cells']):.0f} lines")
    print("longest modules:", ", ".join(f"{name} {n}" for name, n in sorted(modules.items(), key=lambda item: -item[1])[:6]), f"(limit {MODULE})")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--strict", action="store_true", help="fail where a limit is passed")
    every = [measured(path) for path in notebooks()]
    report(every)
    passed = [fault for found in every for fault in faults(found)]
    passed += [f"cvqvae/{name}.py has {n} lines" for name, n in module_lines().items() if n > MODULE]
    print("\n".join(["", "over a limit:", *passed] if passed else ["", "nothing is over a limit"]))
    return int(bool(passed) and parser.parse_args().strict)


if __name__ == "__main__":
    sys.exit(main())
