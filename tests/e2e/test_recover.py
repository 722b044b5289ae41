"""A catalog that is damaged or lost: what the commands say, and what `recover` makes of it."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import shutil
import sqlite3
import struct
import subprocess
from pathlib import Path

import pytest

import traced
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


# --------------------------------------------------------------------------- what killed merges left behind

PLAN_ID = "0123456789abcdef"


def leave(directory: Path, name: str) -> Path:
    """A staging directory, or a journal, as a killed merge leaves it."""
    path = directory / name
    (path / "code").mkdir(parents=True)
    (path / "model.safetensors").write_bytes(b"x" * 5000)
    (path / "code" / "modeling.py").write_text("pass\n")
    return path


def leave_run(program, merge, name: str = "20200101_000000_killed") -> Path:
    """A run folder as a killed merge leaves it: with a plan, and the lock that nobody holds."""
    path = program.root / "runs" / name
    path.mkdir(parents=True)
    shutil.copy(merge.run / "plan.json", path)
    (path / ".mergepipe.lock").touch()
    return path


def hold(path: Path):
    """Locks a file as the program does; until the result is closed."""
    file = open(path, "a")
    fcntl.fcntl(file, fcntl.F_OFD_SETLK, struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    return file


def line_of(outcome, path: Path) -> str:
    lines = [line for line in outcome.stdout.splitlines() if line.startswith(f"left behind: {path} (")]
    assert len(lines) == 1, f"no line, or several, of {path}{outcome}"
    return lines[0]


def tree(root: Path) -> list[str]:
    return sorted(str(p.relative_to(root)) for p in root.rglob("*"))


def test_leftovers_are_told_and_cleared_away(program, merge):
    before = tree(program.root)
    staging = leave(program.outputs, f".other.mergepipe-{PLAN_ID}")
    journal = leave(program.outputs, f".other.mergepipe-{PLAN_ID}.journal")
    alone = leave(program.outputs, f".third.mergepipe-{PLAN_ID}")
    lock = program.outputs / ".other.mergepipe.lock"
    lock.touch()
    run = leave_run(program, merge)
    os.utime(staging / "model.safetensors", (0, 0))
    left = tree(program.root)

    look = program.run("recover").expect(0)
    assert look.stdout.splitlines()[0] == f"[OK] the catalog {program.catalog} is whole", look
    assert look.stdout.splitlines()[-1] == "nothing was changed: pass --yes to do it", look
    assert f"unfinished output {program.outputs / 'other'}; the same merge goes on from it" in line_of(look, staging)
    assert "the same merge starts again; 4.89 KiB, last written" in line_of(look, alone), look
    assert "journal of the unfinished output" in line_of(look, journal)
    assert "that nobody holds" in line_of(look, lock)
    assert "run without a manifest" in line_of(look, Path("runs") / run.name)
    assert "left out" not in look.stdout, look
    assert tree(program.root) == left, "a look changed something"

    done = program.run("recover", "--yes").expect(0)
    assert line_of(done, staging).endswith(": removed"), done
    assert tree(program.root) == before
    assert program.run("recover", "--yes").expect(0).stdout == f"[OK] the catalog {program.catalog} is whole\n"
    program.run("verify", merge.out).expect(0)


def test_leftovers_elsewhere(program, merge):
    """Here, beside --out, and in directories that are given; not anywhere else."""
    places = [program.root / name for name in ("a", "b", "c")]
    left = [leave(place, f".m.mergepipe-{PLAN_ID}") for place in places]
    assert "left behind" not in program.run("recover").expect(0).stdout
    here = leave(program.root, f".m.mergepipe-{PLAN_ID}")  # by a merge that no record tells of
    assert "unfinished output" in line_of(program.run("recover").expect(0), here)
    shutil.rmtree(here)
    done = program.run("recover", "--yes", "--out", places[0] / "never", places[1]).expect(0)
    assert [path.exists() for path in left] == [False, False, True], done
    missing = program.run("recover", program.root / "nowhere")
    assert missing.code == BAD_INPUT or missing.code == IO_ERROR, missing
    assert "nowhere" in missing.stderr


def test_leftovers_without_a_catalog(program):
    staging = leave(program.root / "a", f".m.mergepipe-{PLAN_ID}")
    done = program.run("recover", "--yes", staging.parent).expect(0)
    assert done.stdout.startswith(f"[OK] there is no catalog {program.catalog}"), done
    assert not staging.exists() and not program.catalog.exists()


@pytest.mark.parametrize("what", ["staging", "run"])
def test_what_a_job_is_at_work_on_is_left_alone(program, merge, what):
    if what == "staging":
        path = leave(program.outputs, f".other.mergepipe-{PLAN_ID}")
        lock = program.outputs / ".other.mergepipe.lock"
    else:
        path = leave_run(program, merge)
        lock = path / ".mergepipe.lock"
    with hold(lock):
        for arguments in [(), ("--yes",)]:
            outcome = program.run("recover", *arguments).expect(0)
            shown = path if what == "staging" else Path("runs") / path.name
            assert line_of(outcome, shown).endswith("left alone: a job is at work on it"), outcome
            assert "pass --yes" not in outcome.stdout, outcome
            assert path.is_dir() and lock.exists()
    program.run("recover", "--yes").expect(0)
    assert not path.exists()


def foreign(program, merge, kind: str) -> tuple[Path, Path]:
    """What must not be removed: the path that must stay as it is, and the one that is reported."""
    precious = program.root / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years of work")
    name = program.outputs / f".m.mergepipe-{PLAN_ID}"
    if kind == "link":
        name.symlink_to(precious)
    elif kind == "file":
        name.write_text("years of work")
    elif kind == "hidden":
        leave(program.outputs, name.name)
        (name / ".git").mkdir()
    elif kind == "link-inside":
        leave(program.outputs, name.name)
        (name / "code" / "link").symlink_to(precious)
    elif kind == "lock-link":
        name = program.outputs / ".m.mergepipe.lock"
        name.symlink_to(precious / "thesis.txt")
    elif kind == "lock-with-text":
        name = program.outputs / ".m.mergepipe.lock"
        name.write_text("years of work")
    elif kind == "previous":
        name = leave(program.outputs, ".merged.mergepipe-previous")
    elif kind == "run-with-a-file":
        run = leave_run(program, merge)
        (run / "notes.txt").write_text("years of work")
        return run, Path("runs") / run.name
    else:
        run = program.root / "runs" / "20200101_000000_mine"
        run.mkdir()
        (run / "plan.json").write_text("{\"my\": \"plan\"}")
        return run, Path("runs") / run.name
    return name, name


@pytest.mark.parametrize("kind", ["link", "file", "hidden", "link-inside", "lock-link", "lock-with-text", "previous",
                                  "run-with-a-file", "run-with-another-plan"])
def test_what_is_not_ours_stays(program, merge, kind):
    path, shown = foreign(program, merge, kind)
    before = tree(program.root)
    done = program.run("recover", "--yes").expect(0)
    assert "): left alone: " in line_of(done, shown), done
    assert tree(program.root) == before
    assert (program.root / "precious" / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize("name", [f".m.mergepipe-{PLAN_ID[:-1]}", f".m.mergepipe-{PLAN_ID[:-1]}X", ".mergepipe-" + PLAN_ID,
                                  f"m.mergepipe-{PLAN_ID}", f".m.mergepipe-{PLAN_ID}.journal.bak", ".m.mergepipe"])
def test_names_that_only_look_alike(program, merge, name):
    path = leave(program.outputs, name)
    for arguments in [(), ("--yes",)]:
        assert "left behind" not in program.run("recover", *arguments).expect(0).stdout
    assert path.is_dir()


@pytest.mark.parametrize("target", ["missing", "in-place"])
def test_a_killed_exchange_is_settled(program, merge, target):
    previous = program.outputs / ".merged.mergepipe-previous"
    if target == "missing":
        merge.out.rename(previous)
    else:
        shutil.copytree(merge.out, previous)
    look = program.run("recover").expect(0)
    expected = "gets its name back" if target == "missing" else "to be removed"
    assert line_of(look, previous).endswith(": " + expected), look
    program.run("recover", "--yes").expect(0)
    assert os.listdir(program.outputs) == ["merged"]
    program.run("verify", merge.out).expect(0)


def on_a_terminal(program, *arguments, answer: str) -> tuple[int, str]:
    """The command on a terminal of its own, where `answer` is typed."""
    main, terminal = pty.openpty()
    process = subprocess.Popen(["timeout", "-k", "5", "60", program.binary, *arguments], cwd=program.root,
                               env=program.environment, stdin=terminal, stdout=terminal, stderr=terminal)
    os.close(terminal)
    os.write(main, answer.encode())
    text = b""
    try:
        while piece := os.read(main, 4096):
            text += piece
    except OSError:  # the other side is closed
        pass
    os.close(main)
    return process.wait(), text.decode()


@pytest.mark.parametrize("answer, removes", [("y\n", True), ("n\n", False), ("\n", False)])
def test_on_a_terminal_it_asks(program, merge, answer, removes):
    staging = leave(program.outputs, f".other.mergepipe-{PLAN_ID}")
    code, text = on_a_terminal(program, "recover", answer=answer)
    assert code == 0 and "do it? [y/N]" in text, text
    assert staging.exists() != removes, text
    assert ("nothing was changed" in text) != removes, text


def test_on_a_terminal_without_anything_to_do_it_does_not_ask(program, merge):
    code, text = on_a_terminal(program, "recover", answer="y\n")
    assert code == 0 and "do it?" not in text, text


def test_what_cannot_be_removed_is_an_error(program, merge):
    if os.geteuid() == 0:
        pytest.skip("nothing is forbidden to root")
    staging = leave(program.outputs, f".other.mergepipe-{PLAN_ID}")
    program.outputs.chmod(0o555)
    outcome = program.run("recover", "--yes")
    program.outputs.chmod(0o755)
    assert outcome.code == IO_ERROR and "could not be settled" in outcome.stdout, outcome
    assert staging.exists()


def test_a_finished_run_leaves_no_lock(merge):
    assert sorted(p.name for p in merge.run.iterdir()) == ["manifest.json", "meta.json", "plan.json"]
    build = json.loads((merge.run / "meta.json").read_text())["build"]
    assert build["libraries"]["SQLite"].startswith("3.") and build["compiler"] and build["commit"], build


@pytest.fixture
def stopped(program, family):
    """A merge that stands still, with a staging directory, a lock and a run folder."""
    merge = traced.Stepped(program, family("BF16"))
    try:
        merge.run_to(r"/runs/.*/plan\.json>")
        yield merge
    finally:
        merge.kill()


@traced.needs_strace
def test_a_merge_under_way_is_not_disturbed(program, stopped):
    before = tree(program.root / "out") + tree(program.root / "runs")
    for arguments in [(), ("--yes",)]:
        outcome = program.run("recover", *arguments, "--out", program.outputs / "merged").expect(0)
        left = [line for line in outcome.stdout.splitlines() if line.startswith("left behind: ")]
        assert len(left) >= 2 and all(line.endswith(": left alone: a job is at work on it") for line in left), outcome
        assert tree(program.root / "out") + tree(program.root / "runs") == before
    stopped.go_on()
    code, errors = stopped.end()
    assert code == 0, errors
    program.run("verify", program.outputs / "merged").expect(0)


@traced.needs_strace
def test_a_merge_that_was_killed(program, family, stopped):
    stopped.kill()
    run, = (program.root / "runs").iterdir()
    look = program.run("recover", "--out", program.outputs / "merged").expect(0)
    assert f"unfinished output {program.outputs / 'merged'}" in look.stdout, look
    assert line_of(look, Path("runs") / run.name).endswith(": to be removed"), look
    program.run("recover", "--yes", "--out", program.outputs / "merged").expect(0)
    program.assert_nothing_published()
    assert not run.exists()
    program.merge(family("BF16"))
