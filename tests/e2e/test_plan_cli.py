"""`plan`, its sweep and tables, `explain`, and what budgets and catalogs that cannot work get: one line each."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest

import checkpoint
import delta_family
import oracle
import selection_oracle as selection
import traced
from checkpoint import Family
from delta_family import Recipe
from oracle import Options
from program import BAD_INPUT, FULL_READ, IO_ERROR, MIB, USAGE, megabytes

BLOCK = 2000
# 3 MB an expert: 5 % of two pay for the fingerprints and some blocks. Layer 1 of expert_a is frozen.
FROZEN = ("model.layers.1.self_attn.q_proj.weight", "model.layers.1.mlp.up_proj.weight")
RECIPE = Recipe("BF16", experts=2, seed=21, run=BLOCK, scale=0.03, frozen=0, frozen_tensors={0: FROZEN}, shapes={
    "model.embed_tokens.weight": (1000, 400), "model.layers.0.self_attn.q_proj.weight": (500, 500),
    "model.layers.0.mlp.up_proj.weight": (500, 500), "model.layers.0.input_layernorm.weight": (500,),
    "model.layers.1.self_attn.q_proj.weight": (500, 500), "model.layers.1.mlp.up_proj.weight": (500, 500),
    "model.norm.weight": (500,), "lm_head.weight": (400, 400)})
AVG = Options("avg", block_size=BLOCK)


@pytest.fixture(scope="module")
def made(scratch) -> Family:
    return delta_family.make(scratch / "plans", RECIPE)


@pytest.fixture(scope="module")
def analyzed(new_program, made):
    """A program whose catalog has the family's exact statistics. Tests leave it as it is."""
    program = new_program("plans")
    program.analyze(made, "--block-size", BLOCK)
    return program


def arguments(family: Family, options: Options = AVG) -> list[str]:
    return ["--base", str(family.base.path), "--experts", *family.paths(), *options.arguments()]


def only_problem(outcome) -> str:
    assert len(outcome.problems()) == 1, f"not one line{outcome}"
    return outcome.problems()[0]


# ----------------------------------------------------------------------------------------------- the sweep

PERCENTS = [5, 10, 25, 50, 100]


def sweep(program, family: Family, *extra, options: Options = AVG, percents=PERCENTS) -> list[dict]:
    outcome = program.run("plan", *arguments(family, options), "--top-p", "1", "--json",
                          "--sweep", ",".join(map(str, percents)), *extra)
    return json.loads(outcome.expect(0).stdout)


@pytest.mark.parametrize("scoring", ["l2", "l2cos", "abs", "uniform"])
def test_a_sweep_says_what_each_budget_buys(analyzed, made, scoring):
    rows = sweep(analyzed, made, "--scoring", scoring)
    assert [row["percent"] for row in rows] == PERCENTS
    for row in rows:
        assert abs(row["budget_bytes"] - row["percent"] / 100 * made.merge_bytes()) <= 1
        assert 0 < row["planned_bytes"] <= row["budget_bytes"]
        assert 0 <= row["energy_covered"] <= 1 and row["touched_blocks"] > 0
    covered = [row["energy_covered"] for row in rows]
    assert covered == sorted(covered) and covered[0] < covered[-1], covered
    bounds = [row["bound"] for row in rows]
    assert all(bound is not None and bound >= 0 for bound in bounds)
    if scoring != "uniform":
        assert bounds == sorted(bounds, reverse=True) and bounds[0] > bounds[-1], bounds


def test_a_sweep_is_the_plans_at_those_budgets(analyzed, made):
    """Each row is what `plan` says at that budget; energy is what NumPy adds up."""
    for row in sweep(analyzed, made, "--scoring", "l2", percents=[10, 60]):
        plan = analyzed.plan(made, "--top-p", "1", "--scoring", "l2", "--io-budget-mb", megabytes(row["budget_bytes"]),
                             options=AVG)
        assert row["planned_bytes"] == plan["planned"]["total_bytes"]
        assert row["bound"] == plan["bound"]["total"]
        assert row["touched_blocks"] == sum(t["touched_blocks"] for t in plan["tensors"])
        read = selection.stated_keys(plan)
        pairs = [p for b in selection.blocks_of(plan, made) for p in b.pairs]
        covered = sum(p.statistics.sum_squares for p in pairs if p.key in read)
        assert row["energy_covered"] == pytest.approx(covered / sum(p.statistics.sum_squares for p in pairs), rel=1e-9)


def test_a_sweep_obeys_top_p(analyzed, made):
    outcome = analyzed.run("plan", *arguments(made), "--top-p", "0.1", "--json", "--sweep", "5,100").expect(0)
    rows = json.loads(outcome.stdout)
    blocks = sum(oracle.block_count(t.size, BLOCK) for t in made.base.tensors.values() if oracle.is_float(t.dtype))
    assert rows[1]["touched_blocks"] <= -(-blocks // 10)


def test_a_sweep_of_ties_has_no_bound(analyzed, made):
    assert [row["bound"] for row in sweep(analyzed, made, options=Options("ties", block_size=BLOCK))] == [None] * 5


def test_a_sweep_as_a_table(analyzed, made):
    text = analyzed.run("plan", *arguments(made), "--top-p", "1", "--sweep", "5,50,100").expect(0).stdout
    assert "energy" in text.lower() and "bound" in text.lower(), text
    rows = [line for line in text.splitlines() if re.match(r"\s*(5|50|100)(\.0)?\b", line)]
    assert len(rows) == 3, text


@traced.needs_strace
def test_a_sweep_reads_no_weight(analyzed, made):
    outcome, trace = traced.run(analyzed, "sweep", "plan", *arguments(made), "--sweep", "5,10,25,50,100")
    outcome.expect(0)
    assert trace.expert_bytes(made) == 0 and trace.bytes_of(made.base.path) == 0


@traced.needs_strace
def test_a_sweep_without_statistics_is_refused(program, made):
    """It never probes: at other budgets the probe would be another."""
    for model in [made.base, *made.experts]:
        program.run("register", model.path).expect(0)
    outcome, trace = traced.run(program, "sweep", "plan", *arguments(made), "--sweep", "5,50")
    outcome.expect(USAGE)
    assert "mergepipe analyze" in only_problem(outcome)
    assert trace.expert_bytes(made) == 0


@pytest.mark.parametrize("text", ["", "5,,7", "-5", "a", "nan"])
def test_bad_sweeps(analyzed, made, text):
    outcome = analyzed.run("plan", *arguments(made), f"--sweep={text}").expect(USAGE)
    assert "--sweep" in only_problem(outcome)


# --------------------------------------------------------------------------------------- budgets too small

def smallest_in(outcome) -> int:
    """The MiB that the line tells the user to give."""
    found = re.findall(r"(\d+) MiB", only_problem(outcome))
    assert found, outcome
    return int(found[-1])


LARGE_BLOCK = Recipe("F32", experts=2, shapes={"w": (700, 1000)}, run=1000)  # one block is 2.67 MiB
WIDE_PROBE = Recipe("F16", experts=8, expert_dtype="F64", shapes={"w": (256, 64)}, integers=False)  # 64 KiB a probe


@pytest.mark.parametrize("ranks", [None, 2])
@pytest.mark.parametrize("strategy", ["avg", "ties"])
@pytest.mark.parametrize("case", ["block", "block-analyzed", "block-uniform", "probe"])
def test_the_smallest_useful_budget_is_named_and_works(program, case, strategy, ranks):
    """A budget below it: exit 2, one line, nothing written. Exactly it: a merge. One MiB less: refused again."""
    recipe, block = (WIDE_PROBE, 8192) if case == "probe" else (LARGE_BLOCK, 700_000)
    family = delta_family.make(program.root / "family", recipe)
    options = Options(strategy, block_size=block)
    extra = ["--scoring", "uniform"] if case == "block-uniform" else []
    if case == "block-analyzed":
        program.analyze(family, "--block-size", block)

    def attempt(budget, catalog, *more):
        database = [] if case == "block-analyzed" else ["--db", catalog]
        return program.try_merge(family, "--io-budget-mb", budget, *extra, *database, *more, options=options,
                                 out=f"m{catalog}", ranks=ranks)

    smallest = smallest_in(attempt("0.75", "a.sqlite").expect(USAGE))
    assert smallest >= 2, "the case does not show that one MiB less is too little"
    program.assert_nothing_published()
    assert smallest_in(attempt(str(smallest - 1), "b.sqlite").expect(USAGE)) == smallest
    merge = program.merged(attempt(str(smallest), "c.sqlite"))
    assert merge.plan["planned"]["merge_bytes"] > 0
    assert merge.expert_bytes_read() <= smallest * MIB


@pytest.mark.parametrize("ranks", [None, 2])
@pytest.mark.parametrize("case", ["cold", "analyzed", "uniform"])
def test_allow_empty_makes_the_bases_copy(program, case, ranks):
    family = delta_family.make(program.root / "family", LARGE_BLOCK)
    options = Options("avg", block_size=700_000)
    if case == "analyzed":
        program.analyze(family, "--block-size", 700_000)
    extra = ["--scoring", "uniform"] if case == "uniform" else []
    budget = family.fingerprint_bytes() + family.compare_bytes() + 1000
    refused = program.try_merge(family, "--io-budget-mb", megabytes(budget), *extra, options=options, ranks=ranks)
    assert "--allow-empty" in only_problem(refused.expect(USAGE))
    merge = program.merge(family, "--io-budget-mb", megabytes(budget), "--allow-empty", *extra, options=options,
                          ranks=ranks)
    checkpoint.assert_same_bits(family.base.tensors, merge.tensors())
    assert merge.manifest["io"]["expert_bytes_read"] == 0 and merge.expert_bytes_read() <= budget
    assert not any(any(t["selected"]) for t in merge.plan["tensors"])
    program.run("verify", merge.out).expect(0)


def test_allow_empty_changes_nothing_where_something_fits(analyzed, made):
    plans = [analyzed.plan(made, "--io-budget-mb", "1", *extra, options=AVG) for extra in ([], ["--allow-empty"])]
    assert oracle.selections_of(plans[0]).keys() == oracle.selections_of(plans[1]).keys()
    assert selection.stated_keys(plans[0]) == selection.stated_keys(plans[1]) != set()


# ------------------------------------------------------------------------------------------- --analyze none

@pytest.mark.parametrize("ranks", [None, 2])
@pytest.mark.parametrize("scoring", ["l2cos", "l2", "abs"])
def test_analyze_none_never_reads_for_scores(program, made, scoring, ranks):
    outcome = program.try_merge(made, "--analyze", "none", "--scoring", scoring, "--io-budget-mb", "1", options=AVG,
                                ranks=ranks).expect(USAGE)
    assert "mergepipe analyze" in only_problem(outcome)
    program.assert_nothing_published()


@pytest.mark.parametrize("enough", [("--scoring", "uniform"), FULL_READ, ("--io-budget-mb", "100", "--top-p", "1")])
def test_analyze_none_is_fine_where_no_scores_are_needed(program, made, enough):
    merge = program.merge(made, "--analyze", "none", *enough, options=AVG)
    assert merge.plan["planned"]["probe_bytes"] == 0


def test_analyze_none_does_not_use_probes_of_another_run_as_exact(program, made):
    """What auto has probed is in the catalog; none asks for exact statistics or says what it used."""
    auto = program.merge(made, "--io-budget-mb", "1", options=AVG, out="auto")
    outcome = program.try_merge(made, "--analyze", "none", "--io-budget-mb", "1", options=AVG, out="none")
    if outcome.code == 0:
        merge = program.merged(outcome)
        assert [s["kind"] for s in merge.plan["statistics"]] == ["probe", "probe"]
        assert merge.plan["plan_hash"] == auto.plan["plan_hash"]
    else:
        assert "mergepipe analyze" in only_problem(outcome.expect(USAGE))


def test_analyze_probe_ignores_no_exact_statistics_silently(analyzed, made):
    """probe says in the plan what it used; the plan is one or the other, never a mixture by accident."""
    plan = analyzed.plan(made, "--analyze", "probe", "--io-budget-mb", "1.5", options=AVG)
    kinds = {s["kind"] for s in plan["statistics"]}
    assert len(kinds) == 1 and kinds <= {"exact", "probe"}
    assert (plan["planned"]["probe_bytes"] > 0) == (kinds == {"probe"})


@pytest.mark.parametrize("option, value", [("--analyze", "some"), ("--scoring", "l3"), ("--output", "half")])
def test_unknown_values_are_refused(program, made, option, value):
    outcome = program.try_merge(made, option, value, options=AVG).expect(USAGE)
    assert option in outcome.stderr and value in outcome.stderr


# ------------------------------------------------------------------------------------------------ catalogs

COMMANDS = {
    "merge": lambda program, family, **how: program.try_merge(family, "--io-budget-mb", "1", options=AVG, **how),
    "analyze": lambda program, family, **how: program.try_analyze(family, "--block-size", BLOCK, **how),
    "plan": lambda program, family, **how: program.run("plan", *arguments(family), "--io-budget-mb", "1", **how),
}


def refused(program, family: Family, command: str, *codes: int, **how) -> str:
    outcome = COMMANDS[command](program, family, **how)
    assert outcome.code in codes, outcome
    problem = only_problem(outcome)
    assert "db.sqlite" in problem, f"the catalog is not named{outcome}"
    program.assert_nothing_published()
    return problem


@contextmanager
def locked(path: Path):
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        connection.rollback()
        connection.close()


@pytest.mark.parametrize("ranks", [None, 2])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_locked_catalog(program, made, command, ranks):
    """Waits some seconds, then says that another process holds it; works when that one is done."""
    program.analyze(made, "--block-size", BLOCK)
    with locked(program.catalog):
        assert "lock" in refused(program, made, command, IO_ERROR, ranks=ranks, timeout=60)
    COMMANDS[command](program, made, ranks=ranks).expect(0)
    program.assert_catalog_intact()


# Root may write anywhere; without these capabilities the modes count.
AS_OTHERS = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search"]


def obey_modes() -> list[str]:
    """A prefix under which file modes are obeyed; skips where there is none."""
    if os.geteuid() != 0:
        return []
    try:
        subprocess.run([*AS_OTHERS, "true"], check=True, capture_output=True, timeout=20)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"root, and setpriv cannot drop its capabilities: {error}")
    return AS_OTHERS


@pytest.mark.parametrize("what", ["directory", "file", "absent"])
@pytest.mark.parametrize("command", ["merge", "analyze"])
def test_a_catalog_that_cannot_be_written(program, made, command, what):
    """A directory or file without write permission: one line, and no output that is not in a catalog."""
    prefix = obey_modes()
    place = program.root / "read-only"
    place.mkdir()
    catalog = place / "db.sqlite"
    how = {"env": {"MERGEPIPE_DB": str(catalog)}, "prefix": prefix}
    if what != "absent":
        program.run("init-db", "--db", catalog).expect(0)
    (catalog if what == "file" else place).chmod(0o444 if what == "file" else 0o555)
    try:
        problem = refused(program, made, command, IO_ERROR, BAD_INPUT, **how)
    finally:
        place.chmod(0o755)
    assert re.search(r"read.?only|permission|cannot (be )?(write|written|create|open)|unable to", problem, re.I), problem
    assert sorted(p.name for p in place.iterdir()) == ([] if what == "absent" else ["db.sqlite"])


@pytest.mark.parametrize("command", COMMANDS)
def test_a_catalog_of_a_newer_schema(program, made, command):
    program.run("init-db").expect(0)
    with sqlite3.connect(program.catalog) as connection:
        connection.execute("PRAGMA user_version = 9999")
    before = program.catalog.read_bytes()
    assert re.search("newer|schema|version", refused(program, made, command, BAD_INPUT))
    assert program.catalog.read_bytes() == before


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("kind", ["text", "other-database", "empty"])
def test_not_a_catalog(program, made, command, kind):
    if kind == "other-database":
        with sqlite3.connect(program.catalog) as connection:
            connection.execute("CREATE TABLE invoices (id INTEGER, total REAL)")
    else:
        program.catalog.write_text("no database\n" * 500 if kind == "text" else "")
    before = program.catalog.read_bytes()
    refused(program, made, command, BAD_INPUT)
    assert program.catalog.read_bytes() == before


PIECES = 12


@pytest.mark.parametrize("piece", range(PIECES))
def test_a_catalog_damaged_in_the_middle(analyzed, program, made, piece):
    """Some KiB of garbage anywhere behind the first page: refused with the way out, or the very same plan. Never
    another plan, a crash, or more than one line."""
    whole = analyzed.catalog.read_bytes()
    good = analyzed.plan(made, "--analyze", "none", "--io-budget-mb", "1", options=AVG)
    at = 4096 + (len(whole) - 8192) * piece // PIECES
    program.catalog.write_bytes(whole[:at] + bytes((at + 97 * i) % 251 for i in range(4096)) + whole[at + 4096:])
    outcome = program.run("plan", *arguments(made), "--analyze", "none", "--io-budget-mb", "1", "--json")
    if outcome.code == 0:
        assert json.loads(outcome.stdout)["plan_hash"] == good["plan_hash"], "a damaged catalog made another plan"
        return
    problem = only_problem(outcome)
    assert outcome.code == BAD_INPUT or (outcome.code == USAGE and "mergepipe analyze" in problem), outcome
    if outcome.code == BAD_INPUT:
        assert "db.sqlite" in problem and "recover" in problem, outcome


def test_damage_to_the_statistics_is_noticed(analyzed, program, made):
    """Garbage over most of the file, in which statistics are the bulk."""
    whole = analyzed.catalog.read_bytes()
    third = len(whole) // 3
    program.catalog.write_bytes(whole[:third] + bytes(i % 253 for i in range(third)) + whole[2 * third:])
    outcome = program.run("plan", *arguments(made), "--analyze", "none", "--io-budget-mb", "1").expect(BAD_INPUT)
    assert "db.sqlite" in only_problem(outcome) and "recover" in outcome.stderr


# --------------------------------------------------------------------------------------- tables and explain

@pytest.mark.parametrize("dry_run", [False, True])
def test_the_plan_as_a_table(analyzed, made, dry_run):
    """By expert, by layer, by kind of tensor; energy, bound and statistics."""
    command = ["merge", "--dry-run", "--out", analyzed.outputs / "none"] if dry_run else ["plan"]
    text = analyzed.run(*command, *arguments(made), "--io-budget-mb", "1.5").expect(0).stdout
    for expert in made.experts:
        assert expert.name in text
    lower = text.lower()
    for word in ("layer", "kind", "energy", "full-read merge: at most", "exact"):
        assert word in lower, f"nothing about {word!r}:\n{text}"
    for kind in ("self_attn.q_proj", "mlp.up_proj", "embed_tokens", "lm_head"):
        assert kind in text, f"no row for {kind}:\n{text}"


def test_the_plan_says_when_it_probed(program, made):
    text = program.run("plan", *arguments(made), "--io-budget-mb", "1.5").expect(0).stdout.lower()
    assert "probe" in text and "exact" not in text, text


def test_the_plan_estimates_the_time_at_a_bandwidth(analyzed, made):
    """In seconds somewhere, for reads at a rate that the text names."""
    text = analyzed.run("plan", *arguments(made), "--io-budget-mb", "1.5").expect(0).stdout
    assert re.search(r"\d ?s\b", text) and re.search(r"[KMG]i?B/s", text), text


@pytest.fixture(scope="module")
def merged(analyzed, made):
    """A budget that leaves much unread, so that every kind of tensor is there."""
    return analyzed.merge(made, "--io-budget-mb", "1.2", "--top-p", "0.5", "--scoring", "l2", options=AVG, out="explained")


def explain(program, merge, name: str) -> str:
    return program.run("explain", merge.run, "--tensor", name).expect(0).stdout


def test_explain_says_why_a_tensor_was_read(analyzed, merged, made):
    chosen = oracle.selections_of(merged.plan)
    read = [n for n, sets in chosen.items() if any(s.any() for s in sets)]
    assert read
    for name in read:
        text = explain(analyzed, merged, name)
        assert name in text and all(e.name in text for e in made.experts), text
        assert re.search(r"score|energy", text, re.I), f"nothing about why:\n{text}"


def test_explain_says_why_a_tensor_was_not_read(analyzed, merged, made):
    chosen, equal = oracle.selections_of(merged.plan), oracle.equal_of(merged.plan)
    unread = [n for n, sets in chosen.items() if any((~(s | e)).any() for s, e in zip(sets, equal[n]))]
    assert unread
    for name in unread:
        text = explain(analyzed, merged, name)
        assert re.search(r"[1-9]\d* (beyond --top-p|over the budget)", text), f"nothing about why blocks were left:\n{text}"


def test_explain_says_what_equals_the_base(analyzed, merged):
    for name in FROZEN:
        assert re.search(r"[1-9]\d* as the base", explain(analyzed, merged, name)), name


def test_explain_says_that_integers_come_from_the_base(analyzed, merged):
    assert "integer" in explain(analyzed, merged, "model.position_ids").lower()


def test_explain_of_an_unknown_tensor_names_the_nearest(analyzed, merged):
    outcome = analyzed.run("explain", merged.run, "--tensor", "model.layers.1.mlp.up_proj.weigth").expect(USAGE)
    assert "model.layers.1.mlp.up_proj.weight" in only_problem(outcome)


@pytest.mark.parametrize("form", ["full", "sparse"])
@pytest.mark.parametrize("strategy", ["avg", "ties"])
def test_the_estimate_counts_what_the_merge_moves(analyzed, made, strategy, form):
    extra = [*arguments(made, Options(strategy, block_size=AVG.block_size)), "--top-p", "0.5", "--output", form]
    planned = analyzed.run("plan", *extra).expect(0).stdout
    said = re.search(r"of experts, (.+) of base, (.+) of output", planned)
    merged = analyzed.run("merge", *extra, "--out", f"out/moved-{strategy}-{form}").expect(0).stdout
    moved = re.search(r", base (.+), written (.+) in ", merged)
    assert said and moved and said.groups() == moved.groups()
