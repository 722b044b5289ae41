#!/usr/bin/env bash
# How near a budgeted merge comes to the full read, by scoring: a Markdown table on stdout.
#
#   scripts/compare_scoring.sh [--size 0.6b] [--quick] [--keep] [DIR]
#
# Makes a demo family of four experts in DIR/family unless it is there (0.6b: 6 GB; without DIR, in a
# temporary directory that is removed at the end), analyzes it, and merges it at 5, 10, 25 and 50 % of the
# expert bytes with each scoring; each output is removed once it is measured (--keep: DIR stays, and so do
# the full-read merges in it). --quick uses small models and blocks, to try the script. Exits 1 if l2cos or
# l2 is anywhere not nearer to the full read than uniform.
# The program: $MERGEPIPE_BIN, else build/release/src/mergepipe.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
  echo "usage: $0 [--size SIZE] [--quick] [--keep] [DIR]" >&2
  exit 2
}

size=0.6b quick=false keep=false dir=
while (($# > 0)); do
  case "$1" in
    --size) (($# > 1)) || usage; size=$2; shift ;;
    --quick) quick=true ;;
    --keep) keep=true ;;
    -*) usage ;;
    *) [[ -z $dir ]] || usage; dir=$1 ;;
  esac
  shift
done

# Absolute, because everything below runs in DIR.
mergepipe=$(realpath "${MERGEPIPE_BIN:-build/release/src/mergepipe}")
[[ -x $mergepipe ]] || { echo "$0: there is no program $mergepipe; build it first" >&2; exit 2; }
# mergepipe_options: of every plan. With small models the defaults would not cut anything.
mergepipe_options=()
cold_budget=()
percents=(5 10 25 50)
if $quick; then
  size=small
  mergepipe_options=(--block-size 32768)
  percents=(10 50)
  cold_budget=(--io-budget-mb 20)  # about a fifth of the expert bytes, as the default is of 0.6b's
fi

work=
cleanup() { if [[ -n $work ]] && ! $keep; then rm -rf "$work"; fi; }
trap cleanup EXIT
if [[ -z $dir ]]; then
  work=$(mktemp -d "${TMPDIR:-/tmp}/mergepipe-scoring.XXXXXX")
  dir=$work
fi
mkdir -p "$dir"
cd "$dir"

log() { echo "== $*" >&2; }
# quiet COMMAND...: its output only if it fails.
quiet() {
  local status=0
  "$@" >command.log 2>command.err </dev/null || status=$?
  if ((status != 0)); then
    echo "$0: exit $status: $*" >&2
    cat command.log command.err >&2
    exit 1
  fi
}

experts=(family/expert_1 family/expert_2 family/expert_3 family/expert_4)
if [[ ! -d family/expert_4 ]]; then
  log "making a family of qwen3/$size with 4 experts in $PWD/family"
  quiet "$mergepipe" demo family --shape qwen3 --size "$size" --experts 4
fi
inputs=(--base family/base --experts "${experts[@]}" "${mergepipe_options[@]}")
expert_bytes=$(du -bcL family/expert_*/*.safetensors | tail -n 1 | cut -f 1)

rm -f catalog.sqlite cold.sqlite
rm -rf runs full_avg full_ties out distances.jsonl
log "analyzing $((expert_bytes / 1000000)) MB of experts"
quiet "$mergepipe" analyze "${inputs[@]}" --db catalog.sqlite

# merge OUT CATALOG OPTIONS...
merge() {
  local out=$1 catalog=$2
  shift 2
  quiet "$mergepipe" merge "${inputs[@]}" --out "$out" --db "$catalog" --runs-dir runs --overwrite --json "$@"
  mv command.log merge.json
}

# measure STRATEGY BUDGET SCORING: distance of ./out to the full read as a line of distances.jsonl; removes it.
measure() {
  quiet "$mergepipe" diff "full_$1" out --json --db catalog.sqlite
  python3 - "$@" <<'PYTHON'
import json, sys
strategy, budget, scoring = sys.argv[1:]
with open("merge.json") as merge, open("command.log") as diff:
    merged, total = json.load(merge), json.load(diff)["total"]
with open(merged["run"] + "/plan.json") as file:
    plan = json.load(file)
read = merged["expert_bytes_read"] + merged["probe_bytes_read"]
with open("distances.jsonl", "a") as file:
    print(json.dumps({"strategy": strategy, "budget": budget, "scoring": scoring, "l2": total["l2"],
                      "ratio": plan["objective_ratio"], "read": read}), file=file)
PYTHON
  rm -rf out
}

for strategy in avg ties; do
  log "$strategy: the full read"
  merge "full_$strategy" catalog.sqlite --strategy "$strategy" --no-budget --top-p 1
  # How far the full read is from the base: the unit of the table.
  quiet "$mergepipe" diff "full_$strategy" family/base --json --db catalog.sqlite
  mv command.log "unit_$strategy.json"
  for percent in "${percents[@]}"; do
    # In MiB, exactly: six decimals are less than two bytes.
    budget=$(python3 -c "print(f'{$expert_bytes * $percent / 100 / 2**20:.6f}')")
    for scoring in l2cos l2 uniform; do
      log "$strategy: $percent % by $scoring"
      merge out catalog.sqlite --strategy "$strategy" --io-budget-mb "$budget" --top-p 1 --scoring "$scoring"
      measure "$strategy" "$percent %" "$scoring"
    done
  done
  # With defaults, and nothing known: l2cos has to pay for its probes.
  for scoring in l2cos uniform; do
    log "$strategy: cold start by $scoring"
    rm -f cold.sqlite
    merge out cold.sqlite --strategy "$strategy" --scoring "$scoring" "${cold_budget[@]}"
    measure "$strategy" cold "$scoring"
  done
  $keep || rm -rf "full_$strategy"
done

python3 - "$size" "$expert_bytes" <<'PYTHON'
import json, sys
size, expert_bytes = sys.argv[1], int(sys.argv[2])
unit = {s: json.load(open(f"unit_{s}.json"))["total"]["l2"] for s in ("avg", "ties")}
rows = {}
for line in open("distances.jsonl"):
    entry = json.loads(line)
    rows.setdefault((entry["strategy"], entry["budget"]), {})[entry["scoring"]] = entry

print(f"Distance to the full-read merge, as a share of that of the base (0 %: the full read; 100 %: the base). "
      f"qwen3/{size}, 4 experts, {expert_bytes / 1e9:.2f} GB of them.\n")
print("| strategy | budget | `l2cos` | `l2` | `uniform` | objective / bound (`l2cos`) | bytes read (`l2cos`) |")
print("|---|---|---|---|---|---|---|")
worse = []
for (strategy, budget), found in rows.items():
    cells = [f"{found[s]['l2'] / unit[strategy] * 100:.2f} %" if s in found else "-" for s in ("l2cos", "l2", "uniform")]
    name = "default, cold" if budget == "cold" else budget
    print(f"| {strategy} | {name} | {' | '.join(cells)} | {found['l2cos']['ratio']:.5f} "
          f"| {found['l2cos']['read'] / expert_bytes * 100:.1f} % |")
    for scoring in ("l2cos", "l2"):
        if scoring in found and not found[scoring]["l2"] < found["uniform"]["l2"]:
            worse.append(f"{strategy} at {name}: {scoring} is not nearer to the full read than uniform")
for line in worse:
    print(f"compare_scoring: {line}", file=sys.stderr)
sys.exit(1 if worse else 0)
PYTHON
