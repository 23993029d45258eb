"""The list of materials (CycloneDX) of the release: what the installed wheel needs, directly or not, with versions and licences.

usage: sbom.py PYTHON OUT -- PYTHON is the interpreter of an environment that holds the wheel and nothing else.
"""

import json
import subprocess
import sys
from pathlib import Path


def reached(start: str, depends: dict) -> set:
    "What `start` needs, directly or not, itself included."
    found, open_ = set(), [start]
    while open_:
        ref = open_.pop()
        if ref not in found:
            found.add(ref)
            open_ += depends.get(ref, [])
    return found


def main(python: str, out: str) -> None:
    command = [sys.executable, "-m", "cyclonedx_py", "environment", "--output-reproducible", python]
    bom = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    own = next(component for component in bom["components"] if component["name"] == "cvqvae")
    own.pop("externalReferences", None)  # the path of the wheel on the machine that built it
    depends = {entry["ref"]: entry.get("dependsOn", []) for entry in bom["dependencies"]}
    needed = reached(own["bom-ref"], depends)
    bom["metadata"]["component"] = own
    bom["components"] = [component for component in bom["components"] if component["bom-ref"] in needed and component is not own]
    bom["dependencies"] = [entry for entry in bom["dependencies"] if entry["ref"] in needed]
    Path(out).write_text(json.dumps(bom, indent=1) + "\n", encoding="utf-8")
    print(f"{out}: {len(bom['components'])} packages, {sum('licenses' not in component for component in bom['components'])} of them without a declared licence")


if __name__ == "__main__":
    main(*sys.argv[1:])
