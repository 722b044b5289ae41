#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "cli/render.h"
#include "mergepipe/base/units.h"

namespace mergepipe {

std::string RenderSweep(const PlanOptions& options, const std::vector<SweepPoint>& points) {
  std::string text = fmt::format("{} {} | scoring {} | top-p {}\n", options.strategy.name,
                                 options.strategy.density, options.scoring, options.top_p);
  text += fmt::format("{:>8} {:>12} {:>12} {:>9} {:>15} {:>12}\n", "percent", "budget", "to read",
                      "energy", "blocks touched", "bound");
  for (const SweepPoint& point : points) {
    if (point.planned_bytes == 0) {
      text += fmt::format("{:>8g} {:>12} {:>12}\n", point.percent,
                          FormatBytes(Bytes(point.budget_bytes)), "too small");
      continue;
    }
    text +=
        fmt::format("{:>8g} {:>12} {:>12} {:>7.1f} % {:>15} {:>12}\n", point.percent,
                    FormatBytes(Bytes(point.budget_bytes)), FormatBytes(Bytes(point.planned_bytes)),
                    100 * point.energy_covered, point.touched_blocks,
                    point.bound ? fmt::format("{:.6g}", point.bound->total) : "-");
  }
  return text;
}

std::string RenderSweepJson(const std::vector<SweepPoint>& points) {
  nlohmann::json list = nlohmann::json::array();
  for (const SweepPoint& point : points) {
    list.push_back({{"percent", point.percent},
                    {"budget_bytes", point.budget_bytes},
                    {"planned_bytes", point.planned_bytes},
                    {"energy_covered", point.energy_covered},
                    {"bound", nullptr},
                    {"touched_blocks", point.touched_blocks}});
    if (point.bound) list.back()["bound"] = point.bound->total;
  }
  return list.dump(1) + "\n";
}

}  // namespace mergepipe
