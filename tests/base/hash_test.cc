#include "mergepipe/base/hash.h"

#include <gtest/gtest.h>

#include <vector>

namespace mergepipe {
namespace {

// `size` bytes of a fixed pattern.
std::string Sample(size_t size) {
  std::string text(size, '\0');
  uint32_t state = 1;
  for (char& c : text) {
    state = state * 1664525 + 1013904223;
    c = static_cast<char>(state >> 24);
  }
  return text;
}

TEST(Hash128, KnownValues) {
  // From the xxhsum program (xxhsum -H2).
  EXPECT_EQ(HashText("").ToHex(), "99aa06d3014798d86001c324468d497f");
  EXPECT_EQ(HashText("a").ToHex(), "a96faf705af16834e6c632b61e964e1f");
  EXPECT_EQ(HashText("abc").ToHex(), "06b05ab6733a618578af5f94892f3950");
}

TEST(Hash128, HexRoundTrip) {
  const Hash128 hash{0x0123456789abcdef, 0x00000000000000ff};
  EXPECT_EQ(hash.ToHex(), "0123456789abcdef00000000000000ff");
  EXPECT_EQ(Hash128::FromHex(hash.ToHex()), hash);
  EXPECT_EQ(Hash128::FromHex(HashText("x").ToHex()), HashText("x"));
  EXPECT_EQ(Hash128::FromHex(std::string(32, 'f')), (Hash128{UINT64_MAX, UINT64_MAX}));
}

TEST(Hash128, RefusesOtherHex) {
  const std::string good = "0123456789abcdef0123456789abcdef";
  ASSERT_TRUE(Hash128::FromHex(good));
  for (const std::string& bad :
       {std::string(), good.substr(1), good + "0", std::string("0123456789ABCDEF0123456789abcdef"),
        " " + good.substr(1), "-" + good.substr(1), "+" + good.substr(1), good.substr(0, 31) + "g",
        "0x" + good.substr(2), good.substr(0, 31) + std::string(1, '\0')}) {
    EXPECT_FALSE(Hash128::FromHex(bad)) << bad;
  }
}

TEST(Hasher, PiecesAreTheSameAsOneShot) {
  for (const size_t size : {0, 1, 16, 17, 128, 129, 240, 241, 1024, 1025, 70000}) {
    const std::string text = Sample(size);
    for (const size_t piece : {1, 3, 64, 255, 4096}) {
      Hasher hasher;
      for (size_t at = 0; at < size; at += piece)
        hasher.Update(std::string_view(text).substr(at, piece));
      EXPECT_EQ(hasher.Finish(), HashText(text)) << size << " bytes by " << piece;
    }
  }
}

TEST(Hasher, NumbersAreLittleEndianAndHashesCanonical) {
  Hasher number;
  number.Update(uint64_t{0x0102030405060708});
  EXPECT_EQ(number.Finish(), HashText("\x08\x07\x06\x05\x04\x03\x02\x01"));

  Hasher hash;
  hash.Update(Hash128{0x0102030405060708, 0x090a0b0c0d0e0f10});
  EXPECT_EQ(hash.Finish(),
            HashText("\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10"));
}

TEST(Hasher, GoesOnAfterFinishAndMove) {
  Hasher first;
  first.Update("ab");
  EXPECT_EQ(first.Finish(), HashText("ab"));
  Hasher second = std::move(first);
  second.Update("c");
  EXPECT_EQ(second.Finish(), HashText("abc"));
}

TEST(CombineHashes, IsTheHashOfTheCanonicalDigests) {
  const std::vector<Hash128> hashes = {HashText("a"), HashText("b"), HashText("c")};
  std::string digests;
  for (const Hash128& hash : hashes) {
    const std::string hex = hash.ToHex();
    for (size_t i = 0; i < hex.size(); i += 2) {
      digests += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
    }
  }
  ASSERT_EQ(digests.size(), 48u);
  EXPECT_EQ(CombineHashes(hashes), HashText(digests));
  EXPECT_EQ(CombineHashes({}), HashText(""));
  const std::vector<Hash128> swapped = {hashes[1], hashes[0], hashes[2]};
  EXPECT_NE(CombineHashes(swapped), CombineHashes(hashes));
}

TEST(Sha256, KnownVectors) {
  // FIPS 180-2, appendix B.
  EXPECT_EQ(Sha256Hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(Sha256Hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(Sha256Hex("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(Sha256Hex(std::string(1000000, 'a')),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

}  // namespace
}  // namespace mergepipe
