#include "format/capped_problems.h"

#include "mergepipe/base/text.h"

namespace mergepipe {

void CappedProblems::Add(std::string what, std::string remedy) {
  AddTo(subject_, std::move(what), std::move(remedy));
}

void CappedProblems::AddTensor(std::string_view tensor, std::string what, std::string remedy) {
  AddTo(subject_ + ": tensor " + QuoteShort(tensor), std::move(what), std::move(remedy));
}

void CappedProblems::AddTo(std::string subject, std::string what, std::string remedy) {
  if (++count_ <= kLimit) kept_.Add(std::move(subject), std::move(what), std::move(remedy));
}

Status CappedProblems::ToStatus() const {
  if (count_ <= kLimit) return kept_.ToStatus(ErrorKind::kBadInput);
  ProblemList all = kept_;
  all.Add(subject_, std::to_string(count_ - kLimit) + " more problems");
  return all.ToStatus(ErrorKind::kBadInput);
}

std::string QuoteShort(std::string_view text) {
  constexpr size_t kShown = 200;
  if (text.size() <= kShown) return Quote(text);
  size_t end = kShown;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0u) == 0x80u)
    --end;  // inside a character
  return Quote(std::string(text.substr(0, end)) + "...");
}

}  // namespace mergepipe
