#include "catalog/damaged_table.h"

#include <algorithm>
#include <utility>

namespace mergepipe {
namespace {

// Looking up a key takes a microsecond or so.
constexpr int64_t kMostCandidates = 1'000'000;
// Beyond the last key that was seen, when the end of a table is damaged.
constexpr int64_t kBeyond = 10'000;

/// A statement's rows up to the first error; false if there was one.
template <typename Take>
bool ForEachRow(Connection& connection, const std::string& sql, const Take& take) {
  auto rows = connection.Prepare(sql);
  if (!rows) return false;
  for (;;) {
    const auto more = rows->Step();
    if (!more) return false;
    if (!*more) return true;
    if (!take(*rows)) return false;
  }
}

/// The keys from one end, up to what cannot be read or is out of order (a page that appears twice).
struct Scan {
  std::vector<int64_t> keys;
  bool complete = false;
};
Scan ScanKeys(Connection& connection, const TableName& name, bool backwards) {
  Scan scan;
  const std::string sql = "SELECT " + name.key + " FROM " + name.table + " NOT INDEXED ORDER BY " +
                          name.key + (backwards ? " DESC" : "");
  scan.complete = ForEachRow(connection, sql, [&](const Statement& row) {
    const auto key = row.Integer(0);
    if (!key) return false;
    if (!scan.keys.empty() && (backwards ? *key >= scan.keys.back() : *key <= scan.keys.back())) {
      return false;
    }
    scan.keys.push_back(*key);
    return true;
  });
  return scan;
}

void AddIds(Connection& connection, const TableName& name, std::set<std::string>& ids) {
  const std::vector<std::string> ways = {" ORDER BY " + name.id, " ORDER BY " + name.id + " DESC",
                                         " NOT INDEXED",
                                         " NOT INDEXED ORDER BY " + name.key + " DESC"};
  for (const std::string& how : ways) {
    size_t rows = 0;
    const bool complete = ForEachRow(connection, "SELECT " + name.id + " FROM " + name.table + how,
                                     [&](const Statement& row) {
                                       if (auto id = row.Text(0)) ids.insert(*std::move(id));
                                       return ++rows < static_cast<size_t>(kMostCandidates);
                                     });
    if (complete) return;
  }
}

}  // namespace

DamagedTable LookAt(Connection& connection, const TableName& name) {
  DamagedTable found;
  if (!name.id.empty()) AddIds(connection, name, found.ids);
  Scan forwards = ScanKeys(connection, name, false);
  found.keys = std::move(forwards.keys);
  if (forwards.complete) return found;
  found.complete = false;
  Scan backwards = ScanKeys(connection, name, true);
  std::reverse(backwards.keys.begin(), backwards.keys.end());
  // Keys start from 1 and grow by one; other ones are damage.
  const int64_t begin = found.keys.empty() ? 1 : found.keys.back() + 1;
  const int64_t end =
      backwards.keys.empty() ? begin + kBeyond : std::max(begin, backwards.keys.front());
  for (int64_t key = begin; key < end && key - begin < kMostCandidates; ++key) {
    found.keys.push_back(key);
  }
  for (const int64_t key : backwards.keys) {
    if (found.keys.empty() || key > found.keys.back()) found.keys.push_back(key);
  }
  return found;
}

}  // namespace mergepipe
