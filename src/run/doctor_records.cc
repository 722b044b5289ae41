#include <fmt/format.h>

#include <algorithm>

#include "mergepipe/base/text.h"
#include "mergepipe/base/units.h"
#include "mergepipe/catalog/catalog.h"
#include "mergepipe/run/recover.h"
#include "run/doctor_parts.h"

namespace mergepipe {
namespace {

using Found = RecoverOutcome::Found;

Finding FromError(const std::string& topic, const Error& error) {
  const Problem& problem = error.problems().front();
  return {topic, Verdict::kProblem, problem.what, problem.remedy, error.kind()};
}

// What became of a registered model's files, or empty.
std::string ChangeOf(FileSystem& files, const ModelLayout& layout) {
  for (uint32_t i = 0; i < layout.files.size(); ++i) {
    const auto now = files.Stat(layout.FilePath(i));
    const FileInfo& before = layout.files[i].info;
    if (!now) return layout.FilePath(i) + " is gone";
    if (now->size != before.size || now->mtime_ns != before.mtime_ns || now->inode != before.inode)
      return layout.FilePath(i) + " is not the file that was registered";
  }
  return {};
}

Status ExamineModels(FileSystem& files, Catalog& catalog, Finding& finding, Findings& findings) {
  MERGEPIPE_ASSIGN_OR_RETURN(const auto ids, catalog.ModelIds());
  MERGEPIPE_ASSIGN_OR_RETURN(const auto runs, catalog.RunIds());
  finding.text = fmt::format("whole; schema {}, models: {}, runs: {}", CatalogSchemaVersion(),
                             ids.size(), runs.size());
  for (const std::string& id : ids) {
    MERGEPIPE_ASSIGN_OR_RETURN(const auto model, catalog.FindModel(id));
    if (!model) continue;
    const std::string change = ChangeOf(files, model->layout);
    if (change.empty()) continue;
    findings.push_back({"model " + Quote(id), Verdict::kNote, EscapeControl(change),
                        "if that is meant: `mergepipe register PATH --id " + id +
                            "`; its statistics are taken again"});
  }
  return {};
}

void ExamineCatalog(FileSystem& files, const DoctorOptions& options, const RecoverOutcome& outcome,
                    Findings& findings) {
  Finding finding{"catalog " + EscapeControl(options.catalog), Verdict::kOk, ""};
  Findings of_models;
  if (outcome.found == Found::kDamaged) {
    finding = {finding.topic, Verdict::kProblem, outcome.damage,
               "run `mergepipe recover --db " + Quote(options.catalog) + "`", ErrorKind::kBadInput};
  } else if (outcome.found != Found::kWhole) {
    finding.verdict = Verdict::kNote;
    finding.text = "is not there yet";
    finding.remedy = outcome.found == Found::kAbsent
                         ? "`mergepipe recover` makes it from the run folders"
                         : "the first merge makes it";
  } else {
    const auto catalog = Catalog::Open(options.catalog);
    const Status seen = catalog ? ExamineModels(files, **catalog, finding, of_models)
                                : Status(tl::unexpected(catalog.error()));
    if (!seen) finding = FromError(finding.topic, seen.error());
  }
  findings.push_back(std::move(finding));
  findings.insert(findings.end(), of_models.begin(), of_models.end());
}

void ExamineLeftovers(const RecoverOutcome& outcome, Findings& findings) {
  for (const Leftover& leftover : outcome.leftovers) {
    Finding finding{
        "left behind", Verdict::kNote,
        fmt::format("{} ({})", EscapeControl(leftover.path), FormatBytes(Bytes(leftover.bytes))),
        "`mergepipe recover` tells what it is, and clears it away"};
    if (!leftover.kept.empty()) {
      finding.text += ": " + EscapeControl(leftover.kept);
      finding.remedy.clear();
    }
    findings.push_back(std::move(finding));
  }
  if (outcome.found == Found::kWhole && !outcome.added_runs.empty()) {
    findings.push_back({"runs", Verdict::kNote,
                        fmt::format("{} of the run folders are not in the catalog: {}",
                                    outcome.added_runs.size(), JoinNames(outcome.added_runs)),
                        "`mergepipe recover --yes` adds them"});
  }
}

}  // namespace

void ExamineRecords(FileSystem& files, const DoctorOptions& options, Findings& findings) {
  RecoverOptions look{options.catalog, options.runs_directory};
  look.directories = {"."};  // merges without --out elsewhere leave things here
  if (!options.output.empty()) {
    const auto parent = files.Stat(ParentPath(AbsolutePath(options.output)));
    if (parent && parent->kind == FileKind::kDirectory) look.outputs = {options.output};
  }
  const auto outcome = RecoverCatalog(files, look);
  if (!outcome) {
    findings.push_back(FromError("catalog " + EscapeControl(options.catalog), outcome.error()));
    return;
  }
  ExamineCatalog(files, options, *outcome, findings);
  ExamineLeftovers(*outcome, findings);
}

}  // namespace mergepipe
