#include "strategy/block_local.h"

namespace mergepipe {
namespace {

class EmptyStatistics : public TensorStatistics {
 public:
  void Append(const TensorStatistics&) override {}
  std::string Serialize() const override { return {}; }
};

}  // namespace

std::unique_ptr<TensorStatistics> BlockLocalMerge::NewStatistics() const {
  return std::make_unique<EmptyStatistics>();
}

Result<std::unique_ptr<TensorStatistics>> BlockLocalMerge::ParseStatistics(
    std::string_view bytes) const {
  if (!bytes.empty()) {
    return Fail(ErrorKind::kInternal, "strategy", "statistics of a strategy that has none");
  }
  return std::make_unique<EmptyStatistics>();
}

void BlockLocalMerge::Observe(const BlockDeltas&, TensorStatistics&) const {}

Status BlockLocalMerge::Finish(const TensorStatistics&) {
  return Fail(ErrorKind::kInternal, "strategy", "a round of a strategy that has none");
}

Status BlockLocalMerge::Conclude(std::string_view conclusion) {
  if (conclusion.empty()) return {};
  return Fail(ErrorKind::kInternal, "strategy", "the conclusion of a strategy that has no rounds");
}

}  // namespace mergepipe
