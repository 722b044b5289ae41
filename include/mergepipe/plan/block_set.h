#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mergepipe/base/units.h"

namespace mergepipe {

/// A set of blocks of one tensor: a bitmap over [0, size()).
///
/// Text form, the shorter of the two (ranges when equal): inclusive ranges "0-3,5", "" for none; or
/// "x:" and two hex digits a byte, where block b is bit b % 8 of byte b / 8.
class BlockSet {
 public:
  BlockSet() = default;
  explicit BlockSet(uint64_t size) : size_(size), words_((size + 63) / 64) {}
  /// All blocks of [0, size).
  static BlockSet All(uint64_t size);

  uint64_t size() const { return size_; }
  void Add(BlockIndex block) { words_[block.value / 64] |= uint64_t{1} << (block.value % 64); }
  void Remove(BlockIndex block) {
    words_[block.value / 64] &= ~(uint64_t{1} << (block.value % 64));
  }
  bool Contains(BlockIndex block) const {
    return (words_[block.value / 64] >> (block.value % 64)) & 1;
  }
  uint64_t Count() const;
  bool Empty() const { return Count() == 0; }
  /// Adds all of `other`, which has the same size.
  void Unite(const BlockSet& other);
  /// Whether some block is in both sets, of the same size.
  bool Intersects(const BlockSet& other) const;
  /// The blocks of this set in [begin, end), in a set of the same size.
  BlockSet Within(BlockIndex begin, BlockIndex end) const;

  /// Calls visit(BlockIndex begin, BlockIndex end) for each run of consecutive blocks, ascending.
  template <typename Visit>
  void ForEachRun(Visit&& visit) const {
    for (uint64_t b = 0; b < size_;) {
      if (words_[b / 64] == 0) {
        b = (b / 64 + 1) * 64;
      } else if (!Contains(BlockIndex(b))) {
        ++b;
      } else {
        const uint64_t begin = b;
        while (b < size_ && Contains(BlockIndex(b))) ++b;
        visit(BlockIndex(begin), BlockIndex(b));
      }
    }
  }

  std::string ToText() const;
  /// Nothing if `text` is malformed, not ascending, or names a block >= size.
  static std::optional<BlockSet> FromText(std::string_view text, uint64_t size);

  bool operator==(const BlockSet&) const = default;

 private:
  uint64_t size_ = 0;
  std::vector<uint64_t> words_;
};

}  // namespace mergepipe
