"""Prints the name of every test that failed, and the end of what it printed: so that one who sees only the end of a
long log knows what to look at.

    scripts/failed_tests.py RESULTS.xml...     as `ctest --output-junit` writes them; files that are absent count for nothing
"""

import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

LINES_OF_A_TEST = 40
LINES_IN_ALL = 120


def failed(case: ElementTree.Element) -> bool:
    skipped = case.find("skipped")
    return case.get("status") == "fail" or (skipped is not None and "Unable to find" in (skipped.get("message") or ""))


def failures(results: Path) -> list[tuple[str, list[str]]]:
    found = []
    for case in ElementTree.parse(results).getroot().iter("testcase"):
        if not failed(case):
            continue
        output = case.findtext("system-out") or ""
        found.append((f"{case.get('name')} after {float(case.get('time') or 0):.0f} s", output.rstrip().splitlines()))
    return found


def main() -> None:
    found = [failure for path in map(Path, sys.argv[1:]) if path.exists() for failure in failures(path)]
    if not found:
        return
    print(f"\n=== failed: {len(found)} of the tests")
    for name, _ in found:
        print(f"  {name}")
    each = max(10, min(LINES_OF_A_TEST, LINES_IN_ALL // len(found)))
    for name, output in found[: LINES_IN_ALL // each]:
        print(f"--- {name}: the last {min(each, len(output))} of {len(output)} lines")
        print("\n".join(line[:400] for line in output[-each:]))


main()
