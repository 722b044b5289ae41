#pragma once

#include <cmath>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "mergepipe/plan/plan.h"

/// \file
/// What the JSON records of a merge (plan.json, manifest.json) have in common. A record is
/// canonical text: sorted keys, one space of indent, shortest round-trip numbers, a newline at the
/// end; it states its own SHA-256, taken over its compact form without the fields that state it. So
/// any changed byte shows.
namespace mergepipe::record {

using Json = nlohmann::json;

/// Thrown by the readers below; ReadRecord turns it into an Error.
struct Malformed : std::runtime_error {
  using std::runtime_error::runtime_error;
};
void Require(bool condition, const std::string& what);

/// The value itself, which must be an array.
const Json& Array(const Json& value);
uint64_t Unsigned(const Json& value, const char* what);
double Finite(const Json& value, const char* what);
Hash128 Hash(const Json& value);
DType Type(const Json& value);
/// One of two words; true for the first.
bool Choice(const Json& value, const char* yes, const char* no);
/// A shape of at most kMaxRank dimensions whose tensor fits into 2^64 bits.
std::vector<uint64_t> Shape(const Json& value);
/// Adds a tensor's (block, expert) pairs to those counted; no more than kMaxBlocks in all. Call it
/// before sets of its blocks are read: each takes a bit a block, however short its text.
void CountPairs(uint64_t blocks, uint64_t experts, uint64_t& pairs);
/// A SHA-256, as 64 hex digits.
std::string HexHash(const Json& value);
PlannedModel Model(const Json& value);
std::vector<PlannedModel> Models(const Json& value);
std::vector<DroppedTensor> Dropped(const Json& value, size_t experts);
TensorRule Rule(const Json& value);

/// null, or {unread, rounding, total}.
std::optional<ErrorBound> Bound(const Json& value);

Json ToJson(const PlannedModel& model);
Json ToJson(const std::vector<PlannedModel>& models);
Json ToJson(const std::vector<DroppedTensor>& dropped);
Json ToJson(TensorRule rule);
Json ToJson(const std::optional<ErrorBound>& bound);

/// Objects and arrays within one another: comparing and writing JSON recurse.
inline constexpr int kMaxDepth = 64;
/// Whether a JSON text is nested deeper.
bool TooDeep(std::string_view text);

/// How a kind of record names itself and its hash.
struct Kind {
  const char* name;      ///< "plan": "mergepipe.plan/1" is its schema
  const char* hash_key;  ///< field with the SHA-256
  const char* id_key;    ///< field with its first 16 digits, or null
  std::string Schema() const { return std::string("mergepipe.") + name + "/1"; }
};

/// SHA-256 of the record without the fields that state it.
std::string HashOf(const Kind& kind, Json json);
/// The file's text, with schema and hash filled in.
std::string ToText(const Kind& kind, Json json);
/// Checks text, schema and hash, then calls `read`. kVerification if the text is damaged; kBadInput
/// if it is of another version or does not hold together.
Status ReadRecord(const Kind& kind, const std::string& text, const std::string& subject,
                  const std::function<void(const Json&)>& read);

}  // namespace mergepipe::record
