#include "exec/part_observer.h"

#include <algorithm>

#include "exec/shared_statistics.h"
#include "mergepipe/kernels/parallel.h"

namespace mergepipe {

Status PartObserver::ObserveChunk(const TensorPart& part, const TensorMerge& tensor, int round,
                                  const Chunk& chunk, TensorStatistics& sum) {
  MERGEPIPE_RETURN_IF_ERROR(inputs_.LoadBase(part, chunk));
  if (!memory_.Holds(part)) MERGEPIPE_RETURN_IF_ERROR(inputs_.LoadExperts(part, chunk));
  // Each thread observes consecutive blocks, and their statistics are appended in block order.
  const uint64_t groups = std::min<uint64_t>(chunk.size(), memory_.groups());
  std::vector<std::unique_ptr<TensorStatistics>> statistics(groups);
  MERGEPIPE_RETURN_IF_ERROR(ParallelFor(groups, threads_, [&](uint64_t g) -> Status {
    statistics[g] = tensor.NewStatistics(round);
    const uint64_t last = chunk.size() * (g + 1) / groups;
    for (uint64_t i = chunk.size() * g / groups; i < last; ++i)
      tensor.Observe(round, inputs_.Deltas(part, chunk, i), *statistics[g]);
    return {};
  }));
  for (const auto& next : statistics) sum.Append(*next);
  return {};
}

Result<PartOutcome> PartObserver::ObserveRound(const TensorPart& part, const TensorMerge& tensor,
                                               int round, TensorStatistics& statistics) {
  if (round == 0 && memory_.Holds(part)) MERGEPIPE_RETURN_IF_ERROR(inputs_.HoldExperts(part));
  return ForEachChunk(communicator_, part, {slice_.block_size, part.elements},
                      memory_.ChunkBlocks(part), PassOver::kTouchedBlocks, [&](const Chunk& chunk) {
                        return ObserveChunk(part, tensor, round, chunk, statistics);
                      });
}

Result<PartOutcome> PartObserver::Observe(const TensorPart& part, TensorMerge& tensor) {
  for (int round = 0; round < strategy_.ObservationRounds(); ++round) {
    auto statistics = tensor.NewStatistics(round);
    Result<PartOutcome> outcome = ObserveRound(part, tensor, round, *statistics);
    const bool done = outcome && *outcome == PartOutcome::kDone;
    if (part.shared()) {
      // The other ranks wait for this one's statistics, also when there are none.
      auto shared = ShareStatistics(communicator_, part, tensor, round,
                                    done ? std::move(statistics) : nullptr);
      if (!done) return outcome;
      if (!shared) {
        const bool more = round + 1 < strategy_.ObservationRounds();
        if (more && communicator_.rank() != Rank(part.first_rank)) {
          static_cast<void>(ShareStatistics(communicator_, part, tensor, round + 1, nullptr));
        }
        return tl::unexpected(shared.error());
      }
      statistics = std::move(*shared);
    }
    if (!done) return outcome;
    if (!statistics) return PartOutcome::kStopped;
    MERGEPIPE_RETURN_IF_ERROR(tensor.Finish(round, *statistics));
  }
  return PartOutcome::kDone;
}

void PartObserver::Refuse(const TensorPart& part) {
  if (!part.shared() || !memory_.Observes(part)) return;
  const auto tensor = strategy_.StartTensor({part.name, part.selected_elements});
  // This rank has an error of its own, or knows of another's.
  static_cast<void>(ShareStatistics(communicator_, part, *tensor, 0, nullptr));
}

}  // namespace mergepipe
