#!/usr/bin/env python3
"""Fails on an include against the order of the layers.

  layering_test.py [ROOT]        checks src/ and include/mergepipe/ below ROOT (default: this repository),
                                 and that the table in src/README.md says the same as the one here
  layering_test.py --self-test   checks that bad includes are found, on a tree made for it
  layering_test.py --table       prints the table for src/README.md

A layer includes only the layers in its row, and of these only what lies in include/mergepipe/<layer>/;
headers beside the sources are private to their layer. src/main.cc may include every public header.
"""

import re
import sys
import tempfile
from pathlib import Path

# Layer -> what it may include, lowest first. "layer/file.h" stands for that one header.
LAYERS = {
    "base": [],
    "io": ["base"],
    "kernels": ["base"],
    "comm": ["base"],
    "format": ["base", "io"],
    "catalog": ["base", "format"],
    "plan": ["base", "format", "catalog/snapshot.h"],
    "strategy": ["base", "kernels", "plan"],
    "exec": ["base", "io", "kernels", "strategy", "format", "plan", "comm/communicator.h"],
    "manifest": ["base", "io", "format", "plan", "exec/report.h"],
    "run": ["base", "io", "kernels", "comm", "format", "catalog", "plan", "strategy", "exec",
            "manifest"],
    "cli": ["base", "io", "kernels", "comm", "format", "catalog", "plan", "strategy", "exec",
            "manifest", "run"],
}

# What is used in few places only: name, pattern of the header, the layers (or "layer/prefix" of a path).
# fmt and tl::expected are everywhere.
THIRD_PARTY = [
    ("MPI", r"mpi\.h|mpi-ext\.h", ["comm"]),
    ("Boost", r"boost/.*", ["comm"]),
    ("SQLite", r"sqlite3.*\.h", ["catalog"]),
    ("nlohmann_json", r"nlohmann/.*", ["format", "plan", "manifest", "run/demo", "cli"]),
    ("Cereal", r"cereal/.*", ["io", "comm", "plan", "exec"]),
    ("CLI11", r"CLI/.*", ["cli"]),
    ("Highway", r"hwy/.*", ["kernels"]),
    ("OpenMP", r"omp\.h", ["kernels", "run/demo"]),
    ("xxHash", r"xxhash\.h|xxh3\.h", ["base"]),
    ("OpenSSL", r"openssl/.*", ["base"]),
    ("spdlog", r"spdlog/.*", ["base"]),
    ("POSIX file access", r"fcntl\.h|sys/mman\.h|sys/uio\.h", ["io"]),
]
OPENMP_PLACES = ["kernels", "run/demo"]

INCLUDE = re.compile(r'^\s*#\s*include\s*(["<])([^">]+)[">]')
OPENMP = re.compile(r'^\s*#\s*pragma\s+omp\b|_Pragma\s*\(\s*"\s*omp\b')
STRING_OR_COMMENT = re.compile(r'"(?:\\.|[^"\\\n])*"|//[^\n]*|/\*.*?\*/', re.DOTALL)


def without_comments(text):
    def replace(match):
        found = match.group()
        return found if found.startswith('"') else "\n" * found.count("\n")

    return STRING_OR_COMMENT.sub(replace, text)


def may_include(layer, target, header):
    """Whether `layer` may include the public header `header` of layer `target`."""
    return target == layer or target in LAYERS[layer] or f"{target}/{header}" in LAYERS[layer]


def in_places(path_in_layer, places):
    """Whether "layer/file.cc" lies in one of `places`: a layer or the start of a path."""
    return any(path_in_layer.startswith(place if "/" in place else place + "/") for place in places)


def check_project_include(name, layer, private_folder, quoted):
    """The complaint about one include of this project's own headers, or None. `layer` is None for main.cc."""
    parts = name.split("/")
    if ".." in parts:
        return "goes through '..'; name the header from src/ or include/"
    if parts[0] == "mergepipe" and len(parts) >= 3:
        target, header = parts[1], "/".join(parts[2:])
        if target not in LAYERS:
            return f"there is no layer '{target}'"
        if not quoted:
            return "headers of this project are included with quotes"
        if layer is not None and not may_include(layer, target, header):
            return f"layer '{layer}' may not include '{target}/{header}'"
        return None
    if quoted and parts[0] in LAYERS and len(parts) >= 2:
        if parts[0] != layer:
            return f"'{name}' is private to layer '{parts[0]}'"
        if not private_folder:
            return f"a public header may not include '{name}', which is private"
    return None


def check_file(path, layer, path_in_layer, private_folder):
    """All complaints about one file, as (line number, text)."""
    for number, line in enumerate(without_comments(path.read_text(encoding="utf-8")).split("\n"), 1):
        if OPENMP.search(line) and not in_places(path_in_layer, OPENMP_PLACES):
            yield number, f"OpenMP is used in {', '.join(OPENMP_PLACES)} only"
        match = INCLUDE.match(line)
        if match is None:
            continue
        quoted, name = match.group(1) == '"', match.group(2)
        complaint = check_project_include(name, layer, private_folder, quoted)
        if complaint:
            yield number, complaint
        for library, pattern, places in THIRD_PARTY:
            if re.fullmatch(pattern, name) and not in_places(path_in_layer, places):
                yield number, f"<{name}>: {library} is included in {', '.join(places)} only"


def check_tree(root):
    """All complaints below `root`, as "path:line: text", and the number of files seen."""
    complaints = []
    files = 0
    for top in (root / "src", root / "include" / "mergepipe"):
        for path in sorted(p for p in top.rglob("*") if p.suffix in (".h", ".cc")):
            files += 1
            inside = path.relative_to(top)
            layer = inside.parts[0] if len(inside.parts) > 1 else None
            shown = path.relative_to(root)
            if layer not in LAYERS and str(shown) != "src/main.cc":
                complaints.append(f"{shown}:1: lies in no layer")
                continue
            complaints += [
                f"{shown}:{number}: {text}"
                for number, text in check_file(path, layer, inside.as_posix(), top.name == "src")
            ]
    return complaints, files


def table():
    """The layers as a Markdown table."""
    rows = ["| layer | may include | third-party, only here |", "|---|---|---|"]
    for layer, allowed in LAYERS.items():
        if set(allowed) >= set(LAYERS) - {"run", "cli"}:
            included = "all of the above"
        else:
            included = ", ".join(f"`{entry}`" for entry in allowed) or "-"
        libraries = [name + (f" (`{place}`)" if "/" in place else "")
                     for name, _, places in THIRD_PARTY for place in places
                     if place.split("/")[0] == layer]
        rows.append(f"| `{layer}` | {included} | {', '.join(libraries) or '-'} |")
    return "\n".join(rows)


def check_repository(root):
    complaints, files = check_tree(root)
    if table() not in (root / "src" / "README.md").read_text(encoding="utf-8"):
        complaints.append("src/README.md:1: its table differs from `tests/layering_test.py --table`")
    if files == 0:
        complaints.append(f"{root}:1: no sources found")
    for complaint in complaints:
        print(complaint)
    print(f"layering: {files} files, {len(complaints)} complaints")
    return 1 if complaints else 0


# Path, text, and the part of the complaint that is expected, or None.
CASES = [
    ("src/io/down.cc", '#include "mergepipe/base/error.h"\n#include "io/own.h"\n', None),
    ("src/io/up.cc", '#include "mergepipe/format/model.h"\n', "may not include 'format/model.h'"),
    ("src/io/spaced.cc", '  #  include "mergepipe/run/merge.h"\n', "may not include"),
    ("src/io/angle.cc", "#include <mergepipe/base/error.h>\n", "with quotes"),
    ("src/io/private.cc", '#include "base/inner.h"\n', "private to layer 'base'"),
    ("src/io/dots.cc", '#include "../base/inner.h"\n', "'..'"),
    ("src/io/unknown.cc", '#include "mergepipe/utils/x.h"\n', "no layer 'utils'"),
    ("src/io/comment.cc", '// #include "mergepipe/run/a.h"\n/*\n#include "mpi.h"\n*/\n', None),
    ("src/io/text.cc", 'auto s = "/*";\n#include "mergepipe/cli/a.h"\nauto e = "*/";\n',
     "may not include 'cli/a.h'"),
    ("include/mergepipe/io/leak.h", '#include "io/own.h"\n', "which is private"),
    ("include/mergepipe/io/up.h", '#include "mergepipe/run/merge.h"\n', "may not include"),
    ("include/mergepipe/base/up.h", '#include "mergepipe/io/file.h"\n', "may not include"),
    ("src/exec/interface.cc", '#include "mergepipe/comm/communicator.h"\n', None),
    ("src/exec/more_comm.cc", '#include "mergepipe/comm/session.h"\n', "'comm/session.h'"),
    ("src/plan/database.cc", '#include "mergepipe/catalog/catalog.h"\n', "'catalog/catalog.h'"),
    ("src/plan/snapshot.cc", '#include "mergepipe/catalog/snapshot.h"\n', None),
    ("src/comm/mpi.cc", "#include <mpi.h>\n#include <boost/mpi.hpp>\n", None),
    ("src/exec/mpi.cc", "#include <mpi.h>\n", "MPI is included in comm only"),
    ("src/run/boost.cc", "#include <boost/mpi/communicator.hpp>\n", "Boost"),
    ("src/run/sql.cc", "#include <sqlite3.h>\n", "SQLite"),
    ("src/run/json.cc", "#include <nlohmann/json.hpp>\n", "nlohmann_json"),
    ("src/run/cereal.cc", "#include <cereal/archives/binary.hpp>\n", "Cereal"),
    ("src/run/cli11.cc", "#include <CLI/CLI.hpp>\n", "CLI11"),
    ("src/strategy/simd.cc", "#include <hwy/highway.h>\n", "Highway"),
    ("src/format/xxh.cc", "#include <xxhash.h>\n", "xxHash"),
    ("src/format/mapped.cc", "#include <sys/mman.h>\n", "POSIX"),
    ("src/kernels/loop.cc", "#include <omp.h>\n#pragma omp parallel for\n", None),
    ("src/run/demo.cc", "#pragma omp parallel for\n", None),
    ("src/exec/loop.cc", "# pragma omp parallel\n", "OpenMP"),
    ("src/exec/macro.cc", '_Pragma("omp parallel")\n', "OpenMP"),
    ("src/helpers/x.cc", "\n", "lies in no layer"),
    ("src/stray.cc", "\n", "lies in no layer"),
    ("src/main.cc", '#include "mergepipe/cli/cli.h"\n', None),
]


def self_test():
    order = list(LAYERS)
    failures = [f"'{layer}' may include '{entry}', which is not below it"
                for layer, allowed in LAYERS.items() for entry in allowed
                if order.index(entry.split("/")[0]) >= order.index(layer)]
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for path, text, _ in CASES:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text, encoding="utf-8")
        complaints, files = check_tree(root)
    if files != len(CASES):
        failures.append(f"{files} of {len(CASES)} files were seen")
    for path, _, expected in CASES:
        found = [c for c in complaints if c.startswith(path + ":")]
        if len(found) != (expected is not None) or any(expected not in c for c in found):
            failures.append(f"{path}: expected {expected!r}, found {found}")
    for failure in failures:
        print(failure)
    print(f"layering self-test: {len(CASES)} cases, {len(failures)} failures")
    return 1 if failures else 0


def main(arguments):
    if arguments == ["--self-test"]:
        return self_test()
    if arguments == ["--table"]:
        print(table())
        return 0
    if len(arguments) > 1 or any(a.startswith("-") for a in arguments):
        print(__doc__, file=sys.stderr)
        return 2
    return check_repository(Path(arguments[0]) if arguments else Path(__file__).resolve().parent.parent)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
