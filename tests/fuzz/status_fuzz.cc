#include <cstdint>
#include <cstdlib>

#include "comm/mpi_communicator.h"

// Any bytes are a rank's status, or give an internal error; it is the same after it was written and
// read again.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using mergepipe::Status;
  const Status status =
      mergepipe::ParseStatus(std::string(reinterpret_cast<const char*>(data), size));
  const Status again = mergepipe::ParseStatus(mergepipe::SerializeStatus(status));
  if (status.has_value() != again.has_value()) std::abort();
  if (!status && (status.error().kind() != again.error().kind() ||
                  status.error().ToString() != again.error().ToString())) {
    std::abort();
  }
  return 0;
}
