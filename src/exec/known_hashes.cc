#include "exec/known_hashes.h"

#include "mergepipe/base/text.h"

namespace mergepipe {
namespace {

Status OtherBlock(const std::string& model, const TensorPart& part, uint64_t block) {
  return Fail(ErrorKind::kBadInput,
              model + ": tensor " + Quote(part.name) + ", block " + std::to_string(block),
              "is not what was analyzed: the file changed in place",
              "restore it, or run `mergepipe analyze --force`");
}

Status CheckBase(const Slice& slice, const TensorPart& part, const PartReport& report) {
  if (part.known_base_hashes.empty()) return {};
  size_t read = 0;
  for (uint64_t block = part.begin; block < part.end && read < report.base_hashes.size(); ++block) {
    if (slice.form == OutputForm::kSparse && !part.touched.Contains(BlockIndex(block))) continue;
    const Hash128& known = part.known_base_hashes[block - part.begin];
    if (report.base_hashes[read++] != known && known != Hash128())
      return OtherBlock("base", part, block);
  }
  return {};
}

Status CheckExpert(const Slice& slice, const TensorPart& part, size_t expert,
                   const std::vector<Hash128>& read_hashes) {
  size_t read = 0;
  for (uint64_t block = part.begin; block < part.end && read < read_hashes.size(); ++block) {
    if (!part.selected[expert].Contains(BlockIndex(block))) continue;
    if (read_hashes[read] != part.known_hashes[expert][read])
      return OtherBlock("expert " + Quote(slice.expert_ids[expert]), part, block);
    ++read;
  }
  return {};
}

}  // namespace

Status CheckKnownHashes(const Slice& slice, const TensorPart& part, const PartReport& report) {
  MERGEPIPE_RETURN_IF_ERROR(CheckBase(slice, part, report));
  for (size_t k = 0; k < part.known_hashes.size(); ++k) {
    if (part.known_hashes[k].empty()) continue;
    MERGEPIPE_RETURN_IF_ERROR(CheckExpert(slice, part, k, report.read_hashes[k]));
  }
  return {};
}

}  // namespace mergepipe
