#pragma once

#include <string>

#include "mergepipe/run/merge.h"
#include "mergepipe/run/records.h"

/// \file
/// Results as text for people and as JSON for programs. Nothing else prints.
namespace mergepipe {

/// Writes a rendered result to stdout. Main checks at the end that it has arrived.
void Print(const std::string& text);

/// The [OK] line and what follows it.
std::string RenderMerge(const MergeOptions& options, const MergeOutcome& outcome);
std::string RenderMergeJson(const MergeOptions& options, const MergeOutcome& outcome);
/// The first line alone: base and experts by their ids, the output directory and the run folder as
/// given.
std::string OkLine(const std::string& target, const MergeOutcome& outcome);

/// What one rank moved, on one line.
std::string DescribeRank(const RankIo& rank);

std::string RenderPlan(const PlannedMerge& planned);

std::string RenderRun(const StoredRun& run);
std::string RenderRunJson(const StoredRun& run);
/// One tensor of a run: its rule, and which expert gave which blocks. kUsage naming the nearest
/// tensor if there is none of that name.
Result<std::string> RenderTensor(const StoredRun& run, const std::string& tensor);

std::string RenderVerify(const std::string& directory, const VerifyOutcome& outcome);

std::string RenderDiff(const CheckpointDistance& distance, size_t most);
std::string RenderDiffJson(const CheckpointDistance& distance);

}  // namespace mergepipe
