#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace mergepipe {

/// XXH3-128 of some bytes: a content hash against accidents, not against forgers.
struct Hash128 {
  uint64_t high = 0;
  uint64_t low = 0;

  auto operator<=>(const Hash128&) const = default;
  /// 32 lower-case hex digits, high half first (XXH128's canonical form).
  std::string ToHex() const;
  static std::optional<Hash128> FromHex(std::string_view hex);
};

Hash128 HashBytes(std::span<const std::byte> bytes);
Hash128 HashText(std::string_view text);

/// XXH3-128 over a sequence of pieces; the same as HashBytes of their concatenation.
class Hasher {
 public:
  Hasher();
  ~Hasher();
  Hasher(Hasher&&) noexcept;
  Hasher& operator=(Hasher&&) noexcept;

  void Update(std::span<const std::byte> bytes);
  void Update(std::string_view text);
  /// The 8 little-endian bytes of `number`.
  void Update(uint64_t number);
  /// The 16 big-endian bytes of `hash` (its canonical form).
  void Update(const Hash128& hash);
  Hash128 Finish() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Hash over hashes: how block hashes become a tensor's, and tensor hashes a file's.
Hash128 CombineHashes(std::span<const Hash128> hashes);

/// SHA-256 as 64 lower-case hex digits.
std::string Sha256Hex(std::string_view text);

}  // namespace mergepipe
