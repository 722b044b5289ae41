#include <fmt/format.h>
#include <openssl/crypto.h>
#include <spdlog/version.h>
#include <xxhash.h>

#include <tl/expected.hpp>

#include "mergepipe/base/build_info.h"

namespace mergepipe {
namespace {

// "OpenSSL 3.0.15 3 Sep 2024": the second word.
std::string SecondWord(const std::string& text) {
  const size_t begin = text.find(' ') + 1;
  return text.substr(begin, text.find(' ', begin) - begin);
}

// 10203 or 90100 as "1.2.3" and "9.1.0".
std::string Dotted(unsigned number) {
  return fmt::format("{}.{}.{}", number / 10000, number / 100 % 100, number % 100);
}

}  // namespace

std::vector<Library> BaseLibraries() {
  return {{"xxHash", Dotted(XXH_versionNumber())},
          {"OpenSSL", SecondWord(OpenSSL_version(OPENSSL_VERSION))},
          {"fmt", Dotted(FMT_VERSION)},
          {"spdlog", fmt::format("{}.{}.{}", SPDLOG_VER_MAJOR, SPDLOG_VER_MINOR, SPDLOG_VER_PATCH)},
          {"tl::expected", fmt::format("{}.{}.{}", TL_EXPECTED_VERSION_MAJOR,
                                       TL_EXPECTED_VERSION_MINOR, TL_EXPECTED_VERSION_PATCH)}};
}

}  // namespace mergepipe
