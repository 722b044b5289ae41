"""Models by id or path, the catalog's commands, and the common command line."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
from pathlib import Path

import pytest

import checkpoint
import oracle
from oracle import Options
from program import BAD_INPUT, FULL_READ, USAGE, check_database


def register(program, family) -> None:
    """The family under ids that are not its directories' names."""
    for model, name in zip([family.base, *family.experts], ["qwen3_base", "qwen3_distill", "qwen3_code"]):
        program.run("register", model.path, "--id", name, "--db", "mergedb.sqlite").expect(0)


# ----------------------------------------------------------------------------------------- the common command

@pytest.mark.parametrize("ranks", [None, 2])
def test_the_seeds_command(program, family, ranks):
    """mergepipe --db D --base B --experts E1 E2 --out O --model-id M, with registered ids and no `merge`."""
    made = family("BF16")
    register(program, made)
    outcome = program.run("--db", "mergedb.sqlite", "--base", "qwen3_base", "--experts", "qwen3_distill", "qwen3_code",
                          "--out", "out/merged", "--model-id", "qwen3-0.6B", ranks=ranks)
    merge = program.merged(outcome)
    assert merge.ok["base"] == "qwen3_base"
    assert merge.ok["experts"] == "'qwen3_distill', 'qwen3_code'"
    assert merge.ok["out"] == "out/merged"
    assert re.fullmatch(r"runs/\d{8}_\d{6}_qwen3-0.6B", merge.ok["run"])
    assert merge.manifest["model_id"] == "qwen3-0.6B"
    assert [e["id"] for e in merge.plan["experts"]] == ["qwen3_distill", "qwen3_code"]
    expected = oracle.merge_model(made.base.tensors, made.expert_tensors(), Options(), merge.plan)
    checkpoint.assert_same_bits(expected, merge.tensors())


@pytest.mark.parametrize("options_first", [True, False])
def test_options_before_or_after_the_word_merge(program, family, options_first):
    made = family("F32")
    options = ["--base", made.base.path, "--experts", *made.paths(), "--out", "out/m"]
    outcome = program.run(*(["merge", *options] if options_first else options))
    program.merged(outcome)


def test_experts_given_one_by_one(program, family):
    """--experts A --experts B is --experts A B, in the same order."""
    made = family("F32")
    together = program.merge(made, *FULL_READ, out="together")
    outcome = program.run("merge", "--experts", made.paths()[0], "--base", made.base.path, "--experts",
                          made.paths()[1], "--out", "out/apart", *FULL_READ)
    apart = program.merged(outcome)
    assert apart.plan["plan_hash"] == together.plan["plan_hash"]
    assert apart.output_files() == together.output_files()


# ------------------------------------------------------------------------------------------ registering by path

def test_paths_are_registered_on_the_fly(program, family):
    """Under their directories' names, which can be used afterwards; the catalog is made on first use."""
    made = family("F32")
    assert not program.catalog.exists()
    first = program.merge(made, out="first")
    assert check_database(program.catalog) == "ok"
    outcome = program.run("merge", "--base", "base", "--experts", "expert_a", "expert_b", "--out", "out/second")
    second = program.merged(outcome)
    assert second.plan["plan_hash"] == first.plan["plan_hash"]
    assert second.output_files() == first.output_files()


@pytest.mark.parametrize("spelling", ["relative", "trailing-slash", "one-file", "link"])
def test_spellings_of_a_path(program, family, spelling):
    made = family("F32")
    home = program.root / "models"
    for model in [made.base, *made.experts]:
        shutil.copytree(model.path, home / model.name)
    spell = {"relative": lambda n: f"models/{n}", "trailing-slash": lambda n: f"models/{n}/",
             "one-file": lambda n: f"models/{n}/model.safetensors", "link": lambda n: f"links/{n}"}[spelling]
    (program.root / "links").symlink_to(home)
    outcome = program.run("merge", "--base", spell("base"), "--experts", spell("expert_a"), "models/expert_b",
                          "--out", "out/m", *FULL_READ)
    merge = program.merged(outcome)
    expected = oracle.merge_model(made.base.tensors, made.expert_tensors(), Options())
    checkpoint.assert_same_bits(expected, merge.tensors())


def test_two_directories_of_the_same_name(program, family):
    """Two paths that would get one id are never taken for one model."""
    made = family("F32")
    paths = [shutil.copytree(model.path, program.root / parent / "model")
             for model, parent in zip(made.experts, ["x", "y"])]
    outcome = program.run("merge", "--base", made.base.path, "--experts", *paths, "--out", "out/m", *FULL_READ)
    if outcome.code != 0:
        assert outcome.code in (USAGE, BAD_INPUT) and "model" in outcome.stderr and outcome.problems(), outcome
        program.assert_nothing_published()
        return
    merge = program.merged(outcome)
    expected = oracle.merge_model(made.base.tensors, made.expert_tensors(), Options())
    checkpoint.assert_same_bits(expected, merge.tensors())
    ids = [e["id"] for e in merge.plan["experts"]]
    assert len(set(ids)) == 2, f"two models have one id: {ids}"


def test_an_id_that_is_also_a_path(program, family):
    """A registered id and another model's directory in the working directory: never a silent choice."""
    made = family("F32")
    shutil.copytree(made.experts[1].path, program.root / "expert")
    program.run("register", made.experts[0].path, "--id", "expert").expect(0)
    arguments = ["--base", made.base.path, "--out", "out/m", *FULL_READ]
    outcome = program.run("merge", *arguments, "--experts", "expert")
    if outcome.code == 0:
        chosen = program.merged(outcome).tensors()
        expected = oracle.merge_model(made.base.tensors, made.expert_tensors()[:1], Options())
        checkpoint.assert_same_bits(expected, chosen, "an id goes before a path")
        assert "expert" in outcome.stderr, f"the choice was silent{outcome}"
    else:
        assert outcome.code in (USAGE, BAD_INPUT) and "expert" in outcome.stderr, outcome
        program.assert_nothing_published()


def test_a_changed_model_gets_a_new_fingerprint(program, family):
    """A registered model whose file was replaced is not taken for the old one."""
    made = family("F32")
    home = shutil.copytree(made.experts[0].path, program.root / "expert")
    arguments = ["--base", made.base.path, "--experts", home, *FULL_READ]
    first = program.merged(program.run("merge", *arguments, "--out", "out/first"))
    shutil.copy(made.experts[1].path / "model.safetensors", home / "model.safetensors")
    second = program.merged(program.run("merge", *arguments, "--out", "out/second"))
    assert first.plan["experts"] != second.plan["experts"]
    expected = oracle.merge_model(made.base.tensors, made.expert_tensors()[1:], Options())
    checkpoint.assert_same_bits(expected, second.tensors())


# ---------------------------------------------------------------------------------------------- the commands

def test_init_db_makes_a_catalog(program):
    program.run("init-db", "--db", "new.sqlite").expect(0)
    path = program.root / "new.sqlite"
    assert check_database(path) == "ok"
    assert sqlite3.connect(path).execute("PRAGMA journal_mode").fetchone() == ("delete",), "WAL breaks on NFS"


def test_init_db_keeps_what_is_there(program, family):
    program.run("register", family("F32").base.path, "--id", "kept").expect(0)
    program.run("init-db")
    assert "kept" in program.run("models").expect(0).stdout


def test_the_catalog_by_environment_and_by_option(program, family):
    """--db goes before $MERGEPIPE_DB, which goes before mergedb.sqlite."""
    path = family("F32").base.path
    program.run("register", path, "--db", "given.sqlite").expect(0)
    assert (program.root / "given.sqlite").exists() and not program.catalog.exists()
    program.run("register", path).expect(0)
    assert program.catalog.exists()
    program.run("register", path, env={"MERGEPIPE_DB": ""}).expect(0)
    assert (program.root / "mergedb.sqlite").exists()


def test_models_lists_what_is_registered(program, family):
    register(program, family("BF16"))
    text = program.run("models", "--db", "mergedb.sqlite").expect(0).stdout
    listed = json.loads(program.run("models", "--db", "mergedb.sqlite", "--json").expect(0).stdout)
    models = listed if isinstance(listed, list) else listed["models"]
    assert sorted(m["id"] for m in models) == ["qwen3_base", "qwen3_code", "qwen3_distill"]
    for model in models:
        assert model["id"] in text
        assert Path(model["path"]).is_absolute()


def test_register_under_the_directorys_name(program, family):
    program.run("register", family("F32").base.path).expect(0)
    assert "base" in program.run("models").expect(0).stdout


def test_register_refuses_what_is_no_model(program):
    (program.root / "empty").mkdir()
    outcome = program.run("register", "empty").expect(BAD_INPUT)
    assert "empty" in outcome.stderr
    program.assert_catalog_intact()


def test_an_unknown_id_gets_the_nearest_known_one(program, family):
    register(program, family("BF16"))
    outcome = program.run("--db", "mergedb.sqlite", "--base", "qwen3_bas", "--experts", "qwen3_code", "--out", "out/m")
    assert outcome.code == BAD_INPUT, outcome
    problems = outcome.problems()
    assert len(problems) == 1 and "qwen3_bas" in problems[0] and "qwen3_base" in problems[0], outcome
    program.assert_nothing_published()


def test_all_unknown_ids_are_listed_together(program, family):
    register(program, family("BF16"))
    outcome = program.run("--db", "mergedb.sqlite", "--base", "qwen3_base", "--experts", "qwen3_cod", "qwen3_distil",
                          "--out", "out/m").expect(BAD_INPUT)
    assert len(outcome.problems()) == 2, outcome
    for wrong, near in [("qwen3_cod", "qwen3_code"), ("qwen3_distil", "qwen3_distill")]:
        assert any(wrong in p and near in p for p in outcome.problems()), f"{wrong}{outcome}"


# ------------------------------------------------------------------------------------------- other catalogs

def foreign_database(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE invoices (id INTEGER, total REAL)")
        connection.execute("INSERT INTO invoices VALUES (1, 9.5)")


def no_database(path: Path) -> None:
    path.write_text("just a text file, long enough to have a header of its own\n" * 100)


@pytest.mark.parametrize("ranks", [None, 2])
@pytest.mark.parametrize("make", [foreign_database, no_database, Path.mkdir, Path.touch],
                         ids=["other-database", "text", "directory", "empty-file"])
def test_a_file_of_another_kind_is_refused_and_left_alone(program, family, make, ranks):
    path = program.root / "other.sqlite"
    make(path)
    before = path.read_bytes() if path.is_file() else None
    outcome = program.try_merge(family("F32"), "--db", path, ranks=ranks).expect(BAD_INPUT)
    assert len(outcome.problems()) == 1 and "other.sqlite" in outcome.problems()[0], outcome
    assert (path.read_bytes() if path.is_file() else None) == before
    assert sorted(p.name for p in program.root.iterdir() if p.name.startswith("other")) == ["other.sqlite"]
    program.assert_nothing_published()


def test_a_catalog_of_a_newer_schema_is_refused(program, family):
    program.run("init-db").expect(0)
    with sqlite3.connect(program.catalog) as connection:
        connection.execute("PRAGMA user_version = 9999")
    before = program.catalog.read_bytes()
    outcome = program.try_merge(family("F32")).expect(BAD_INPUT)
    assert "db.sqlite" in outcome.stderr
    assert program.catalog.read_bytes() == before


def test_help_states_the_exit_codes(program):
    text = program.run("--help").expect(0).stdout
    for code in ("2", "3", "4", "5", "6", "75", "70"):
        assert re.search(rf"\b{code}\b", text), f"exit code {code} is not in --help"
    for command in ("init-db", "register", "models", "plan", "explain", "replay", "verify", "diff", "demo"):
        assert command in text, command


def test_equal_outputs_of_one_name_get_ids_of_their_own(program, family):
    made = family("F32")
    for parent in ("a", "b", "c"):
        (program.outputs / parent).mkdir()
        program.merge(made, out=f"{parent}/m")
    models = json.loads(program.run("models", "--json").expect(0).stdout)
    found = {m["path"]: m["id"] for m in models if m["path"].endswith("/m")}
    assert len(found) == 3 and len(set(found.values())) == 3, found
    assert found[str(program.outputs / "a" / "m")] == "m"
