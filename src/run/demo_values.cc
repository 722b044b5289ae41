#include "run/demo_values.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "mergepipe/base/checked.h"
#include "mergepipe/kernels/convert.h"

namespace mergepipe {
namespace {

constexpr float kMatrixSpread = 0.02f;
constexpr float kNormSpread = 0.05f;
constexpr float kPeakChange = 0.2f;
constexpr double kLayerRange = 30;
constexpr double kGoldenRatio = 0.6180339887498949;  // spreads the experts' peaks evenly
constexpr float kCommonPart = 0.6f;
constexpr float kOwnPart = 0.8f;
constexpr uint32_t kFrozenPeriod = 8;
constexpr uint64_t kEmbeddingRuns = 32;
// Floats held at a time: two arrays of them stay in the first-level cache.
constexpr size_t kPiece = 2048;

// s_k in units of its peak: 1 at the expert's own depth, 1 / kLayerRange half a circle away. Only
// operations that IEEE 754 rounds exactly, here and below: no libm, so every machine gets the same
// bits.
double LayerFactor(uint32_t model, double depth) {
  const double turn = model * kGoldenRatio;
  const double direct = std::abs(depth - (turn - std::floor(turn)));
  const double distance = 2 * std::min(direct, 1 - direct);
  return 1 / (1 + (kLayerRange - 1) * distance * distance);
}

// r(row).
float RowFactor(const RandomStream& stream, uint64_t row) {
  const uint32_t draw = stream.Draw16(row);
  return std::min(8.0f, 8192.0f / static_cast<float>(draw + 1));
}

}  // namespace

DemoValues::DemoValues(const DemoTensor& tensor, uint32_t model, uint32_t layers, DType dtype,
                       uint64_t seed)
    : dtype_(dtype),
      model_(model),
      row_elements_(tensor.elements() / tensor.rows()),
      frozen_(model == 0),
      center_(tensor.kind == DemoTensorKind::kNorm ? 1.0f : 0.0f),
      spread_(tensor.kind == DemoTensorKind::kNorm ? kNormSpread : kMatrixSpread),
      change_(spread_ * kPeakChange * static_cast<float>(LayerFactor(model, tensor.depth))),
      base_(seed, 0, "base", tensor.name),
      common_(seed, 0, "common", tensor.name),
      common_rows_(seed, 0, "common rows", tensor.name),
      own_(seed, model, "own", tensor.name),
      own_rows_(seed, model, "own rows", tensor.name) {
  const uint32_t period = std::min(layers, kFrozenPeriod);
  if (tensor.layer && *tensor.layer % period == model % period) frozen_ = true;
  if (tensor.kind == DemoTensorKind::kEmbedding) {
    rows_per_run_ = CeilDivide(tensor.rows(), kEmbeddingRuns);
  }
}

bool DemoValues::IsFrozen(uint64_t row) const {
  if (frozen_) return true;
  return rows_per_run_ != 0 && (row / rows_per_run_) % kFrozenPeriod != model_ % kFrozenPeriod;
}

void DemoValues::AddChange(uint64_t first, uint64_t row, std::span<float> values) const {
  std::array<float, kPiece> common;
  std::array<float, kPiece> own;
  common_.FillNormal(first, std::span(common).first(values.size()));
  own_.FillNormal(first, std::span(own).first(values.size()));
  const float common_scale = change_ * kCommonPart * RowFactor(common_rows_, row);
  const float own_scale = change_ * kOwnPart * RowFactor(own_rows_, row);
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] += common_scale * common[i] + own_scale * own[i];
  }
}

void DemoValues::Fill(uint64_t first, std::span<std::byte> out) const {
  const uint64_t element_size = DTypeSize(dtype_);
  std::array<float, kPiece> piece;
  while (!out.empty()) {
    const uint64_t row = first / row_elements_;
    const uint64_t row_rest = (row + 1) * row_elements_ - first;
    const uint64_t count = std::min({uint64_t{kPiece}, row_rest, out.size() / element_size});
    const auto values = std::span(piece).first(count);
    const auto stored = out.first(count * element_size);

    base_.FillNormal(first, values);
    for (float& value : values) value = center_ + spread_ * value;
    FromFloat(dtype_, values, stored);
    if (!IsFrozen(row)) {
      ToFloat(dtype_, stored, values);
      AddChange(first, row, values);
      FromFloat(dtype_, values, stored);
    }
    first += count;
    out = out.subspan(count * element_size);
  }
}

}  // namespace mergepipe
