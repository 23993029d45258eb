"""Known vulnerabilities of the packages in a list of materials; fails where there are some, and where a package could not be asked after.

usage: audit.py SBOM -- in an environment with pip-audit; needs the network.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path


def main(sbom: str) -> int:
    packages = json.loads(Path(sbom).read_text(encoding="utf-8"))["components"]
    pinned = sorted(f"{package['name']}=={package['version'].split('+')[0]}" for package in packages)  # torch+cpu has torch's vulnerabilities
    with tempfile.TemporaryDirectory() as folder:
        listed, report = Path(folder, "pinned.txt"), Path(folder, "report.json")
        listed.write_text("\n".join(pinned))
        options = ["--requirement", listed, "--no-deps", "--disable-pip", "--format", "json", "--output", report, "--progress-spinner", "off"]
        asked = subprocess.run([sys.executable, "-m", "pip_audit", *map(str, options)], capture_output=True, text=True)
        if not report.exists():
            print(asked.stderr.strip()[-2000:])
            return 1
        found = json.loads(report.read_text(encoding="utf-8"))["dependencies"]
    unknown = [entry["name"] for entry in found if "skip_reason" in entry]
    holes = [(entry, hole) for entry in found for hole in entry.get("vulns", [])]
    bad = [f"{entry['name']} {entry['version']}: {hole['id']}, fixed in {', '.join(hole['fix_versions']) or 'no version'}" for entry, hole in holes]
    print(f"{len(found) - len(unknown)} of {len(pinned)} packages audited, {len(bad)} known vulnerabilities")
    print(*bad, sep="\n") if bad else None
    print(f"not audited, their entries could not be fetched: {', '.join(unknown)}") if unknown else None
    return 1 if bad or unknown or len(found) < len(pinned) else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
