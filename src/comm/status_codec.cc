#include <cereal/archives/portable_binary.hpp>
#include <cereal/types/string.hpp>
#include <cereal/types/vector.hpp>
#include <exception>
#include <sstream>
#include <utility>

#include "comm/mpi_communicator.h"

namespace mergepipe {

template <class Archive>
void serialize(Archive& archive, Problem& problem) {
  archive(problem.subject, problem.what, problem.remedy);
}

std::string SerializeStatus(const Status& status) {
  std::ostringstream out;
  {
    cereal::PortableBinaryOutputArchive archive(out);
    const bool ok = status.has_value();
    archive(ok);
    if (!ok) archive(static_cast<int32_t>(status.error().kind()), status.error().problems());
  }
  return std::move(out).str();
}

Status ParseStatus(const std::string& bytes) {
  try {
    std::istringstream in(bytes);
    cereal::PortableBinaryInputArchive archive(in);
    bool ok = false;
    archive(ok);
    if (ok) return {};
    int32_t kind = 0;
    std::vector<Problem> problems;
    archive(kind, problems);
    if (kind >= 0 && kind <= static_cast<int32_t>(ErrorKind::kInternal) && !problems.empty()) {
      return Fail(static_cast<ErrorKind>(kind), std::move(problems));
    }
  } catch (const std::exception& e) {
    return Fail(ErrorKind::kInternal, "MPI",
                std::string("an unreadable status arrived: ") + e.what());
  }
  return Fail(ErrorKind::kInternal, "MPI", "an invalid status arrived");
}

}  // namespace mergepipe
