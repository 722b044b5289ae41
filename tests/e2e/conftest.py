"""Fixtures: a private scratch directory, and the program in a clean working directory for each test."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import tempfile
from pathlib import Path

import pytest

import checkpoint
from program import Program


@pytest.fixture(scope="session")
def scratch():
    """A directory with a short name (Open MPI puts sockets below TMPDIR), removed at the end unless
    MERGEPIPE_E2E_KEEP is set."""
    root = Path(tempfile.mkdtemp(prefix="mpe2e-"))
    (root / "t").mkdir()
    yield root
    if os.environ.get("MERGEPIPE_E2E_KEEP"):
        print(f"kept {root}")
    else:
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(scope="session")
def binary() -> str:
    path = os.environ.get("MERGEPIPE_BIN")
    if not path:
        pytest.fail("set MERGEPIPE_BIN to the program under test")
    return str(Path(path).resolve(strict=True))


@pytest.fixture(scope="session")
def new_program(scratch, binary):
    """Makes programs in fresh working directories; for fixtures that outlive one test."""
    numbers = itertools.count()

    def make(name: str = "shared") -> Program:
        return Program(binary, scratch / f"{next(numbers)}-{name}", scratch / "t")

    return make


@pytest.fixture
def program(new_program, request):
    made = new_program(re.sub(r"\W+", "_", request.node.name, flags=re.ASCII)[:40])
    yield made
    if not os.environ.get("MERGEPIPE_E2E_KEEP"):
        shutil.rmtree(made.root, ignore_errors=True)


@pytest.fixture(scope="session")
def family(scratch):
    """Families by their arguments, each made once. Tests must not change them."""
    made: dict = {}

    def get(dtype: str = "F32", **how) -> checkpoint.Family:
        key = (dtype, *sorted(how.items()))
        if key not in made:
            made[key] = checkpoint.make_family(scratch / f"family{len(made)}", dtype, **how)
        return made[key]

    return get
