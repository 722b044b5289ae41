#include "mergepipe/base/error.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <memory>
#include <set>

namespace mergepipe {
namespace {

TEST(Error, OneLineAProblem) {
  EXPECT_EQ(Error(ErrorKind::kUsage, "--k", "is 0", "give 1 or more").ToString(),
            "--k: is 0; give 1 or more");
  EXPECT_EQ(Error(ErrorKind::kUsage, "--k", "is 0").ToString(), "--k: is 0");
  EXPECT_EQ(Error(ErrorKind::kUsage, "", "is 0").ToString(), "is 0");
  EXPECT_EQ(Error(ErrorKind::kBadInput, {{"a", "x", ""}, {"b", "y", "z"}}).ToString(),
            "a: x\nb: y; z");
}

TEST(Error, ANameCannotStartANewLine) {
  EXPECT_EQ(Error(ErrorKind::kBadInput, "a\nb", "x\ty", "\x1b[0m").ToString(),
            "a\\nb: x\\ty; \\x1b[0m");
}

TEST(Error, KindsHaveDistinctNames) {
  std::set<std::string_view> names;
  for (int kind = 0; kind <= static_cast<int>(ErrorKind::kInternal); ++kind) {
    names.insert(ErrorKindName(static_cast<ErrorKind>(kind)));
  }
  EXPECT_EQ(names.size(), 7u);
  EXPECT_FALSE(names.contains("unknown error"));
}

TEST(Error, ComparesByKindAndProblems) {
  const Error error(ErrorKind::kIo, "a", "b", "c");
  EXPECT_EQ(error, Error(ErrorKind::kIo, "a", "b", "c"));
  EXPECT_NE(error, Error(ErrorKind::kUsage, "a", "b", "c"));
  EXPECT_NE(error, Error(ErrorKind::kIo, "a", "b"));
}

TEST(SystemError, TellsALackOfSpaceFromOtherFailures) {
  for (const int error : {ENOSPC, EDQUOT, ENOMEM}) {
    EXPECT_EQ(SystemError(error, "f", "write").kind(), ErrorKind::kNoSpace) << error;
    EXPECT_FALSE(SystemError(error, "f", "write").problems()[0].remedy.empty());
  }
  for (const int error : {EIO, EACCES, ENOENT, EROFS}) {
    EXPECT_EQ(SystemError(error, "f", "write").kind(), ErrorKind::kIo) << error;
  }
  EXPECT_EQ(SystemError(EACCES, "f", "open").ToString(),
            "f: cannot open: Permission denied; check the permissions, or choose another place");
}

TEST(ProblemList, ReportsAllTogether) {
  ProblemList problems;
  EXPECT_TRUE(problems.empty());
  EXPECT_TRUE(problems.ToStatus(ErrorKind::kUsage));
  problems.Add("a", "x");
  problems.Add(Error(ErrorKind::kIo, {{"b", "y", ""}, {"c", "z", "r"}}));
  EXPECT_FALSE(problems.empty());
  const Status status = problems.ToStatus(ErrorKind::kBadInput);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error(),
            Error(ErrorKind::kBadInput, {{"a", "x", ""}, {"b", "y", ""}, {"c", "z", "r"}}));
}

Status Check(bool good) {
  if (good) return {};
  return Fail(ErrorKind::kIo, "check", "is bad");
}

Result<std::unique_ptr<int>> Make(bool good) {
  if (good) return std::make_unique<int>(7);
  return Fail(ErrorKind::kNoSpace, "make", "is bad");
}

// Two uses of each in one scope, values that can only be moved, and calls counted.
Result<int> UseMacros(bool check, bool make, int* reached) {
  MERGEPIPE_RETURN_IF_ERROR((++*reached, Check(true)));
  MERGEPIPE_RETURN_IF_ERROR((++*reached, Check(check)));
  MERGEPIPE_ASSIGN_OR_RETURN(const auto first, (++*reached, Make(true)));
  MERGEPIPE_ASSIGN_OR_RETURN(const std::unique_ptr<int> second, (++*reached, Make(make)));
  if (check)
    MERGEPIPE_RETURN_IF_ERROR(Make(true));
  else
    return 0;
  return *first + *second;
}

TEST(ErrorMacros, ReturnTheFirstErrorAndEvaluateOnce) {
  int reached = 0;
  EXPECT_EQ(UseMacros(true, true, &reached), 14);
  EXPECT_EQ(reached, 4);
  reached = 0;
  EXPECT_EQ(UseMacros(false, true, &reached).error(), Error(ErrorKind::kIo, "check", "is bad"));
  EXPECT_EQ(reached, 2);
  reached = 0;
  EXPECT_EQ(UseMacros(true, false, &reached).error(), Error(ErrorKind::kNoSpace, "make", "is bad"));
  EXPECT_EQ(reached, 4);
}

}  // namespace
}  // namespace mergepipe
