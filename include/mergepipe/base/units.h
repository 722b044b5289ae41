#pragma once

#include <compare>
#include <cstdint>
#include <string>

namespace mergepipe {

/// A number that cannot be mixed up with another kind of number. It has order and increment, and no
/// arithmetic: an index is not a size.
template <typename Tag, typename Rep>
struct Index {
  Rep value = 0;

  constexpr Index() = default;
  constexpr explicit Index(Rep v) : value(v) {}
  constexpr auto operator<=>(const Index&) const = default;
  constexpr Index& operator++() {
    ++value;
    return *this;
  }
};

/// Position of an expert on the command line, from 0.
using ExpertIndex = Index<struct ExpertTag, uint32_t>;
/// Position of a tensor in the base's file order, from 0.
using TensorIndex = Index<struct TensorTag, uint32_t>;
/// Position of a block in its tensor, from 0.
using BlockIndex = Index<struct BlockTag, uint64_t>;
/// A process of the job, from 0.
using Rank = Index<struct RankTag, int>;

/// An amount of bytes (not an offset). Addition saturates, so a sum that overflows is never small.
class Bytes {
 public:
  constexpr Bytes() = default;
  constexpr explicit Bytes(uint64_t count) : count_(count) {}
  static constexpr Bytes Unlimited() { return Bytes(UINT64_MAX); }

  constexpr uint64_t count() const { return count_; }
  constexpr auto operator<=>(const Bytes&) const = default;
  constexpr Bytes& operator+=(Bytes other) {
    count_ = count_ > UINT64_MAX - other.count_ ? UINT64_MAX : count_ + other.count_;
    return *this;
  }
  friend constexpr Bytes operator+(Bytes a, Bytes b) { return a += b; }

 private:
  uint64_t count_ = 0;
};

inline constexpr uint64_t kMiB = uint64_t{1} << 20;

/// "1.5 GiB", "12 B": for people.
std::string FormatBytes(Bytes bytes);

}  // namespace mergepipe
