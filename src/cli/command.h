#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "mergepipe/comm/communicator.h"
#include "mergepipe/io/file.h"

namespace mergepipe {

/// What a command runs with.
struct CommandContext {
  FileSystem* files = nullptr;
  Communicator* communicator = nullptr;  ///< null for commands that touch no weights
  std::vector<std::string> command_line;
};

/// A command whose options are parsed. Its output goes to stdout, on rank 0 only.
using RunCommand = std::function<Status(CommandContext&)>;

/// One row of the table of subcommands.
struct CommandRow {
  const char* name;
  const char* help;
  bool on_all_ranks;  ///< of a launcher: those that touch weights, and `doctor`; the others run on
                      ///< rank 0 only, without MPI
  /// Adds the options to `app` and returns what runs once they are parsed.
  RunCommand (*add)(CLI::App& app);
};

std::span<const CommandRow> CommandTable();

RunCommand AddMerge(CLI::App& app);
RunCommand AddAnalyze(CLI::App& app);
RunCommand AddPlan(CLI::App& app);
RunCommand AddReplay(CLI::App& app);
RunCommand AddMaterialize(CLI::App& app);
RunCommand AddVerify(CLI::App& app);
RunCommand AddExplain(CLI::App& app);
RunCommand AddDiff(CLI::App& app);
RunCommand AddInitDb(CLI::App& app);
RunCommand AddRegister(CLI::App& app);
RunCommand AddModels(CLI::App& app);
RunCommand AddRecover(CLI::App& app);
RunCommand AddDemo(CLI::App& app);
RunCommand AddDoctor(CLI::App& app);

}  // namespace mergepipe
