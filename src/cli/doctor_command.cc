#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/exit_code.h"
#include "cli/merge_arguments.h"
#include "cli/render.h"
#include "mergepipe/run/build.h"
#include "mergepipe/run/doctor.h"

namespace mergepipe {
namespace {

const char* Name(Verdict verdict) {
  switch (verdict) {
    case Verdict::kOk: return "ok";
    case Verdict::kNote: return "note";
    case Verdict::kProblem: break;
  }
  return "problem";
}

std::string RenderFindings(const std::vector<Finding>& findings) {
  std::string text;
  for (const Finding& finding : findings) {
    text += fmt::format("{:<8} {}: {}{}{}\n", Name(finding.verdict), finding.topic, finding.text,
                        finding.remedy.empty() ? "" : "; ", finding.remedy);
  }
  return text;
}

std::string RenderFindingsJson(const std::vector<Finding>& findings, const Status& problems) {
  nlohmann::json list = nlohmann::json::array();
  for (const Finding& finding : findings) {
    list.push_back({{"topic", finding.topic},
                    {"verdict", Name(finding.verdict)},
                    {"text", finding.text},
                    {"remedy", finding.remedy}});
  }
  const BuildInfo& build = ThisBuild();
  nlohmann::json libraries = nlohmann::json::object();
  for (const Library& library : build.libraries) libraries[library.name] = library.version;
  const ExitCode code = problems ? ExitCode::kDone : ExitCodeOf(problems.error().kind());
  const nlohmann::json json = {{"schema", "mergepipe.doctor/1"},
                               {"version", build.version},
                               {"commit", build.commit},
                               {"compiler", build.compiler},
                               {"build_type", build.build_type},
                               {"simd", build.simd},
                               {"libraries", std::move(libraries)},
                               {"findings", std::move(list)},
                               {"exit_code", static_cast<int>(code)}};
  return json.dump(1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

struct DoctorCommand {
  DoctorOptions options;
  bool json = false;

  Status Run(CommandContext& context) const {
    MERGEPIPE_ASSIGN_OR_RETURN(const auto findings,
                               Examine(*context.files, *context.communicator, options));
    const Status problems = ProblemsOf(findings);  // none but on rank 0
    if (context.communicator->is_root())
      Print(json ? RenderFindingsJson(findings, problems) : RenderFindings(findings));
    return context.communicator->Agree(problems);
  }
};

}  // namespace

RunCommand AddDoctor(CLI::App& app) {
  const auto command = std::make_shared<DoctorCommand>();
  DoctorOptions& options = command->options;
  app.add_option("paths", options.inputs, "models (or directories) that a merge is to read");
  app.add_option("--out", options.output, "output directory that a merge is to make");
  app.add_flag("--json", command->json, "machine-readable");
  AddCatalogOption(app, options.catalog);
  AddRunsOption(app, options.runs_directory);
  app.footer("Exits with 0, or with what a merge would fail with if there is a problem.");
  return [command](CommandContext& context) { return command->Run(context); };
}

}  // namespace mergepipe
