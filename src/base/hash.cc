#include "mergepipe/base/hash.h"

#include <fmt/format.h>
#include <openssl/sha.h>
#include <xxhash.h>

#include <array>
#include <charconv>
#include <new>

namespace mergepipe {
namespace {

Hash128 FromXxh(const XXH128_hash_t& hash) { return {hash.high64, hash.low64}; }

bool ParseHex64(std::string_view hex, uint64_t* out) {
  for (const char c : hex) {
    if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'))) return false;
  }
  const auto [end, error] = std::from_chars(hex.data(), hex.data() + hex.size(), *out, 16);
  return error == std::errc() && end == hex.data() + hex.size();
}

}  // namespace

std::string Hash128::ToHex() const { return fmt::format("{:016x}{:016x}", high, low); }

std::optional<Hash128> Hash128::FromHex(std::string_view hex) {
  Hash128 hash;
  if (hex.size() != 32 || !ParseHex64(hex.substr(0, 16), &hash.high) ||
      !ParseHex64(hex.substr(16), &hash.low)) {
    return std::nullopt;
  }
  return hash;
}

Hash128 HashBytes(std::span<const std::byte> bytes) {
  return FromXxh(XXH3_128bits(bytes.data(), bytes.size()));
}

Hash128 HashText(std::string_view text) { return HashBytes(std::as_bytes(std::span(text))); }

struct Hasher::State {
  XXH3_state_t* xxh = XXH3_createState();
  State() {
    if (xxh == nullptr) throw std::bad_alloc();
    XXH3_128bits_reset(xxh);
  }
  ~State() { XXH3_freeState(xxh); }
  State(const State&) = delete;
  State& operator=(const State&) = delete;
};

Hasher::Hasher() : state_(std::make_unique<State>()) {}
Hasher::~Hasher() = default;
Hasher::Hasher(Hasher&&) noexcept = default;
Hasher& Hasher::operator=(Hasher&&) noexcept = default;

void Hasher::Update(std::span<const std::byte> bytes) {
  XXH3_128bits_update(state_->xxh, bytes.data(), bytes.size());
}

void Hasher::Update(std::string_view text) { Update(std::as_bytes(std::span(text))); }

void Hasher::Update(uint64_t number) {
  std::array<std::byte, 8> bytes{};
  for (size_t i = 0; i < 8; ++i) bytes[i] = static_cast<std::byte>(number >> (8 * i));
  Update(std::span<const std::byte>(bytes));
}

void Hasher::Update(const Hash128& hash) {
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, XXH128_hash_t{hash.low, hash.high});
  Update(std::as_bytes(std::span(canonical.digest)));
}

Hash128 Hasher::Finish() const { return FromXxh(XXH3_128bits_digest(state_->xxh)); }

Hash128 CombineHashes(std::span<const Hash128> hashes) {
  Hasher hasher;
  for (const Hash128& hash : hashes) hasher.Update(hash);
  return hasher.Finish();
}

std::string Sha256Hex(std::string_view text) {
  std::array<unsigned char, SHA256_DIGEST_LENGTH> digest{};
  SHA256(reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest.data());
  std::string hex;
  for (const unsigned char byte : digest) hex += fmt::format("{:02x}", byte);
  return hex;
}

}  // namespace mergepipe
