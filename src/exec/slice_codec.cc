#include "exec/report_codec.h"
#include "mergepipe/exec/report.h"
#include "mergepipe/exec/slice.h"

namespace mergepipe {

template <typename Codec>
void Fields(Codec& codec, StrategyOptions& o) {
  codec(o.name, o.density, o.weights, o.lambda, o.seed, o.normalize, o.trim_by_block);
}

template <typename Codec>
void Fields(Codec& codec, TensorPart& part) {
  codec(part.tensor, part.name, part.elements, part.begin, part.end, part.merge, part.compare,
        part.reads, part.base, part.out_dtype, part.out_file, part.out_offset, part.touched,
        part.sparse, part.experts, part.selected, part.selected_elements, part.known_hashes,
        part.known_base_hashes, part.first_rank, part.last_rank, part.shared_ordinal,
        part.conclusion);
}

template <typename Codec>
void Fields(Codec& codec, Slice& slice) {
  codec(slice.block_size, slice.strategy, slice.form, slice.allow_nonfinite, slice.gather_to_root,
        slice.copies_known_blocks, slice.base_files, slice.expert_files, slice.expert_ids,
        slice.sparse_file, slice.output_files, slice.parts, slice.journal, slice.identity,
        slice.merge_share, slice.compare_share);
}

template <typename Codec>
void Fields(Codec& codec, SliceReport& report) {
  codec(report.rank, report.host, report.expert_bytes_read, report.compare_bytes_read,
        report.base_bytes_read, report.output_bytes_written, report.copied_bytes,
        report.merge_seconds, report.sync_seconds, report.read_seconds, report.compute_seconds,
        report.write_seconds, report.transfer_seconds, report.peak_memory_bytes, report.threads,
        report.parts);
}

namespace {

constexpr uint32_t kSliceTag = 0x43494c53;
constexpr uint32_t kReportTag = 0x54504552;

}  // namespace

std::string SerializeSlice(const Slice& slice) { return ToBytes(slice, kSliceTag); }
Result<Slice> ParseSlice(const std::string& bytes) {
  return FromBytes<Slice>(bytes, kSliceTag, "slice");
}
std::string SerializeReport(const SliceReport& report) { return ToBytes(report, kReportTag); }
Result<SliceReport> ParseReport(const std::string& bytes) {
  return FromBytes<SliceReport>(bytes, kReportTag, "report");
}

}  // namespace mergepipe
