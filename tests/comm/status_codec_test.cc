#include <gtest/gtest.h>

#include "comm/mpi_communicator.h"
#include "support/error_of.h"

namespace mergepipe {
namespace {

Status RoundTrip(const Error& error) { return ParseStatus(SerializeStatus(tl::unexpected(error))); }

void ExpectRefused(const std::string& bytes, const std::string& what) {
  const Status status = ParseStatus(bytes);
  EXPECT_EQ(ErrorOf(status).kind(), ErrorKind::kInternal) << what;
  EXPECT_EQ(ErrorOf(status).problems()[0].subject, "MPI") << what;
}

TEST(StatusCodec, RoundTripOfSuccess) { EXPECT_TRUE(ParseStatus(SerializeStatus({}))); }

TEST(StatusCodec, RoundTripOfEveryKind) {
  for (int kind = 0; kind <= static_cast<int>(ErrorKind::kInternal); ++kind) {
    const Error error(static_cast<ErrorKind>(kind), "a", "b", "c");
    EXPECT_EQ(ErrorOf(RoundTrip(error)), error) << kind;
  }
}

TEST(StatusCodec, RoundTripOfManyProblems) {
  std::vector<Problem> problems;
  for (int i = 0; i < 1000; ++i)
    problems.push_back({"subject " + std::to_string(i), "", "remedy\n"});
  problems.push_back({std::string(100'000, 'x'), std::string("\0\xff", 2), ""});
  const Error error(ErrorKind::kBadInput, problems);
  EXPECT_EQ(ErrorOf(RoundTrip(error)), error);
}

TEST(StatusCodec, RefusesEveryCut) {
  const std::string whole =
      SerializeStatus(Fail(ErrorKind::kIo, std::vector<Problem>{{"a", "b", "c"}, {"d", "e", "f"}}));
  for (size_t length = 0; length < whole.size(); ++length) {
    ExpectRefused(whole.substr(0, length), "cut at " + std::to_string(length));
  }
}

// The layout that the tests below damage: byte order, ok, kind (4 bytes), count (8), then each
// string as its length (8) and bytes.
constexpr size_t kOk = 1;
constexpr size_t kKind = 2;
constexpr size_t kCount = 6;
constexpr size_t kFirstLength = 14;

TEST(StatusCodec, RefusesAnUnknownKind) {
  const std::string good = SerializeStatus(Fail(ErrorKind::kUsage, "a", "b"));
  for (const std::string& kind :
       {std::string("\x07\0\0\0", 4), std::string("\xff\xff\xff\xff", 4)}) {
    ExpectRefused(std::string(good).replace(kKind, 4, kind), "kind");
  }
}

TEST(StatusCodec, RefusesAnErrorWithoutProblems) {
  std::string bytes = SerializeStatus(Fail(ErrorKind::kUsage, "a", "b"));
  bytes.resize(kFirstLength);
  ExpectRefused(bytes.replace(kCount, 8, std::string(8, '\0')), "no problems");
}

TEST(StatusCodec, RefusesImpossibleSizes) {
  const std::string good = SerializeStatus(Fail(ErrorKind::kUsage, "a", "b"));
  const std::string huge(8, '\x7f');
  ExpectRefused(std::string(good).replace(kCount, 8, huge), "count");
  ExpectRefused(std::string(good).replace(kFirstLength, 8, huge), "length");
}

TEST(StatusCodec, RefusesAFlagThatIsNeitherTrueNorFalse) {
  std::string bytes = SerializeStatus({});
  bytes[kOk] = 2;
  ExpectRefused(bytes, "flag");
}

TEST(StatusCodec, RefusesBytesAfterTheEnd) {
  ExpectRefused(SerializeStatus({}) + "x", "success");
  ExpectRefused(SerializeStatus(Fail(ErrorKind::kUsage, "a", "b")) + "x", "error");
}

}  // namespace
}  // namespace mergepipe
