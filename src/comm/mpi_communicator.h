#pragma once

#include <memory>
#include <string>

#include "mergepipe/comm/communicator.h"

namespace mergepipe {

/// Boost.MPI's world communicator behind the interface. Every call that fails aborts the job
/// (Boost.MPI throws; the exception stops here).
std::unique_ptr<Communicator> MpiCommunicator();

/// The error of a rank as bytes for the other ranks, and back.
std::string SerializeStatus(const Status& status);
Status ParseStatus(const std::string& bytes);

}  // namespace mergepipe
