#include <fmt/format.h>

#include <string>
#include <vector>

#include "mergepipe/base/nearest_name.h"
#include "mergepipe/base/text.h"
#include "strategy/rows.h"

namespace mergepipe {

std::span<const StrategyRow> StrategyTable() {
  static const StrategyRow kTable[] = {kTiesRow, kAvgRow, kDareRow};
  return kTable;
}

Result<const StrategyRow*> FindStrategy(std::string_view name) {
  std::vector<std::string> known;
  for (const StrategyRow& row : StrategyTable()) {
    if (row.name == name) return &row;
    known.emplace_back(row.name);
  }
  const auto nearest = NearestName(name, known);
  return Fail(ErrorKind::kUsage, "--strategy", fmt::format("there is no strategy {}", Quote(name)),
              (nearest ? fmt::format("did you mean {}? ", Quote(*nearest)) : "") +
                  fmt::format("known are {}", JoinNames(known)));
}

}  // namespace mergepipe
