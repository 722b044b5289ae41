#include "exec/job_observer.h"

#include <algorithm>

namespace mergepipe {

size_t JobObserver::StartRound(size_t shares) {
  const size_t units = job_.end - job_.begin;
  shares_.clear();
  shares_.resize(std::min(shares, units));
  for (auto& share : shares_) share = tensor_->NewStatistics();
  shares_left_ = shares_.size();
  return shares_.size();
}

std::pair<size_t, size_t> JobObserver::UnitsOf(size_t share) const {
  const size_t units = job_.end - job_.begin;
  return {job_.begin + units * share / shares_.size(),
          job_.begin + units * (share + 1) / shares_.size()};
}

void JobObserver::Observe(size_t share, size_t unit, const UnitData& data) {
  for (const UnitPiece& piece : work_.units[unit].pieces)
    ObservePiece(slice_, piece, data, *tensor_, *shares_[share]);
}

bool JobObserver::EndShare() {
  const std::lock_guard lock(mutex_);
  return --shares_left_ == 0;
}

std::unique_ptr<TensorStatistics> JobObserver::TakeSum() {
  if (shares_.empty()) return tensor_->NewStatistics();
  std::unique_ptr<TensorStatistics> sum = std::move(shares_.front());
  for (size_t share = 1; share < shares_.size(); ++share) sum->Append(*shares_[share]);
  shares_.clear();
  return sum;
}

void ObservePiece(const Slice& slice, const UnitPiece& piece, const UnitData& data,
                  const TensorMerge& tensor, TensorStatistics& statistics) {
  const TensorPart& part = slice.parts[piece.part];
  for (size_t i = 0; i < piece.blocks.size(); ++i) {
    if (!part.touched.Contains(BlockIndex(piece.blocks[i]))) continue;
    tensor.Observe(DeltasOf(slice, piece, i, data), statistics);
  }
}

Status ObserveWholePart(const Slice& slice, const UnitPiece& piece, const UnitData& data,
                        TensorMerge& tensor) {
  while (tensor.WantsRound()) {
    const auto statistics = tensor.NewStatistics();
    ObservePiece(slice, piece, data, tensor, *statistics);
    MERGEPIPE_RETURN_IF_ERROR(tensor.Finish(*statistics));
  }
  return {};
}

}  // namespace mergepipe
