#pragma once

#include <cstddef>
#include <cstdlib>
#include <string>

namespace mergepipe::fuzz {

/// What parses is the same bytes when it is written again. Only the first byte, the byte order of
/// all others, may be another one: what was written in this machine's order stays as it is.
template <typename Parse, typename Serialize>
void CheckMessage(const std::string& bytes, Parse parse, Serialize serialize) {
  const auto message = parse(bytes);
  if (!message) return;
  const std::string written = serialize(*message);
  if (written.size() != bytes.size()) std::abort();
  const auto again = parse(written);
  if (!again || serialize(*again) != written) std::abort();
  if (written[0] == bytes[0] && written != bytes) std::abort();
}

}  // namespace mergepipe::fuzz
