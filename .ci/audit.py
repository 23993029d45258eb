"""Known vulnerabilities of the packages in a list of materials; fails where there are some, and where a package could not be asked after.

usage: audit.py SBOM -- in an environment with pip-audit; needs the network.

What is known and does not reach users of this package stands in ACCEPTED with its reason. It is listed and fails nothing; an entry that no longer occurs
does, so that the list does not outlive its reasons.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path


ACCEPTED = {
    ("setuptools", "PYSEC-2026-3447"): "names of files on macOS while a source archive is built, which nobody does in this environment; fixed in 83, "
    "but louvain, which scib imports, needs pkg_resources, and that left setuptools with 81",
}


def verdict(found: list[dict], n_asked: int) -> tuple[int, list[str]]:
    "Exit code, and what to say of the packages that pip-audit answered about."
    unknown = [entry["name"] for entry in found if "skip_reason" in entry]
    holes = {(entry["name"], name): (entry, hole) for entry in found for hole in entry.get("vulns", []) for name in [_known_as(entry["name"], hole)]}
    bad = [f"{entry['name']} {entry['version']}: {hole['id']}, fixed in {', '.join(hole['fix_versions']) or 'no version'}"
           for key, (entry, hole) in holes.items() if key not in ACCEPTED]
    gone = [f"{package} {name}: no longer found, remove it from ACCEPTED" for package, name in ACCEPTED if (package, name) not in holes]
    said = [f"{len(found) - len(unknown)} of {n_asked} packages audited, {len(bad)} known vulnerabilities that are not accepted", *bad]
    said += [f"accepted: {package} {name}: {why}" for (package, name), why in ACCEPTED.items() if (package, name) in holes]
    said += [f"not audited, their entries could not be fetched: {', '.join(unknown)}"] if unknown else gone
    return int(bool(bad or unknown or gone) or len(found) < n_asked), said


def _known_as(package: str, hole: dict) -> str:
    "The name under which a vulnerability is accepted, or its own."
    return next((name for name in [hole["id"], *hole.get("aliases", [])] if (package, name) in ACCEPTED), hole["id"])


def main(sbom: str) -> int:
    packages = json.loads(Path(sbom).read_text(encoding="utf-8"))["components"]
    pinned = sorted(f"{package['name']}=={package['version'].split('+')[0]}" for package in packages)  # torch+cpu has torch's vulnerabilities
    with tempfile.TemporaryDirectory() as folder:
        listed, report = Path(folder, "pinned.txt"), Path(folder, "report.json")
        listed.write_text("\n".join(pinned), encoding="utf-8")
        options = ["--requirement", listed, "--no-deps", "--disable-pip", "--format", "json", "--output", report, "--progress-spinner", "off"]
        asked = subprocess.run([sys.executable, "-m", "pip_audit", *map(str, options)], capture_output=True, text=True)
        if not report.exists():
            print(asked.stderr.strip()[-2000:])
            return 1
        found = json.loads(report.read_text(encoding="utf-8"))["dependencies"]
    code, said = verdict(found, len(pinned))
    print(*said, sep="\n")
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
