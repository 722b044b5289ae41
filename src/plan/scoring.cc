#include "plan/scoring.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <string>

namespace mergepipe {
namespace {

using SketchVector = std::array<double, kSketchSize>;

// The top 53 bits of a hash as a number in [0, 1): exact in double.
double UnitInterval(uint64_t hash) { return std::ldexp(static_cast<double>(hash >> 11), -53); }

void ScoreUniform(const BlockPlace& place, std::span<const double> /*weights*/,
                  std::span<const KnownDelta> deltas, std::span<double> scores) {
  for (size_t k = 0; k < deltas.size(); ++k) {
    const std::array<uint64_t, 4> key = {place.tensor_name.high, place.tensor_name.low, place.block,
                                         k};
    scores[k] = UnitInterval(HashBytes(std::as_bytes(std::span(key))).low);
  }
}

void ScoreL2(const BlockPlace& /*place*/, std::span<const double> /*weights*/,
             std::span<const KnownDelta> deltas, std::span<double> scores) {
  for (size_t k = 0; k < deltas.size(); ++k) scores[k] = deltas[k].sum_squares;
}

void ScoreAbs(const BlockPlace& /*place*/, std::span<const double> /*weights*/,
              std::span<const KnownDelta> deltas, std::span<double> scores) {
  // A delta that is not finite counts as the largest one.
  constexpr double kLargest = std::numeric_limits<float>::max();
  for (size_t k = 0; k < deltas.size(); ++k) {
    const double largest = std::min(deltas[k].max_abs, kLargest);
    scores[k] = static_cast<double>(deltas[k].elements) * largest * largest;
  }
}

// Of a sketch; 0 if there is none.
double Length(const KnownDelta& delta) {
  if (delta.sketch == nullptr) return 0;
  int squares = 0;  // at most 32 * 127^2
  for (const int8_t value : *delta.sketch) squares += value * value;
  return std::sqrt(static_cast<double>(squares));
}

double Dot(const SketchVector& a, const SketchVector& b) {
  double sum = 0;
  for (size_t i = 0; i < kSketchSize; ++i) sum += a[i] * b[i];
  return sum;
}

double Dot(const std::array<int8_t, kSketchSize>& a, const SketchVector& b) {
  double sum = 0;
  for (size_t i = 0; i < kSketchSize; ++i) sum += a[i] * b[i];
  return sum;
}

// v = |D_k|^2 (1 + cos(D_k, S)) / 2 with S = sum_j w_j D_j. Norms are known, directions are those
// of the sketches; a sketch of whole blocks and one of samples are taken to be at right angles.
void ScoreL2Cos(const BlockPlace& /*place*/, std::span<const double> weights,
                std::span<const KnownDelta> deltas, std::span<double> scores) {
  const auto of_probe = [](const KnownDelta& delta) {
    return delta.kind == StatisticsKind::kProbe ? size_t{1} : size_t{0};
  };
  std::array<SketchVector, 2> sums{};
  for (size_t k = 0; k < deltas.size(); ++k) {
    const double length = Length(deltas[k]);
    if (length == 0) continue;
    const double scale = weights[k] * std::sqrt(deltas[k].sum_squares) / length;
    SketchVector& sum = sums[of_probe(deltas[k])];
    for (size_t i = 0; i < kSketchSize; ++i) sum[i] += scale * (*deltas[k].sketch)[i];
  }
  const double sum_length = std::sqrt(Dot(sums[0], sums[0]) + Dot(sums[1], sums[1]));
  for (size_t k = 0; k < deltas.size(); ++k) {
    const double lengths = Length(deltas[k]) * sum_length;
    const double dot = lengths > 0 ? Dot(*deltas[k].sketch, sums[of_probe(deltas[k])]) : 0;
    const double cosine = lengths > 0 ? std::clamp(dot / lengths, -1.0, 1.0) : 0;
    scores[k] = deltas[k].sum_squares * (1 + cosine) / 2;
  }
}

constexpr std::array<ScoringRow, 4> kScorings = {{
    {"l2cos", true, ScoreL2Cos},
    {"l2", true, ScoreL2},
    {"abs", true, ScoreAbs},
    {"uniform", false, ScoreUniform},
}};

}  // namespace

Result<const ScoringRow*> FindScoring(std::string_view name) {
  for (const ScoringRow& row : kScorings) {
    if (row.name == name) return &row;
  }
  std::string known;
  for (const ScoringRow& row : kScorings)
    known += (known.empty() ? "" : ", ") + std::string(row.name);
  return Fail(ErrorKind::kUsage, "--scoring", "there is no scoring '" + std::string(name) + "'",
              "use one of: " + known);
}

}  // namespace mergepipe
