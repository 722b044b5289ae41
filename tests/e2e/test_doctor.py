"""doctor: what a merge depends on, said before it fails."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import traced
from checkpoint import weight_files
from program import BAD_INPUT, DONE, FULL_READ, IO_ERROR, NO_SPACE, USAGE, check_database
from test_recover import PLAN_ID, hold, leave, leave_run, tree

TOPICS = ("program", "compiler", "libraries", "launcher", "cores", "memory", "limits")


def findings(outcome) -> list[tuple[str, str]]:
    """Verdict and text of each line."""
    lines = [re.fullmatch(r"(ok|note|problem) +(\S.*: .*)", line) for line in outcome.stdout.splitlines()]
    assert lines and all(lines), outcome
    return [(line[1], line[2]) for line in lines]


def of(outcome, topic: str) -> tuple[str, str]:
    found = [(verdict, text) for verdict, text in findings(outcome) if text.startswith(topic)]
    assert len(found) == 1, f"{len(found)} lines of {topic!r}{outcome}"
    return found[0]


def healthy(outcome) -> None:
    """Nothing that a merge would fail with; what machines differ in may be worth a note."""
    told = ("program", "libraries", "launcher", "catalog", "input")
    assert all(verdict == "ok" for verdict, text in findings(outcome) if text.startswith(told)), outcome
    assert all(verdict != "problem" for verdict, _ in findings(outcome)), outcome


def test_a_healthy_machine(program, family):
    made = family("F32")
    program.merge(made)
    before = tree(program.root)
    outcome = program.run("doctor", "--out", program.outputs / "next", made.base.path, *made.paths()).expect(DONE)
    healthy(outcome)
    for topic in TOPICS:
        of(outcome, topic + ": ")
    for place in ("current directory, catalog", "output", "runs", f"disk of input {made.base.path}"):
        of(outcome, place)
    verdict, text = of(outcome, f"output {program.outputs}: ")
    assert re.search(r": \S+, (local|network), weights are read (direct|through the page cache), .*locks, .*free$", text), text
    assert re.search(r": whole; schema \d+, models: 4, runs: 1$", of(outcome, f"catalog {program.catalog}: ")[1])
    assert re.search(r": 14 tensors, [\d.]+ KiB$", of(outcome, f"input {made.base.path}: ")[1])
    assert not outcome.stderr, outcome
    assert tree(program.root) == before, "doctor left something, or took it"


def test_before_anything_is_there(program):
    outcome = program.run("doctor").expect(DONE)
    assert of(outcome, f"catalog {program.catalog}: ")[0] == "note"
    assert not program.catalog.exists() and not (program.root / "runs").exists()


def test_one_source_of_versions(program, family):
    """doctor, --version -v and meta.json say the same."""
    report = json.loads(program.run("doctor", "--json").expect(DONE).stdout)
    lines = program.run("--version", "-v").expect(DONE).stdout.splitlines()
    assert lines[0] == f"mergepipe {report['version']}" == program.run("--version").expect(DONE).stdout.strip()
    assert lines[1:4] == [f"commit {report['commit']}", f"compiler {report['compiler']} ({report['build_type']})",
                          f"SIMD {report['simd']}"]
    assert dict(line.rsplit(" ", 1) if not line.startswith("MPI ") else line.split(" ", 1)
                for line in lines[4:]) == report["libraries"]
    meta = json.loads((program.merge(family("F32")).run / "meta.json").read_text())
    assert meta["version"] == report["version"]
    assert meta["build"] == {key: report[key] for key in ("commit", "compiler", "build_type", "simd", "libraries")}
    assert {"MPI", "Boost", "SQLite", "xxHash", "OpenSSL", "Highway", "OpenMP", "Cereal", "nlohmann_json", "fmt", "spdlog",
            "CLI11"} <= report["libraries"].keys()
    assert all(re.search(r"\d", version) for version in report["libraries"].values()), report["libraries"]


def test_json(program):
    outcome = program.run("doctor", "--json", "--out", program.root / "no" / "where").expect(USAGE)
    report = json.loads(outcome.stdout)
    assert report["schema"] == "mergepipe.doctor/1" and report["exit_code"] == USAGE
    problem, = [f for f in report["findings"] if f["verdict"] == "problem"]
    assert problem["topic"] == f"output {program.root}/no" and problem["remedy"], problem


@traced.needs_strace
def test_it_does_not_start_mpi(program):
    outcome, trace = traced.run(program, "doctor", "doctor")
    outcome.expect(DONE)
    assert of(outcome, "launcher: ")[1].endswith("without MPI")
    started = [line for log in trace.logs.parent.glob("log.*") for line in log.read_text(errors="replace").splitlines()
               if line.startswith("execve(")]
    assert len(started) <= 1, started  # Open MPI starts a daemon


# -------------------------------------------------------------------------------------------------- the launcher

def test_under_a_launcher(program):
    outcome = program.run("doctor", ranks=3).expect(DONE)
    assert re.fullmatch(r"launcher: 3 ranks on 1 host \(\S+\)", of(outcome, "launcher: ")[1]), outcome
    assert len([text for _, text in findings(outcome) if text.startswith("program: ")]) == 1, "more than one rank printed"


@pytest.mark.parametrize("environment, code, says", [
    ({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "4"}, DONE, "one process in a job with room for 4 tasks"),
    ({"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "0"}, USAGE, "cannot find each other"),
])
def test_a_launcher_that_gives_no_ranks(program, environment, code, says):
    outcome = program.run("doctor", env=environment).expect(code)
    assert says in (outcome.stderr if code else of(outcome, "launcher: ")[1]), outcome


# --------------------------------------------------------------------------------------------------- the machine

def test_a_low_limit_of_open_files(program):
    outcome = program.run("doctor", prefix=["sh", "-c", 'ulimit -n 500; exec "$@"', "sh"]).expect(DONE)
    verdict, text = of(outcome, "limits: ")
    assert verdict == "note" and "open files 500" in text and "raise ulimit -n" in text, outcome


def test_bound_to_one_core(program):
    cores = sorted(os.sched_getaffinity(0))
    outcome = program.run("doctor", prefix=["taskset", "-c", str(cores[0])]).expect(DONE)
    assert re.match(r"cores: 1 of \d+ on \S+ for 1 rank$", of(outcome, "cores: ")[1]), outcome


# ---------------------------------------------------------------------------------------------------- the places

def test_an_output_that_exists(program, family):
    program.merge(family("F32"))
    verdict, text = of(program.run("doctor", "--out", program.outputs / "merged").expect(DONE),
                       f"output {program.outputs / 'merged'}: ")
    assert verdict == "note" and "--overwrite" in text


def test_where_nothing_can_be_written(program):
    outcome = program.run("doctor", "--out", "/proc/merged").expect(IO_ERROR)
    assert of(outcome, "output /proc: ")[0] == "problem", outcome
    assert len(outcome.problems()) == 1 and "/proc" in outcome.stderr, outcome


def test_a_full_disk(program, family):
    made = family("F32")
    disk = program.root / "disk"
    disk.mkdir()
    prefix = ["unshare", "-rm", "sh", "-c", f'mount -t tmpfs -o size=64k none {disk} || exit 99; exec "$@"', "sh"]
    outcome = program.run("doctor", "--out", disk / "merged", made.base.path, prefix=prefix)
    if outcome.code in (1, 99, 126, 127):
        pytest.skip("nothing can be mounted here")
    outcome.expect(NO_SPACE)
    assert of(outcome, f"output {disk}: ")[0] == "problem", outcome
    assert "tmpfs" in of(outcome, f"output {disk}: ")[1] and len(outcome.problems()) == 1, outcome


@pytest.mark.parametrize("kind, code, verdict", [("missing", BAD_INPUT, "problem"), ("cut", BAD_INPUT, "problem"),
                                                 ("no-weights", DONE, "note")])
def test_inputs(program, family, kind, code, verdict):
    path = program.root / "model"
    if kind == "cut":
        shutil.copytree(family("F32").base.path, path)
        weights = weight_files(path)[0]
        weights.write_bytes(weights.read_bytes()[:-1])
    elif kind == "no-weights":
        path.mkdir()
    outcome = program.run("doctor", path).expect(code)
    assert [v for v, text in findings(outcome) if text.startswith(f"input {path}: ") and v != "ok"] == [verdict], outcome


# --------------------------------------------------------------------------------------- catalog and leftovers

def test_a_damaged_catalog(program, family):
    program.merge(family("F32"))
    data = bytearray(program.catalog.read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)
    program.catalog.write_bytes(data)
    outcome = program.run("doctor").expect(BAD_INPUT)
    verdict, text = of(outcome, f"catalog {program.catalog}: ")
    assert verdict == "problem" and "mergepipe recover --db" in text, outcome
    assert program.catalog.read_bytes() == data


def test_models_that_are_gone_or_changed(program, family):
    made = family("F32")
    for name in ("one", "two", "three"):
        shutil.copytree(made.base.path, program.root / name)
        program.run("register", name).expect(DONE)
    shutil.rmtree(program.root / "one")
    path = weight_files(program.root / "two")[0]
    os.utime(path, (1, 1))
    outcome = program.run("doctor").expect(DONE)
    for name, says in (("one", "is gone"), ("two", "is not the file that was registered")):
        verdict, text = of(outcome, f"model '{name}': ")
        assert verdict == "note" and says in text and "mergepipe register" in text, outcome
    assert not [text for _, text in findings(outcome) if "three" in text], outcome


def test_what_killed_merges_left(program, family):
    merge = program.merge(family("F32"), *FULL_READ)
    staging = leave(program.outputs, f".other.mergepipe-{PLAN_ID}")
    busy = leave(program.outputs, f".busy.mergepipe-{PLAN_ID}")
    run = leave_run(program, merge)
    before = tree(program.root)
    with hold(program.outputs / ".busy.mergepipe.lock"):
        outcome = program.run("doctor").expect(DONE)
    left = [(verdict, text) for verdict, text in findings(outcome) if text.startswith("left behind: ")]
    assert [verdict for verdict, _ in left] == ["note"] * 3, outcome
    for path in (staging, Path("runs") / run.name):
        assert any(str(path) in text and "mergepipe recover" in text for _, text in left), outcome
    assert any(str(busy) in text and "a job is at work on it" in text for _, text in left), outcome
    (program.outputs / ".busy.mergepipe.lock").unlink()
    assert tree(program.root) == before
    assert check_database(program.catalog) == "ok"


def test_runs_that_the_catalog_lacks(program, family):
    merge = program.merge(family("F32"))
    outcome = program.run("doctor", "--db", "other.sqlite").expect(DONE)
    assert "mergepipe recover" in of(outcome, "catalog other.sqlite: ")[1], outcome
    program.run("init-db", "--db", "other.sqlite").expect(DONE)
    outcome = program.run("doctor", "--db", "other.sqlite").expect(DONE)
    verdict, text = of(outcome, "runs: ")
    assert verdict == "note" and Path(merge.ok["run"]).name in text and "recover --yes" in text, outcome
