#include "cli/progress.h"

#include <gtest/gtest.h>

#include "mergepipe/base/units.h"

namespace mergepipe {
namespace {

constexpr uint64_t kGiB = 1024 * kMiB;

TEST(ProgressText, SaysShareAmountRateAndTimeLeft) {
  EXPECT_EQ(ProgressText("merging", 3 * kGiB, 6 * kGiB, 2.0),
            "merging  50 % | 3.00 GiB of 6.00 GiB | 1.50 GiB/s | 0:02 left");
  EXPECT_EQ(ProgressText("merging", kGiB, 10 * kGiB, 500.0),
            "merging  10 % | 1.00 GiB of 10.0 GiB | 2.05 MiB/s | 1:15:00 left");
  EXPECT_EQ(ProgressText("analyzing", 6 * kGiB, 6 * kGiB, 4.0),
            "analyzing 100 % | 6.00 GiB of 6.00 GiB | 1.50 GiB/s | 0:00 left");
}

TEST(ProgressText, IsNotWrongAtTheEnds) {
  EXPECT_EQ(ProgressText("merging", 0, 6 * kGiB, 0.0),
            "merging   0 % | 0 B of 6.00 GiB | 0 B/s | starting");
  // Not yet 100 %, though nearly.
  EXPECT_EQ(ProgressText("merging", 999, 1000, 1.0).substr(0, 12), "merging  99 ");
  // Nothing to move is done at once, and more than all is all.
  EXPECT_EQ(ProgressText("merging", 0, 0, 1.0).substr(0, 13), "merging 100 %");
  EXPECT_EQ(ProgressText("merging", 7, 5, 1.0).substr(0, 13), "merging 100 %");
}

}  // namespace
}  // namespace mergepipe
