#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <type_traits>
#include <utility>

namespace mergepipe {

/// a + b, or nothing on overflow.
std::optional<uint64_t> CheckedAdd(uint64_t a, uint64_t b);
/// a * b, or nothing on overflow.
std::optional<uint64_t> CheckedMultiply(uint64_t a, uint64_t b);
/// Product of a shape (1 for rank 0), or nothing on overflow. A 0 in the shape does not hide an
/// overflow before it.
std::optional<uint64_t> CheckedProduct(std::span<const uint64_t> factors);

/// `value` as `To`, or nothing if it does not fit.
template <typename To, typename From>
constexpr std::optional<To> Narrow(From value) {
  if (!std::in_range<To>(value)) return std::nullopt;
  return static_cast<To>(value);
}

/// ceil(a / b) without overflow; b > 0.
constexpr uint64_t CeilDivide(uint64_t a, uint64_t b) { return a / b + (a % b != 0 ? 1 : 0); }

}  // namespace mergepipe
