#include "mergepipe/plan/block_set.h"

#include <algorithm>
#include <bit>
#include <charconv>

namespace mergepipe {
namespace {

constexpr std::string_view kBitmapPrefix = "x:";

std::optional<unsigned> HexDigit(char c) {
  if (c >= '0' && c <= '9') return static_cast<unsigned>(c - '0');
  if (c >= 'a' && c <= 'f') return static_cast<unsigned>(c - 'a' + 10);
  return std::nullopt;
}

std::optional<BlockSet> FromBitmap(std::string_view hex, uint64_t size) {
  if (hex.size() != (size + 7) / 8 * 2) return std::nullopt;
  BlockSet set(size);
  for (size_t i = 0; i < hex.size(); ++i) {
    const auto digit = HexDigit(hex[i]);
    if (!digit) return std::nullopt;
    const uint64_t first = i / 2 * 8 + (i % 2 == 0 ? 4 : 0);
    for (uint64_t bit = 0; bit < 4; ++bit) {
      if (((*digit >> bit) & 1u) == 0) continue;
      if (first + bit >= size) return std::nullopt;
      set.Add(BlockIndex(first + bit));
    }
  }
  return set;
}

std::optional<uint64_t> TakeNumber(std::string_view& text) {
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc()) return std::nullopt;
  text.remove_prefix(static_cast<size_t>(end - text.data()));
  return number;
}

bool TakeChar(std::string_view& text, char c) {
  if (text.empty() || text.front() != c) return false;
  text.remove_prefix(1);
  return true;
}

std::optional<BlockSet> FromRanges(std::string_view text, uint64_t size) {
  BlockSet set(size);
  uint64_t next_allowed = 0;
  while (!text.empty()) {
    const auto first = TakeNumber(text);
    if (!first || *first < next_allowed) return std::nullopt;
    auto last = first;
    if (TakeChar(text, '-')) last = TakeNumber(text);
    if (!last || *last < *first || *last >= size) return std::nullopt;
    for (uint64_t b = *first; b <= *last; ++b) set.Add(BlockIndex(b));
    next_allowed = *last + 1;
    if (!text.empty() && (!TakeChar(text, ',') || text.empty())) return std::nullopt;
  }
  return set;
}

}  // namespace

BlockSet BlockSet::All(uint64_t size) {
  BlockSet all(size);
  for (uint64_t block = 0; block < size; ++block) all.Add(BlockIndex(block));
  return all;
}

uint64_t BlockSet::Count() const {
  uint64_t count = 0;
  for (const uint64_t word : words_) count += static_cast<uint64_t>(std::popcount(word));
  return count;
}

void BlockSet::Unite(const BlockSet& other) {
  for (size_t i = 0; i < words_.size(); ++i) words_[i] |= other.words_[i];
}

bool BlockSet::Intersects(const BlockSet& other) const {
  for (size_t i = 0; i < words_.size(); ++i) {
    if ((words_[i] & other.words_[i]) != 0) return true;
  }
  return false;
}

BlockSet BlockSet::Within(BlockIndex begin, BlockIndex end) const {
  BlockSet part(size_);
  for (BlockIndex block = begin; block < end; ++block) {
    if (Contains(block)) part.Add(block);
  }
  return part;
}

std::string BlockSet::ToText() const {
  const size_t bitmap_length = kBitmapPrefix.size() + (size_ + 7) / 8 * 2;
  std::string ranges;
  ForEachRun([&](BlockIndex begin, BlockIndex end) {
    if (ranges.size() > bitmap_length) return;
    if (!ranges.empty()) ranges += ',';
    ranges += std::to_string(begin.value);
    if (end.value - begin.value > 1) ranges += '-' + std::to_string(end.value - 1);
  });
  if (ranges.size() <= bitmap_length) return ranges;
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string bitmap(kBitmapPrefix);
  for (uint64_t byte = 0; byte < (size_ + 7) / 8; ++byte) {
    const uint64_t bits = (words_[byte / 8] >> (byte % 8 * 8)) & 0xff;
    bitmap += kDigits[bits >> 4];
    bitmap += kDigits[bits & 0xf];
  }
  return bitmap;
}

std::optional<BlockSet> BlockSet::FromText(std::string_view text, uint64_t size) {
  if (text.starts_with(kBitmapPrefix)) return FromBitmap(text.substr(kBitmapPrefix.size()), size);
  return FromRanges(text, size);
}

}  // namespace mergepipe
