#include <cereal/archives/portable_binary.hpp>
#include <cereal/types/string.hpp>
#include <cereal/types/vector.hpp>
#include <exception>
#include <sstream>
#include <stdexcept>
#include <utility>

#include "comm/mpi_communicator.h"

namespace mergepipe {

namespace {

// Reads a length and refuses one that cannot be in `bytes`, before anything is allocated for it.
uint64_t LoadSize(cereal::PortableBinaryInputArchive& archive, const std::string& bytes) {
  cereal::size_type size = 0;
  archive(cereal::make_size_tag(size));
  if (size > bytes.size()) throw std::length_error("a length is over the message's");
  return size;
}

std::string LoadText(cereal::PortableBinaryInputArchive& archive, const std::string& bytes) {
  std::string text(LoadSize(archive, bytes), '\0');
  archive(cereal::binary_data(text.data(), text.size()));
  return text;
}

}  // namespace

template <class Archive>
void save(Archive& archive, const Problem& problem) {
  archive(problem.subject, problem.what, problem.remedy);
}

std::string SerializeStatus(const Status& status) {
  std::ostringstream out;
  {
    cereal::PortableBinaryOutputArchive archive(out);
    const bool ok = status.has_value();
    archive(static_cast<uint8_t>(ok));
    if (!ok) archive(static_cast<int32_t>(status.error().kind()), status.error().problems());
  }
  return std::move(out).str();
}

Status ParseStatus(const std::string& bytes) {
  try {
    std::istringstream in(bytes);
    cereal::PortableBinaryInputArchive archive(in);
    uint8_t ok = 0;  // not a bool: a byte over 1 in one is undefined behaviour
    int32_t kind = 0;
    std::vector<Problem> problems;
    archive(ok);
    if (ok == 0) {
      archive(kind);
      for (uint64_t left = LoadSize(archive, bytes); left > 0; --left) {
        Problem& problem = problems.emplace_back();
        for (std::string* text : {&problem.subject, &problem.what, &problem.remedy}) {
          *text = LoadText(archive, bytes);
        }
      }
    }
    const bool at_end = in.peek() == std::istringstream::traits_type::eof();
    if (at_end && ok == 1) return {};
    if (at_end && ok == 0 && kind >= 0 && kind <= static_cast<int32_t>(ErrorKind::kInternal) &&
        !problems.empty()) {
      return Fail(static_cast<ErrorKind>(kind), std::move(problems));
    }
  } catch (const std::exception& e) {
    return Fail(ErrorKind::kInternal, "MPI",
                std::string("an unreadable status arrived: ") + e.what());
  }
  return Fail(ErrorKind::kInternal, "MPI", "an invalid status arrived");
}

}  // namespace mergepipe
