#pragma once

namespace mergepipe {

/// The program: parses the command line, runs one subcommand, renders its result, and returns the
/// exit code (cli/exit_code.h).
int Main(int argc, char** argv);

}  // namespace mergepipe
