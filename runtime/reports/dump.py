"""A compiled function as a directory: text of every pass, JSON, pictures, source, and a manifest.

manifest.json              schema version, function, backend, files, passes with times
000_trace.txt ... NNN_*.txt  the graph after every pass, diffable
final.json                 the final graph, readable by tracegrad.ir
final.dot .mmd .svg        pictures (folded above a few hundred nodes)
source.py | source.mlir    what runs
why.txt explain.txt        the explanations
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from tracegrad.backends.base import backend_named
from tracegrad.ir.serialise import to_json
from tracegrad.ir.text import print_graph
from tracegrad.ir.viz import to_dot, to_mermaid, to_svg
from tracegrad.tracer.errors import ArgumentError
from tracegrad.tracer.locate import here

SCHEMA = 1


def write_dump(compiled: Any, directory: Path) -> Path:
    """Write the dump; files are complete or absent (each is renamed into place).

    A dump that was there is replaced: of its files none is left.
    """
    lowered = compiled._lowered()
    if directory.exists() and not directory.is_dir():
        raise ArgumentError(
            f"a dump is a folder, and {str(directory)!r} is a file",
            where=here(),
            fix="give a new folder, or one of an earlier dump",
        )
    directory.mkdir(parents=True, exist_ok=True)
    before = files_of_dump(directory)
    files: list[str] = []

    def put(name: str, text: str) -> None:
        handle, temporary = tempfile.mkstemp(dir=directory, prefix=".", suffix=".tmp")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            os.replace(temporary, directory / name)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        files.append(name)

    final, own = lowered.final, f"{compiled.backend}/"
    graphs = [item for item in lowered.history if not item[0].startswith(own)]
    graphs += [("final", final), *(item for item in lowered.history if item[0].startswith(own))]
    for k, (name, graph) in enumerate(graphs):
        put(f"{k:03d}_{name.replace('/', '-')}.txt", print_graph(graph))
    put("final.json", to_json(final))
    put("final.dot", to_dot(final))
    put("final.mmd", to_mermaid(final))
    put("final.svg", to_svg(final))
    put(backend_named(compiled.backend).SOURCE_FILE, lowered.source)
    put("why.txt", compiled.why() + "\n")
    put("explain.txt", compiled.explain() + "\n")
    manifest = {
        "schema": SCHEMA,
        "function": compiled.name,
        "backend": compiled.backend,
        "fingerprint": final.fingerprint(),
        "stats": compiled.stats(),
        "passes": [
            {"name": n, "seconds": s, "nodes_before": b, "nodes_after": a}
            for n, s, b, a in lowered.passes.rows
        ],
        "files": sorted(files),
    }
    put("manifest.json", json.dumps(manifest, indent=1))
    for name in before.difference(files):
        (directory / name).unlink(missing_ok=True)
    return directory


def files_of_dump(directory: Path) -> set[str]:
    """The files that the manifest of an earlier dump lists; none if there is no such dump."""
    try:
        manifest = json.loads((directory / "manifest.json").read_text(encoding="utf-8"))
        if not {"schema", "fingerprint", "files"} <= manifest.keys():
            return set()
        return {name for name in manifest["files"] if Path(name).name == name}
    except (OSError, ValueError, TypeError, AttributeError):
        return set()
