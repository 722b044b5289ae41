#include <cereal/archives/portable_binary.hpp>
#include <cereal/types/string.hpp>
#include <cereal/types/vector.hpp>
#include <exception>
#include <sstream>

#include "mergepipe/exec/report.h"
#include "mergepipe/exec/slice.h"

namespace mergepipe {

template <class Archive>
void serialize(Archive& ar, Hash128& hash) {
  ar(hash.high, hash.low);
}

template <class Archive>
void serialize(Archive& ar, StrategyOptions& o) {
  ar(o.name, o.density, o.weights, o.lambda, o.seed, o.normalize, o.trim_by_block);
}

template <class Archive>
void serialize(Archive& ar, SourceFile& file) {
  ar(file.path, file.size, file.mtime_ns, file.data_begin);
}

template <class Archive>
void serialize(Archive& ar, SourceTensor& tensor) {
  ar(tensor.present, tensor.dtype, tensor.file, tensor.offset);
}

template <class Archive>
void serialize(Archive& ar, TensorPart& part) {
  ar(part.tensor, part.name, part.elements, part.begin, part.end, part.merge, part.compare,
     part.reads, part.base, part.out_dtype, part.out_file, part.out_offset, part.experts,
     part.selected, part.selected_elements, part.first_rank, part.last_rank, part.shared_ordinal);
}

template <class Archive>
void serialize(Archive& ar, Slice& slice) {
  ar(slice.block_size, slice.strategy, slice.allow_nonfinite, slice.base_files, slice.expert_files,
     slice.expert_ids, slice.output_files, slice.parts, slice.merge_share, slice.compare_share);
}

template <class Archive>
void serialize(Archive& ar, NonFiniteCount& count) {
  ar(count.nan, count.inf);
}

template <class Archive>
void serialize(Archive& ar, PartReport& part) {
  ar(part.tensor, part.begin, part.block_hashes, part.base_hashes, part.read_hashes, part.inputs,
     part.made, part.differs);
}

template <class Archive>
void serialize(Archive& ar, SliceReport& report) {
  ar(report.rank, report.host, report.expert_bytes_read, report.compare_bytes_read,
     report.base_bytes_read, report.output_bytes_written, report.copied_bytes, report.merge_seconds,
     report.sync_seconds, report.peak_memory_bytes, report.threads, report.parts);
}

namespace {

// Portable: the ranks of a job may run on machines of different byte order.
// The first four bytes say what follows.
constexpr uint32_t kSliceTag = 0x43494c53;
constexpr uint32_t kReportTag = 0x54504552;

template <typename T>
std::string ToBytes(const T& value, uint32_t tag) {
  std::ostringstream out;
  {
    cereal::PortableBinaryOutputArchive archive(out);
    archive(tag, value);
  }
  return std::move(out).str();
}

template <typename T>
Result<T> FromBytes(const std::string& bytes, uint32_t tag, const char* what) {
  try {
    std::istringstream in(bytes);
    cereal::PortableBinaryInputArchive archive(in);
    uint32_t found = 0;
    archive(found);
    T value;
    if (found == tag) archive(value);
    if (found == tag && in.peek() == std::istringstream::traits_type::eof()) return value;
  } catch (const std::exception&) {
  }
  return Fail(ErrorKind::kInternal, what, "arrived damaged from another rank",
              "check that all ranks run the same build");
}

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
