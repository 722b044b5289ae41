#include "mergepipe/run/doctor.h"

#include <algorithm>
#include <utility>

#include "run/doctor_parts.h"
#include "run/fields.h"

namespace mergepipe {
namespace {

// What is not well, for rank 0.
std::string Describe(const Findings& findings) {
  Fields fields;
  for (const Finding& finding : findings) {
    if (finding.verdict == Verdict::kOk) continue;
    fields.Add(finding.topic);
    fields.Add(static_cast<uint64_t>(finding.verdict));
    fields.Add(finding.text);
    fields.Add(finding.remedy);
    fields.Add(static_cast<uint64_t>(finding.kind));
  }
  return fields.Take();
}

void AddFrom(const std::string& host, std::string description, Findings& findings) {
  Fields fields(std::move(description));
  while (!fields.AtEnd()) {
    Finding finding;
    finding.topic = fields.Next();
    finding.verdict = static_cast<Verdict>(fields.NextNumber());
    finding.text = "on host " + host + ": " + fields.Next();
    finding.remedy = fields.Next();
    finding.kind = static_cast<ErrorKind>(fields.NextNumber());
    if (std::find(findings.begin(), findings.end(), finding) == findings.end())
      findings.push_back(std::move(finding));
  }
}

// Rank 0 tells all of its own host.
void AddOtherHosts(FileSystem& files, Communicator& communicator, const DoctorOptions& options,
                   Findings& findings) {
  const std::vector<std::string> hosts = communicator.Gather(HostName());
  Findings mine;
  if (!communicator.is_root()) {
    ExamineLimits(mine);
    ExamineSharedPlaces(files, options, mine);
  }
  const std::vector<std::string> descriptions = communicator.Gather(Describe(mine));
  for (size_t rank = 1; rank < descriptions.size(); ++rank) {
    if (hosts[rank] != hosts[0]) AddFrom(hosts[rank], descriptions[rank], findings);
  }
}

}  // namespace

Result<std::vector<Finding>> Examine(FileSystem& files, Communicator& communicator,
                                     const DoctorOptions& options) {
  Findings findings;
  if (communicator.is_root()) ExamineProgram(findings);
  MERGEPIPE_RETURN_IF_ERROR(ExamineRanks(communicator, findings));
  if (communicator.is_root()) {
    ExamineLimits(findings);
    ExaminePlaces(files, options, findings);
    ExamineInputs(files, options, findings);
    ExamineRecords(files, options, findings);
  }
  AddOtherHosts(files, communicator, options, findings);
  return findings;
}

Status ProblemsOf(const std::vector<Finding>& findings) {
  ProblemList problems;
  ErrorKind kind = ErrorKind::kIo;
  for (const Finding& finding : findings) {
    if (finding.verdict != Verdict::kProblem) continue;
    if (problems.empty()) kind = finding.kind;
    problems.Add(finding.topic, finding.text, finding.remedy);
  }
  return problems.ToStatus(kind);
}

}  // namespace mergepipe
