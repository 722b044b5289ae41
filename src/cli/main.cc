#include "mergepipe/cli/main.h"

#include <sys/resource.h>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <new>
#include <optional>
#include <set>

#include "cli/command.h"
#include "cli/exit_code.h"
#include "cli/render.h"
#include "mergepipe/base/log.h"
#include "mergepipe/base/nearest_name.h"
#include "mergepipe/base/text.h"
#include "mergepipe/io/file.h"

namespace mergepipe {
namespace {

int ToInt(ExitCode code) { return static_cast<int>(code); }

// One line a problem. Every rank knows the error that was agreed on; rank 0 speaks.
int Report(const Error& error, int rank) {
  if (rank == 0) {
    for (const Problem& problem : error.problems()) {
      std::fprintf(stderr, "mergepipe: error: %s\n", problem.ToLine().c_str());
    }
  }
  return ToInt(ExitCodeOf(error.kind()));
}

// A mistake in the command line or in how ranks were started, before they talk. The other ranks end
// quietly: a launcher that sees one of them fail first would end rank 0 before it has spoken.
int ReportUsage(const Error& error, int rank) { return rank == 0 ? Report(error, rank) : 0; }

// The parsed command line.
struct Invocation {
  const CommandRow* row = nullptr;
  RunCommand run;
};

class Parser {
 public:
  Parser()
      : app_("mergepipe: merges LLM checkpoints under a budget of expert reads.", "mergepipe") {
    app_.footer(kExitCodeHelp);
    app_.set_config(
        "--config", "",
        "read options from an INI or TOML file; a section for each command, as [merge]");
    app_.allow_config_extras(CLI::config_extras_mode::error);
    app_.require_subcommand(1);
    app_.add_flag("-q,--quiet", quiet_, "no warnings");
    app_.add_flag("-v,--verbose", verbose_, "more messages");
    app_.set_version_flag(  // after -v, whose value it takes
        "--version", [this] { return RenderVersion(verbose_); },
        "print the version (with -v: of all libraries, too) and exit");
    for (const CommandRow& row : CommandTable()) {
      CLI::App* command = app_.add_subcommand(row.name, row.help);
      command->fallthrough();
      command->get_formatter()->column_width(34);
      commands_.push_back({&row, command, row.add(*command)});
    }
  }

  // Exits by value: an exit code if there is nothing to run.
  std::optional<int> Parse(std::vector<std::string> arguments, int rank) {
    try {
      std::reverse(arguments.begin(), arguments.end());
      app_.parse(arguments);
      return std::nullopt;
    } catch (const CLI::Success& success) {
      return rank == 0 ? app_.exit(success) : 0;
    } catch (const CLI::ParseError& error) {
      return ReportUsage(
          Error(ErrorKind::kUsage, "command line", error.what(), "see " + HelpCommand()), rank);
    }
  }

  Invocation Chosen() const {
    for (const Row& command : commands_) {
      if (command.app->parsed()) return {command.row, command.run};
    }
    return {};
  }

  LogLevel Level() const {
    if (quiet_) return LogLevel::kQuiet;
    return verbose_ ? LogLevel::kVerbose : LogLevel::kNormal;
  }

 private:
  struct Row {
    const CommandRow* row;
    CLI::App* app;
    RunCommand run;
  };

  std::string HelpCommand() const {
    const Invocation chosen = Chosen();
    return chosen.row == nullptr ? "mergepipe --help"
                                 : std::string("mergepipe ") + chosen.row->name + " --help";
  }

  CLI::App app_;
  bool quiet_ = false;
  bool verbose_ = false;
  std::vector<Row> commands_;
};

bool IsCommand(const std::string& word) {
  const auto table = CommandTable();
  return std::any_of(table.begin(), table.end(),
                     [&](const CommandRow& row) { return word == row.name; });
}

// `merge` may be left out: a command line that begins with an option of merge, and not with a
// command, is one.
std::vector<std::string> WithDefaultCommand(std::vector<std::string> arguments) {
  if (arguments.empty() || !arguments.front().starts_with("-")) return arguments;
  static const std::set<std::string> kProgramOptions = {
      "-h", "--help", "--version", "-q", "--quiet", "-v", "--verbose", "--config"};
  auto first = arguments.begin();
  while (first != arguments.end() && kProgramOptions.contains(*first)) {
    const bool has_value = *first == "--config";
    ++first;
    if (has_value && first != arguments.end()) ++first;
  }
  if (first != arguments.end() && first->starts_with("-"))
    arguments.insert(arguments.begin(), "merge");
  return arguments;
}

// A first word that is neither an option nor a command.
Status CheckCommandWord(const std::vector<std::string>& arguments) {
  if (arguments.empty() || arguments.front().starts_with("-") || IsCommand(arguments.front()))
    return {};
  std::vector<std::string> names;
  for (const CommandRow& row : CommandTable()) names.emplace_back(row.name);
  const auto nearest = NearestName(arguments.front(), names);
  return Fail(ErrorKind::kUsage, "command line", "there is no command " + Quote(arguments.front()),
              nearest ? "did you mean " + Quote(*nearest) + "?" : "see mergepipe --help");
}

// Every shard of every input stays open; the usual soft limit of 1024 is not enough for large
// models.
void RaiseOpenFileLimit() {
  struct rlimit limit {};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= limit.rlim_max) return;
  limit.rlim_cur = limit.rlim_max;
  static_cast<void>(
      ::setrlimit(RLIMIT_NOFILE, &limit));  // if not, opening a file says what is wrong
}

int RunOnAllRanks(const Invocation& invocation, CommandContext& context, int rank) {
  auto session = CommSession::Start();
  if (!session) {
    return session.error().kind() == ErrorKind::kUsage ? ReportUsage(session.error(), rank)
                                                       : Report(session.error(), rank);
  }
  context.communicator = &(*session)->communicator();
  try {
    const Status status = invocation.run(context);
    return status ? 0 : Report(status.error(), rank);
  } catch (const std::bad_alloc&) {
    std::fprintf(
        stderr, "mergepipe: error: rank %d: memory: there is not enough of it; lower --memory-mb\n",
        rank);
    context.communicator->Abort(ToInt(ExitCode::kNoSpace));
  } catch (const std::exception& e) {
    std::fprintf(stderr,
                 "mergepipe: error: rank %d: internal error: %s; please report this defect\n", rank,
                 e.what());
    context.communicator->Abort(ToInt(ExitCode::kInternal));
  }
  return ToInt(ExitCode::kInternal);  // not reached: Abort ends the process
}

int RunAlone(const Invocation& invocation, CommandContext& context, int rank) {
  if (rank != 0) return 0;
  try {
    const Status status = invocation.run(context);
    return status ? 0 : Report(status.error(), rank);
  } catch (const std::bad_alloc&) {
    return Report(Error(ErrorKind::kNoSpace, "memory", "there is not enough of it"), rank);
  } catch (const std::exception& e) {
    return Report(
        Error(ErrorKind::kInternal, "internal error", e.what(), "please report this defect"), rank);
  }
}

}  // namespace

int Main(int argc, char** argv) {
  const int rank = DetectLauncher().rank;
  CommandContext context;
  context.files = &PosixFileSystem();
  context.command_line.assign(argv, argv + argc);

  const std::vector<std::string> arguments = WithDefaultCommand({argv + 1, argv + argc});
  if (const Status word = CheckCommandWord(arguments); !word)
    return ReportUsage(word.error(), rank);
  Parser parser;
  const auto exit_code = parser.Parse(arguments, rank);
  if (exit_code) return *exit_code;
  StartLog(parser.Level(), rank);
  RaiseOpenFileLimit();
  const Invocation invocation = parser.Chosen();
  const int code = invocation.row->on_all_ranks ? RunOnAllRanks(invocation, context, rank)
                                                : RunAlone(invocation, context, rank);
  // What was printed must have arrived: a full disk behind stdout is not a success.
  if (std::fflush(stdout) != 0 && code == 0)
    return Report(Error(ErrorKind::kIo, "stdout", "cannot write the result"), rank);
  return code;
}

}  // namespace mergepipe
