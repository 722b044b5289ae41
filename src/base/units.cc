#include "mergepipe/base/units.h"

#include <fmt/format.h>

#include <array>
#include <cstddef>

namespace mergepipe {

std::string FormatBytes(Bytes bytes) {
  constexpr std::array<const char*, 6> kUnits = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  if (bytes.count() < 1024) return fmt::format("{} B", bytes.count());
  auto amount = static_cast<double>(bytes.count());
  size_t unit = 0;
  while (amount >= 1024 && unit + 1 < kUnits.size()) {
    amount /= 1024;
    ++unit;
  }
  return fmt::format("{:.{}f} {}", amount, amount < 10 ? 2 : 1, kUnits[unit]);
}

}  // namespace mergepipe
