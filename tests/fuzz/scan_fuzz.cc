#include <cstdint>

#include "mergepipe/exec/scan.h"
#include "message_check.h"

// Any bytes are a scan's slice or the report of one, or are refused.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  mergepipe::fuzz::CheckMessage(bytes, mergepipe::ParseScanSlice, mergepipe::SerializeScanSlice);
  mergepipe::fuzz::CheckMessage(bytes, mergepipe::ParseScanReport, mergepipe::SerializeScanReport);
  return 0;
}
