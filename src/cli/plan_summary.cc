#include "cli/plan_summary.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>

#include "mergepipe/base/text.h"
#include "mergepipe/base/units.h"

namespace mergepipe {
namespace {

constexpr size_t kMaxLayerRows = 16;
constexpr size_t kMaxKindRows = 24;

// A dot-separated part of a name.
struct NamePart {
  size_t begin;
  size_t end;
};

bool IsNumber(const std::string& name, NamePart part) {
  return part.end > part.begin && part.end - part.begin <= 9 &&
         name.find_first_not_of("0123456789", part.begin) >= part.end;
}

// The first part at or after `begin` that is a number.
std::optional<NamePart> FindNumber(const std::string& name, size_t begin) {
  while (begin < name.size()) {
    const NamePart part{begin, std::min(name.find('.', begin), name.size())};
    if (IsNumber(name, part)) return part;
    begin = part.end + 1;
  }
  return std::nullopt;
}

std::optional<uint64_t> LayerOf(const std::string& name) {
  const auto part = FindNumber(name, 0);
  if (!part) return std::nullopt;
  return std::stoull(name.substr(part->begin, part->end - part->begin));
}

// What expert k gives to a tensor.
SummaryRow RowOf(const Plan& plan, const PlannedTensor& tensor, size_t k) {
  SummaryRow row;
  if (!tensor.sources[k].present) return row;
  const uint64_t size = DTypeSize(tensor.sources[k].dtype);
  row.candidate_bytes = tensor.ExpertBytes(k);
  row.read_bytes =
      tensor.ElementsOf(tensor.selected[k], plan.options.block_size) * size * tensor.reads;
  row.energy_known = tensor.energy[k].has_value() || tensor.elements() == 0;
  row.energy = tensor.energy[k].value_or(DeltaEnergy{});
  return row;
}

SummaryRow RowOf(const Plan& plan, const PlannedTensor& tensor) {
  SummaryRow row;
  for (size_t k = 0; k < tensor.sources.size(); ++k) row.Add(RowOf(plan, tensor, k));
  row.tensors = 1;
  row.blocks = tensor.Blocks(plan.options.block_size);
  row.touched = tensor.Touched(plan.options.block_size).Count();
  return row;
}

template <typename Key>
std::map<Key, SummaryRow> GroupBy(const Plan& plan,
                                  const std::function<Key(const PlannedTensor&)>& key_of) {
  std::map<Key, SummaryRow> groups;
  for (const PlannedTensor& tensor : plan.tensors) {
    if (tensor.rule == TensorRule::kMerge) groups[key_of(tensor)].Add(RowOf(plan, tensor));
  }
  return groups;
}

// "0", "1", ... become "0-7", "8-15", ... if there are too many; a last row that is no layer stays.
std::vector<SummaryRow> JoinLayers(std::vector<SummaryRow> rows) {
  if (rows.size() <= kMaxLayerRows) return rows;
  const size_t step = CeilDivide(rows.size(), kMaxLayerRows);
  std::vector<SummaryRow> shorter;
  for (size_t i = 0; i < rows.size(); ++i) {
    const bool joins =
        i % step != 0 && rows[i].name.find_first_not_of("0123456789") == std::string::npos;
    if (!joins) {
      shorter.push_back(rows[i]);
      continue;
    }
    SummaryRow& last = shorter.back();
    const std::string first = last.name.substr(0, last.name.find('-'));
    last.Add(rows[i]);
    last.name = first + "-" + rows[i].name;
  }
  return shorter;
}

// The largest, in their order; the others as a last row.
std::vector<SummaryRow> JoinSmallKinds(std::vector<SummaryRow> rows) {
  if (rows.size() <= kMaxKindRows) return rows;
  std::vector<uint64_t> sizes;
  for (const SummaryRow& row : rows) sizes.push_back(row.candidate_bytes);
  std::sort(sizes.begin(), sizes.end(), std::greater<>());
  const uint64_t smallest = sizes[kMaxKindRows - 2];
  std::vector<SummaryRow> shorter;
  SummaryRow others;
  others.name = "others";
  for (SummaryRow& row : rows) {
    if (row.candidate_bytes >= smallest && shorter.size() < kMaxKindRows - 1) {
      shorter.push_back(std::move(row));
    } else {
      others.Add(row);
    }
  }
  shorter.push_back(std::move(others));
  return shorter;
}

// `heading` is of the first column.
std::string Table(const std::string& heading, const std::string& read_heading,
                  const std::vector<SummaryRow>& rows) {
  const bool of_output =
      std::any_of(rows.begin(), rows.end(), [](const SummaryRow& row) { return row.tensors > 0; });
  std::string text = fmt::format("{:<36} {:>11} {:>11} {:>7} {:>9}", heading, "bytes", read_heading,
                                 "share", "energy");
  text += of_output ? fmt::format(" {:>17}\n", "blocks touched") : "\n";
  for (const SummaryRow& row : rows) {
    text += fmt::format("  {:<34} {:>11} {:>11} {:>5.1f} % {:>9}", EscapeControl(row.name),
                        FormatBytes(Bytes(row.candidate_bytes)), FormatBytes(Bytes(row.read_bytes)),
                        Percent(row.read_bytes, row.candidate_bytes), row.EnergyText());
    text += of_output ? fmt::format(" {:>8} of {:>5}\n", row.touched, row.blocks) : "\n";
  }
  return text;
}

nlohmann::json RowsToJson(const std::vector<SummaryRow>& rows) {
  nlohmann::json json = nlohmann::json::array();
  for (const SummaryRow& row : rows) {
    nlohmann::json entry = {{"name", row.name},
                            {"candidate_bytes", row.candidate_bytes},
                            {"read_bytes", row.read_bytes},
                            {"energy", nullptr},
                            {"energy_selected", nullptr}};
    if (row.tensors > 0) {
      entry["tensors"] = row.tensors;
      entry["blocks"] = row.blocks;
      entry["touched_blocks"] = row.touched;
    }
    if (row.energy_known) {
      entry["energy"] = row.energy.total;
      entry["energy_selected"] = row.energy.selected;
    }
    json.push_back(std::move(entry));
  }
  return json;
}

}  // namespace

double Percent(uint64_t part, uint64_t whole) {
  return Percent(static_cast<double>(part), static_cast<double>(whole));
}

double Percent(double part, double whole) { return whole > 0 ? 100 * part / whole : 0; }

void SummaryRow::Add(const SummaryRow& other) {
  tensors += other.tensors;
  blocks += other.blocks;
  touched += other.touched;
  candidate_bytes += other.candidate_bytes;
  read_bytes += other.read_bytes;
  energy.total += other.energy.total;
  energy.selected += other.energy.selected;
  energy_known = energy_known && other.energy_known;
}

std::string SummaryRow::EnergyText() const {
  if (!energy_known || !(energy.total > 0)) return "-";
  return fmt::format("{:.1f} %", Percent(energy.selected, energy.total));
}

std::vector<SummaryRow> SummarizeExperts(const Plan& plan) {
  std::vector<SummaryRow> rows;
  for (size_t k = 0; k < plan.experts.size(); ++k) {
    SummaryRow row;
    for (const PlannedTensor& tensor : plan.tensors) {
      if (tensor.rule == TensorRule::kMerge) row.Add(RowOf(plan, tensor, k));
    }
    row.name = plan.experts[k].id;
    rows.push_back(std::move(row));
  }
  return rows;
}

std::vector<SummaryRow> SummarizeLayers(const Plan& plan) {
  constexpr uint64_t kNone = ~uint64_t{0};
  const auto groups = GroupBy<uint64_t>(
      plan, [=](const PlannedTensor& tensor) { return LayerOf(tensor.name).value_or(kNone); });
  std::vector<SummaryRow> rows;
  for (const auto& [layer, row] : groups) {
    rows.push_back(row);
    rows.back().name = layer == kNone ? "outside of layers" : std::to_string(layer);
  }
  return rows;
}

std::vector<SummaryRow> SummarizeKinds(const Plan& plan) {
  const auto groups = GroupBy<std::string>(
      plan, [](const PlannedTensor& tensor) { return KindOfTensor(tensor.name); });
  std::vector<SummaryRow> rows;
  for (const auto& [kind, row] : groups) {
    rows.push_back(row);
    rows.back().name = kind;
  }
  return rows;
}

std::string SummaryTables(const Plan& plan, const std::string& read_heading) {
  return Table("expert", read_heading, SummarizeExperts(plan)) +
         Table("layer", read_heading, JoinLayers(SummarizeLayers(plan))) +
         Table("kind of tensor", read_heading, JoinSmallKinds(SummarizeKinds(plan)));
}

nlohmann::json SummaryToJson(const Plan& plan) {
  return {{"experts", RowsToJson(SummarizeExperts(plan))},
          {"layers", RowsToJson(SummarizeLayers(plan))},
          {"kinds", RowsToJson(SummarizeKinds(plan))}};
}

std::string KindOfTensor(const std::string& name) {
  const auto layer = FindNumber(name, 0);
  if (!layer || layer->end >= name.size()) return name;
  std::string kind = name.substr(layer->end + 1);
  for (auto part = FindNumber(kind, 0); part; part = FindNumber(kind, part->begin + 2))
    kind.replace(part->begin, part->end - part->begin, "*");
  return kind;
}

}  // namespace mergepipe
