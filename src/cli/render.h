#pragma once

#include <string>

#include "mergepipe/run/audit.h"
#include "mergepipe/run/merge.h"
#include "mergepipe/run/records.h"

/// \file
/// Results as text for people and as JSON for programs. Nothing else prints.
namespace mergepipe {

/// Writes a rendered result to stdout. Main checks at the end that it has arrived.
void Print(const std::string& text);

/// "mergepipe 0.1.0"; `verbose` adds the commit, the compiler, and every library, a line each.
std::string RenderVersion(bool verbose);

/// The [OK] line and what follows it.
std::string RenderMerge(const MergeOptions& options, const MergeOutcome& outcome);
/// How fast each rank read, made and wrote, and how near that came to what the disks gave; the
/// ranks one by one where they are few.
std::string RenderTimes(const MergeOutcome& outcome);
/// `directory` is the output's, as it was given.
std::string RenderMergeJson(const std::string& directory, const MergeOutcome& outcome);
/// The first line alone: base and experts by their ids, the output directory and the run folder as
/// given.
std::string OkLine(const std::string& target, const MergeOutcome& outcome);

/// What one rank moved, on one line.
std::string DescribeRank(const RankIo& rank);

/// "906 MiB", or "none".
std::string BudgetText(const std::optional<uint64_t>& budget);
/// What is known of the distance to the full-read merge, a line.
std::string BoundText(const std::optional<ErrorBound>& bound);
/// What a plan reads and leaves, by lines: statistics, expert bytes, blocks, energy, selection,
/// bound.
std::string PlanHead(const Plan& plan);
/// `bandwidth` in MiB/s, for the estimate of the time that an output of this form takes.
std::string RenderPlan(const PlannedMerge& planned, OutputForm form, double bandwidth);

std::string RenderSweep(const PlanOptions& options, const std::vector<SweepPoint>& points);
std::string RenderSweepJson(const std::vector<SweepPoint>& points);

std::string RenderRun(const StoredRun& run);
std::string RenderRunJson(const StoredRun& run);
/// One tensor of a run: its rule, which expert gave which blocks, and why the others were left.
/// kUsage naming the nearest tensor if there is none of that name.
Result<std::string> RenderTensor(const StoredRun& run, const std::string& tensor);
/// "0-2,5": the first eight ranges, then "...".
std::string RangesText(const BlockSet& blocks);

std::string RenderVerify(const std::string& directory, const VerifyOutcome& outcome);
std::string RenderAudit(const AuditOutcome& outcome);

std::string RenderDiff(const CheckpointDistance& distance, size_t most);
std::string RenderDiffJson(const CheckpointDistance& distance);

}  // namespace mergepipe
