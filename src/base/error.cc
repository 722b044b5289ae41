#include "mergepipe/base/error.h"

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <cstring>

#include "mergepipe/base/text.h"

namespace mergepipe {

std::string_view ErrorKindName(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::kUsage: return "usage error";
    case ErrorKind::kBadInput: return "bad input";
    case ErrorKind::kNoSpace: return "not enough space";
    case ErrorKind::kIo: return "I/O error";
    case ErrorKind::kVerification: return "verification failed";
    case ErrorKind::kInterrupted: return "interrupted";
    case ErrorKind::kInternal: return "internal error";
  }
  return "unknown error";
}

std::string Problem::ToLine() const {
  std::string line = subject.empty() ? what : subject + ": " + what;
  if (!remedy.empty()) line += "; " + remedy;
  return EscapeControl(line);
}

Error::Error(ErrorKind kind, std::string subject, std::string what, std::string remedy)
    : kind_(kind), problems_{{std::move(subject), std::move(what), std::move(remedy)}} {}

Error::Error(ErrorKind kind, std::vector<Problem> problems)
    : kind_(kind), problems_(std::move(problems)) {
  assert(!problems_.empty());
}

std::string Error::ToString() const {
  std::string text;
  for (const Problem& problem : problems_) {
    if (!text.empty()) text += '\n';
    text += problem.ToLine();
  }
  return text;
}

namespace {

const char* RemedyFor(int errno_value) {
  switch (errno_value) {
    case ENOSPC:
    case EDQUOT: return "free some space and run the same command again";
    case ENOMEM: return "give it more memory";
    case EACCES:
    case EPERM:
    case EROFS: return "check the permissions, or choose another place";
    case ENOENT:
    case ENOTDIR:
    case EEXIST: return "check the path, or choose another place";
    case ENAMETOOLONG: return "choose a shorter name";
    case EMFILE:
    case ENFILE: return "raise the limit of open files (ulimit -n)";
    case ENOLCK:
    case ENOSYS:
    case EOPNOTSUPP: return "the filesystem lacks it; choose another place";
    default: return "check the disk or the filesystem, and run the same command again";
  }
}

}  // namespace

Error SystemError(int errno_value, std::string subject, std::string_view verb) {
  const bool space = errno_value == ENOSPC || errno_value == EDQUOT || errno_value == ENOMEM;
  return Error(space ? ErrorKind::kNoSpace : ErrorKind::kIo, std::move(subject),
               std::string("cannot ") + std::string(verb) + ": " + std::strerror(errno_value),
               RemedyFor(errno_value));
}

void ProblemList::Add(std::string subject, std::string what, std::string remedy) {
  problems_.push_back({std::move(subject), std::move(what), std::move(remedy)});
}

void ProblemList::Add(const Error& error) {
  for (const Problem& problem : error.problems()) {
    if (std::find(problems_.begin(), problems_.end(), problem) == problems_.end())
      problems_.push_back(problem);
  }
}

Status ProblemList::ToStatus(ErrorKind kind) const {
  if (problems_.empty()) return {};
  return Fail(kind, problems_);
}

}  // namespace mergepipe
