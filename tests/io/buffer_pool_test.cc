#include "mergepipe/io/buffer_pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <random>
#include <thread>
#include <vector>

#include "mergepipe/base/units.h"

namespace mergepipe {
namespace {

bool Overlap(std::span<std::byte> a, std::span<std::byte> b) {
  return a.data() < b.data() + b.size() && b.data() < a.data() + a.size();
}

TEST(BufferPool, GivesPagesThatAreApart) {
  BufferPool pool(8 * kMiB);
  std::vector<std::span<std::byte>> taken;
  for (const size_t size : {size_t{1}, size_t{4096}, size_t{5000}, size_t{kMiB}}) {
    const auto buffer = pool.Take(size);
    EXPECT_GE(buffer.size(), size);
    EXPECT_EQ(buffer.size(), BufferPool::SizeOf(size));
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % 4096, 0u);
    for (const auto& other : taken) EXPECT_FALSE(Overlap(buffer, other));
    taken.push_back(buffer);
  }
  EXPECT_TRUE(pool.Take(0).empty());
  pool.Give({});
}

TEST(BufferPool, NeighboursThatAreGivenBackBecomeOne) {
  BufferPool pool(6 * kMiB);
  const auto a = pool.Take(2 * kMiB);
  const auto b = pool.Take(2 * kMiB);
  const auto c = pool.Take(2 * kMiB);
  pool.Give(a);
  pool.Give(c);
  pool.Give(b);
  const auto all = pool.Take(6 * kMiB);
  EXPECT_EQ(all.data(), std::min({a.data(), b.data(), c.data()}));
}

TEST(BufferPool, HolesTooSmallMakeRoomElsewhere) {
  BufferPool pool(6 * kMiB);
  std::vector<std::span<std::byte>> taken;
  for (int i = 0; i < 6; ++i) taken.push_back(pool.Take(kMiB));
  for (const int i : {0, 2, 4}) pool.Give(taken[static_cast<size_t>(i)]);
  const auto large = pool.Take(3 * kMiB);
  ASSERT_EQ(large.size(), 3 * kMiB);
  std::ranges::fill(large, std::byte{7});
  for (const int i : {1, 3, 5}) EXPECT_FALSE(Overlap(large, taken[static_cast<size_t>(i)]));
  pool.Give(large);
  for (const int i : {1, 3, 5}) pool.Give(taken[static_cast<size_t>(i)]);
  EXPECT_EQ(pool.Take(6 * kMiB).size(), 6 * kMiB);
}

// Each thread writes its own number all over what it has, and finds it there again.
TEST(BufferPool, ThreadsDoNotGetEachOthersBytes) {
  constexpr size_t kThreads = 4;
  BufferPool pool(kThreads * kMiB);
  std::vector<int> wrong(kThreads);
  const auto work = [&](size_t thread) {
    std::mt19937 random(static_cast<uint32_t>(thread));
    for (int i = 0; i < 300; ++i) {
      const auto buffer = pool.Take(1 + random() % kMiB);
      std::ranges::fill(buffer, std::byte(thread));
      std::this_thread::yield();
      const bool kept =
          std::ranges::all_of(buffer, [&](std::byte byte) { return byte == std::byte(thread); });
      if (!kept) ++wrong[thread];
      pool.Give(buffer);
    }
  };
  std::vector<std::thread> threads;
  for (size_t t = 0; t < kThreads; ++t) threads.emplace_back(work, t);
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, std::vector<int>(kThreads));
}

}  // namespace
}  // namespace mergepipe
