#include <cstdint>

#include "mergepipe/exec/report.h"
#include "mergepipe/exec/slice.h"
#include "message_check.h"

// Any bytes are a slice or the report of one, or are refused.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  mergepipe::fuzz::CheckMessage(bytes, mergepipe::ParseSlice, mergepipe::SerializeSlice);
  mergepipe::fuzz::CheckMessage(bytes, mergepipe::ParseReport, mergepipe::SerializeReport);
  return 0;
}
