#include "exec/message_codec.h"
#include "mergepipe/exec/scan.h"

namespace mergepipe {

template <typename Codec>
void Fields(Codec& codec, ScanPart& part) {
  codec(part.tensor, part.name, part.elements, part.base, part.experts, part.blocks,
        part.wants_base);
}

template <typename Codec>
void Fields(Codec& codec, ScanSlice& slice) {
  codec(slice.block_size, slice.probe, slice.allow_nonfinite, slice.base_files, slice.expert_files,
        slice.expert_ids, slice.parts, slice.expert_share);
}

template <typename Codec>
void Fields(Codec& codec, BlockStatistics& block) {
  codec(block.sum_squares, block.max_abs, block.nonzeros, block.sketch, block.hash);
}

template <typename Codec>
void Fields(Codec& codec, BaseBlockStatistics& block) {
  codec(block.sum_squares, block.hash);
}

template <typename Codec>
void Fields(Codec& codec, ScanPartReport& part) {
  codec(part.tensor, part.base, part.experts);
}

template <typename Codec>
void Fields(Codec& codec, ScanReport& report) {
  codec(report.rank, report.host, report.expert_bytes_read, report.base_bytes_read, report.parts);
}

namespace {

constexpr uint32_t kSliceTag = 0x4c534353;
constexpr uint32_t kReportTag = 0x50524353;

}  // namespace

std::string SerializeScanSlice(const ScanSlice& slice) { return ToBytes(slice, kSliceTag); }
Result<ScanSlice> ParseScanSlice(const std::string& bytes) {
  return FromBytes<ScanSlice>(bytes, kSliceTag, "scan slice");
}
std::string SerializeScanReport(const ScanReport& report) { return ToBytes(report, kReportTag); }
Result<ScanReport> ParseScanReport(const std::string& bytes) {
  return FromBytes<ScanReport>(bytes, kReportTag, "scan report");
}

}  // namespace mergepipe
