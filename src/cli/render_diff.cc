#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "cli/render.h"
#include "mergepipe/base/text.h"

namespace mergepipe {
namespace {

std::string Row(const TensorDistance& tensor) {
  return fmt::format("{:<52} {:>12.6g} {:>12.6g} {:>12.6g} {:>9.4f}\n", EscapeControl(tensor.name),
                     tensor.l2, tensor.Relative(), tensor.max_abs, tensor.EqualShare());
}

nlohmann::json ToJson(const TensorDistance& tensor) {
  if (!tensor.note.empty()) return {{"name", tensor.name}, {"note", tensor.note}};
  return {{"name", tensor.name},       {"elements", tensor.elements},
          {"l2", tensor.l2},           {"relative", tensor.Relative()},
          {"max_abs", tensor.max_abs}, {"equal_share", tensor.EqualShare()}};
}

}  // namespace

std::string RenderDiff(const CheckpointDistance& distance, size_t most) {
  if (distance.Equal())
    return fmt::format("equal: {} tensors have the same bits\n", distance.tensors.size());
  std::vector<const TensorDistance*> rows;
  std::string text;
  for (const TensorDistance& tensor : distance.tensors) {
    if (!tensor.note.empty()) {
      text += fmt::format("{}: {}\n", EscapeControl(tensor.name), tensor.note);
    } else if (tensor.equal_elements != tensor.elements) {
      rows.push_back(&tensor);
    }
  }
  std::stable_sort(rows.begin(), rows.end(),
                   [](const TensorDistance* a, const TensorDistance* b) { return a->l2 > b->l2; });
  text += fmt::format("{:<52} {:>12} {:>12} {:>12} {:>9}\n", "tensor", "L2", "relative", "max abs",
                      "equal");
  for (size_t i = 0; i < std::min(rows.size(), most); ++i) text += Row(*rows[i]);
  if (rows.size() > most)
    text += fmt::format("... and {} more tensors that differ (--all)\n", rows.size() - most);
  return text + Row(distance.total);
}

std::string RenderDiffJson(const CheckpointDistance& distance) {
  nlohmann::json tensors = nlohmann::json::array();
  for (const TensorDistance& tensor : distance.tensors) tensors.push_back(ToJson(tensor));
  const nlohmann::json json = {{"equal", distance.Equal()},
                               {"total", ToJson(distance.total)},
                               {"tensors", std::move(tensors)}};
  return json.dump(1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

}  // namespace mergepipe
