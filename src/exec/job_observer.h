#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "exec/unit_data.h"
#include "exec/work_units.h"

namespace mergepipe {

/// One job between its first look and its making: its strategy's tensor, and the round at hand.
/// Shares of a round are consecutive units, and their statistics are appended in block order.
class JobObserver {
 public:
  JobObserver(const Slice& slice, const WorkUnits& work, size_t job,
              std::unique_ptr<TensorMerge> tensor)
      : slice_(slice), work_(work), job_(work.jobs[job]), tensor_(std::move(tensor)) {}

  const TensorMerge& tensor() const { return *tensor_; }
  const TensorPart& part() const { return slice_.parts[job_.part]; }
  bool WantsRound() const { return tensor_->WantsRound(); }

  /// Begins a round in at most `shares` shares; returns how many there are. None: the job has no
  /// units, and TakeSum gives what it saw of nothing.
  size_t StartRound(size_t shares);
  /// The units of a share.
  std::pair<size_t, size_t> UnitsOf(size_t share) const;
  /// Adds a unit that is in memory to its share's statistics. Units of a share come in order.
  void Observe(size_t share, size_t unit, const UnitData& data);
  /// A share has seen all its units. True for the last one of the round.
  bool EndShare();

  /// What all shares saw.
  std::unique_ptr<TensorStatistics> TakeSum();
  Status Finish(const TensorStatistics& statistics) { return tensor_->Finish(statistics); }

 private:
  const Slice& slice_;
  const WorkUnits& work_;
  const ObserveJob& job_;
  std::unique_ptr<TensorMerge> tensor_;
  std::vector<std::unique_ptr<TensorStatistics>> shares_;
  std::mutex mutex_;
  size_t shares_left_ = 0;
};

/// Observes the touched blocks of one piece.
void ObservePiece(const Slice& slice, const UnitPiece& piece, const UnitData& data,
                  const TensorMerge& tensor, TensorStatistics& statistics);

/// All rounds of a part that lies in one unit.
Status ObserveWholePart(const Slice& slice, const UnitPiece& piece, const UnitData& data,
                        TensorMerge& tensor);

}  // namespace mergepipe
