#include "run/earlier_work.h"

#include <algorithm>
#include <iterator>

namespace mergepipe {
namespace {

BlockIndex EndOf(const PartReport& report) {
  return BlockIndex(report.begin + report.block_hashes.size());
}

bool Precedes(const PartReport& a, const PartReport& b) {
  return a.tensor != b.tensor ? a.tensor < b.tensor : a.begin < b.begin;
}

class Settler {
 public:
  Settler(const Plan& plan, OutputForm form, size_t experts) : plan_(plan), experts_(experts) {
    for (const PlannedTensor& tensor : plan.tensors) {
      work_.done.emplace_back(tensor.Blocks(plan.options.block_size));
      unwanted_.push_back(form == OutputForm::kFull
                              ? 0
                              : work_.done.back().size() -
                                    tensor.Touched(plan.options.block_size).Count());
    }
    work_.conclusions.resize(plan.tensors.size());
  }

  void Add(FinishedUnit unit) {
    for (size_t i = 0; i < unit.reports.size(); ++i) {
      if (Fits(unit.reports[i])) {
        Mark(unit.reports[i], &BlockSet::Add);
        continue;
      }
      for (size_t taken = 0; taken < i; ++taken) Mark(unit.reports[taken], &BlockSet::Remove);
      return;
    }
    units_.push_back(std::move(unit));
  }

  void Add(FinishedRounds rounds) {
    if (rounds.tensor >= plan_.tensors.size()) return;
    work_.conclusions[rounds.tensor] = std::move(rounds.conclusion);
    work_.moved.merged += rounds.merged;
  }

  // Blocks that need no rounds may be done before the rounds of their tensor are over: then they
  // would lie between those that must be observed together. A unit goes as a whole, and may leave
  // other tensors unfinished.
  void DropUnconcluded() {
    for (bool dropped = true; dropped;) {
      const std::vector<bool> unconcluded = Unconcluded();
      const size_t before = units_.size();
      std::erase_if(units_, [&](const FinishedUnit& unit) {
        const bool drop = std::ranges::any_of(
            unit.reports, [&](const PartReport& report) { return unconcluded[report.tensor]; });
        if (drop)
          for (const PartReport& report : unit.reports) Mark(report, &BlockSet::Remove);
        return drop;
      });
      dropped = units_.size() < before;
    }
  }

  EarlierWork Take(uint64_t begun_bytes) {
    for (FinishedUnit& unit : units_) {
      std::ranges::move(unit.reports, std::back_inserter(work_.reports));
      work_.moved += unit.moved;
    }
    std::ranges::sort(work_.reports, Precedes);
    for (uint32_t t = 0; t < plan_.tensors.size(); ++t) {
      if (!work_.done[t].Empty() && Complete(t))
        work_.done[t] = BlockSet::All(work_.done[t].size());
    }
    const uint64_t kept = work_.moved.merged + work_.moved.compared;
    work_.lost_bytes = begun_bytes > kept ? begun_bytes - kept : 0;
    return std::move(work_);
  }

 private:
  bool Fits(const PartReport& report) const {
    if (report.tensor >= plan_.tensors.size()) return false;
    const PlannedTensor& tensor = plan_.tensors[report.tensor];
    const BlockSet& done = work_.done[report.tensor];
    if (report.block_hashes.empty() || report.begin > done.size() ||
        report.block_hashes.size() > done.size() - report.begin ||
        report.base_hashes.size() != report.block_hashes.size() ||
        report.read_hashes.size() != experts_ || report.inputs.size() != experts_ + 1 ||
        report.differs.size() != experts_)
      return false;
    for (size_t k = 0; k < experts_; ++k) {
      const BlockSet read = tensor.selected[k].Within(BlockIndex(report.begin), EndOf(report));
      if (report.read_hashes[k].size() != read.Count()) return false;
    }
    if (unwanted_[report.tensor] > 0 && tensor.Touched(plan_.options.block_size)
                                                .Within(BlockIndex(report.begin), EndOf(report))
                                                .Count() != report.block_hashes.size())
      return false;
    return done.Within(BlockIndex(report.begin), EndOf(report)).Empty();
  }

  void Mark(const PartReport& report, void (BlockSet::*mark)(BlockIndex)) {
    for (uint64_t block = report.begin; block < EndOf(report).value; ++block)
      (work_.done[report.tensor].*mark)(BlockIndex(block));
  }

  static bool NeedsRounds(const PlannedTensor& tensor) {
    return tensor.rule == TensorRule::kMerge &&
           std::ranges::any_of(tensor.selected, [](const BlockSet& set) { return !set.Empty(); });
  }

  bool Complete(uint32_t tensor) const {
    return work_.done[tensor].Count() + unwanted_[tensor] == work_.done[tensor].size();
  }

  std::vector<bool> Unconcluded() const {
    std::vector<bool> unconcluded(plan_.tensors.size());
    for (uint32_t t = 0; t < unconcluded.size(); ++t) {
      unconcluded[t] =
          NeedsRounds(plan_.tensors[t]) && work_.conclusions[t].empty() && !Complete(t);
    }
    return unconcluded;
  }

  const Plan& plan_;
  size_t experts_;
  std::vector<uint64_t> unwanted_;  // by tensor: blocks that the output does not hold
  std::vector<FinishedUnit> units_;
  EarlierWork work_;
};

}  // namespace

std::span<const PartReport> EarlierWork::ReportsIn(const TensorRange& range) const {
  const auto at = [&](BlockIndex block) {
    PartReport key;
    key.tensor = range.tensor;
    key.begin = block.value;
    return std::ranges::lower_bound(reports, key, Precedes);
  };
  return {at(range.begin), at(range.end)};
}

EarlierWork SettleEarlierWork(const Plan& plan, OutputForm form, JournalContents contents,
                              bool observes, size_t experts) {
  Settler settler(plan, form, experts);
  for (FinishedRounds& rounds : contents.rounds) settler.Add(std::move(rounds));
  for (FinishedUnit& unit : contents.units) settler.Add(std::move(unit));
  if (observes) settler.DropUnconcluded();
  return settler.Take(contents.begun_bytes);
}

}  // namespace mergepipe
