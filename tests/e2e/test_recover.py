"""A catalog that is damaged or lost: what the commands say, and what `recover` makes of it."""

from __future__ import annotations

import re
import shutil
import sqlite3
from pathlib import Path

import pytest

from program import BAD_INPUT, FULL_READ, IO_ERROR, check_database


@pytest.fixture
def merge(program, family):
    return program.merge(family("BF16"), *FULL_READ, "--model-id", "merged")


def flip(path: Path, text: bytes) -> bytes:
    """Flips a bit of every place that has `text`, and gives the file's bytes."""
    data = bytearray(path.read_bytes())
    places = [m.end() - 1 for m in re.finditer(re.escape(text), data)]
    assert places, f"{text!r} is not in {path}"
    for place in places:
        data[place] ^= 1
    path.write_bytes(data)
    return bytes(data)


def damage(program, merge) -> bytes:
    """The first expert's rows, and those of the run."""
    flip(program.catalog, Path(merge.ok["run"]).name.encode())
    return flip(program.catalog, b"/expert_a")


def damaged_files(program) -> list[Path]:
    return sorted(program.root.glob("db.sqlite.damaged-*"))


def ids(program) -> set[str]:
    return {line.split()[0] for line in program.run("models").expect(0).stdout.splitlines()}


def test_damaged_in_the_middle(program, merge):
    before = ids(program)
    bytes_damaged = damage(program, merge)
    outcome = program.run("models").expect(BAD_INPUT)
    assert len(outcome.problems()) == 1, outcome
    assert outcome.problems()[0].startswith(str(program.catalog)), outcome
    assert f"run `mergepipe recover --db '{program.catalog}'`" in outcome.stderr, outcome

    done = program.run("recover", "--yes").expect(0)
    assert done.stdout.startswith("[OK] rebuilt the damaged catalog"), done
    assert "lost: model 'expert_a'" in done.stdout, done
    assert f"run {Path(merge.ok['run']).name}" in done.stdout, done
    assert check_database(program.catalog) == "ok"
    kept, = damaged_files(program)
    assert kept.read_bytes() == bytes_damaged and kept.name in done.stdout
    assert ids(program) == before - {"expert_a"}
    program.run("verify", merge.out).expect(0)
    text = program.run("explain", Path(merge.ok["run"]).name, "--runs-dir", "elsewhere").expect(0).stdout
    assert merge.plan["plan_id"] in text, "the catalog does not know the run"
    assert "is whole" in program.run("recover").expect(0).stdout
    assert damaged_files(program) == [kept]


def test_the_merge_goes_on_afterwards(program, family, merge):
    damage(program, merge)
    assert "mergepipe recover" in program.try_merge(family("BF16"), *FULL_READ, out="again").expect(BAD_INPUT).stderr
    program.run("recover", "--yes").expect(0)
    again = program.merge(family("BF16"), *FULL_READ, out="again")
    assert again.output_files() == merge.output_files()


@pytest.mark.parametrize("arguments", [(), ("--runs-dir", "nowhere")])
def test_without_yes_nothing_changes(program, merge, arguments):
    bytes_damaged = damage(program, merge)
    names = sorted(p.name for p in program.root.iterdir())
    outcome = program.run("recover", *arguments).expect(0)
    assert outcome.stdout.splitlines()[-1] == "nothing was changed: pass --yes to do it", outcome
    assert "lost: model 'expert_a'" in outcome.stdout, outcome
    assert program.catalog.read_bytes() == bytes_damaged
    assert sorted(p.name for p in program.root.iterdir()) == names


def test_verify_offers_it(program, merge):
    flip(program.catalog, Path(merge.ok["run"]).name.encode())
    data = bytearray(program.catalog.read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)
    program.catalog.write_bytes(data)
    outcome = program.run("verify", merge.out).expect(BAD_INPUT)
    assert f"run `mergepipe recover --db '{program.catalog}'`" in outcome.stderr, outcome
    program.run("recover", "--yes").expect(0)
    program.run("verify", merge.out).expect(0)
    program.run("explain", Path(merge.ok["run"]).name, "--runs-dir", "elsewhere").expect(0)


def test_a_lost_catalog(program, merge):
    program.catalog.unlink()
    look = program.run("recover").expect(0)
    assert look.stdout.startswith("[dry run] would make"), look
    assert not program.catalog.exists()
    program.run("recover", "--yes").expect(0)
    assert check_database(program.catalog) == "ok"
    program.run("explain", Path(merge.ok["run"]).name, "--runs-dir", "elsewhere").expect(0)
    verified = program.run("verify", merge.out).expect(0)
    assert "does not know" not in verified.stdout, verified


def test_a_cut_catalog(program, merge):
    data = program.catalog.read_bytes()
    program.catalog.write_bytes(data[: len(data) * 2 // 3])
    names = {p.name for p in program.root.iterdir()}
    done = program.run("recover", "--yes").expect(0)
    assert "***" not in done.stdout and "\\n" not in done.stdout, done
    kept, = damaged_files(program)
    assert {p.name for p in program.root.iterdir()} == names | {kept.name}


def test_a_whole_catalog_is_just_ok(program, merge):
    shutil.rmtree(merge.out)
    for arguments in [(), ("--yes",)]:
        assert program.run("recover", *arguments).expect(0).stdout == f"[OK] the catalog {program.catalog} is whole\n"


def test_neither_catalog_nor_runs(program):
    outcome = program.run("recover", "--yes").expect(BAD_INPUT)
    assert str(program.catalog) in outcome.stderr and len(outcome.problems()) == 1, outcome
    assert not program.catalog.exists()


@pytest.mark.parametrize("kind", ["text", "other-program", "newer", "directory", "empty"])
def test_what_is_not_a_damaged_catalog_is_refused(program, merge, kind):
    path = program.root / kind
    if kind == "text":
        path.write_text("not a database, but a text of some length\n" * 200)
    elif kind == "other-program":
        sqlite3.connect(path).execute("CREATE TABLE t (x)")
    elif kind == "newer":
        path.write_bytes(program.catalog.read_bytes())
        sqlite3.connect(path).execute("PRAGMA user_version = 99")
    elif kind == "directory":
        path.mkdir()
    else:
        path.touch()
    before = None if kind == "directory" else path.read_bytes()
    outcome = program.run("recover", "--yes", "--db", path).expect(BAD_INPUT)
    assert len(outcome.problems()) == 1 and str(path) in outcome.stderr, outcome
    assert before is None or path.read_bytes() == before
    assert not list(program.root.glob(f"{kind}.*"))


def test_a_locked_one_is_refused(program, merge):
    bytes_damaged = damage(program, merge)
    other = sqlite3.connect(program.catalog)
    other.execute("BEGIN EXCLUSIVE")
    outcome = program.run("recover", "--yes").expect(IO_ERROR)
    assert "is locked by another process" in outcome.stderr and len(outcome.problems()) == 1, outcome
    other.close()
    assert program.catalog.read_bytes() == bytes_damaged
    assert not damaged_files(program)
