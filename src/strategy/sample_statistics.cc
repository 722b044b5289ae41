#include "strategy/sample_statistics.h"

#include <cassert>

#include "strategy/number_codec.h"

namespace mergepipe {
namespace {

constexpr uint64_t kTag = 3;
constexpr size_t kMagnitudeBytes = 4;

void PutMagnitude(uint32_t magnitude, std::string& out) {
  for (size_t i = 0; i < kMagnitudeBytes; ++i) out += static_cast<char>(magnitude >> (8 * i));
}

uint32_t MagnitudeAt(std::string_view bytes, size_t at) {
  uint32_t magnitude = 0;
  for (size_t i = 0; i < kMagnitudeBytes; ++i) {
    magnitude |= uint32_t{static_cast<unsigned char>(bytes[at + i])} << (8 * i);
  }
  return magnitude;
}

}  // namespace

void SampleStatistics::Expert::DropIfLong() {
  if (sample.size() <= kLargestSample) return;
  dropped = true;
  sample = {};
}

bool SampleStatistics::Take(uint64_t limit, std::string_view& bytes, Expert& expert) {
  const auto seen = TakeNumber(bytes);
  const auto length = TakeNumber(bytes);
  if (!seen || !length || *seen > limit) return false;
  expert.seen = *seen;
  expert.dropped = *length == kLargestSample + 1;
  if (*length > *seen) return false;
  if (expert.dropped) return true;
  if (*length > kLargestSample || *length > bytes.size() / kMagnitudeBytes) return false;
  expert.sample.reserve(*length);
  for (size_t i = 0; i < *length; ++i) {
    expert.sample.push_back(MagnitudeAt(bytes, i * kMagnitudeBytes));
    if (expert.sample.back() > kLargestMagnitude) return false;
  }
  bytes.remove_prefix(*length * kMagnitudeBytes);
  return true;
}

Result<std::unique_ptr<TensorStatistics>> SampleStatistics::Parse(std::span<const uint64_t> limits,
                                                                  std::string_view bytes) {
  auto statistics = std::make_unique<SampleStatistics>(limits.size());
  bool valid = TakeExactly(kTag, bytes) && TakeExactly(limits.size(), bytes);
  for (size_t expert = 0; valid && expert < limits.size(); ++expert) {
    valid = Take(limits[expert], bytes, statistics->experts_[expert]);
  }
  if (!valid || !bytes.empty()) {
    return Fail(ErrorKind::kInternal, "ties", "malformed magnitude sample from another rank");
  }
  return statistics;
}

void SampleStatistics::Append(const TensorStatistics& next) {
  const auto& other = static_cast<const SampleStatistics&>(next);
  assert(other.experts_.size() == experts_.size());
  for (size_t k = 0; k < experts_.size(); ++k) {
    Expert& to = experts_[k];
    const Expert& from = other.experts_[k];
    to.seen += from.seen;
    to.dropped = to.dropped || from.dropped;
    if (to.dropped) {
      to.sample = {};
    } else {
      to.sample.insert(to.sample.end(), from.sample.begin(), from.sample.end());
      to.DropIfLong();
    }
  }
}

std::string SampleStatistics::Serialize() const {
  std::string out;
  PutNumber(kTag, out);
  PutNumber(experts_.size(), out);
  for (const Expert& expert : experts_) {
    PutNumber(expert.seen, out);
    PutNumber(expert.dropped ? kLargestSample + 1 : expert.sample.size(), out);
    for (const uint32_t magnitude : expert.sample) PutMagnitude(magnitude, out);
  }
  return out;
}

void SampleStatistics::Observe(const SamplePlan& plan, const BlockDeltas& block, size_t slot) {
  Expert& expert = experts_[block.experts()[slot].value];
  expert.seen += block.size();
  if (expert.dropped) return;
  plan.Take(block, slot, 0, expert.sample);
  expert.DropIfLong();
}

}  // namespace mergepipe
