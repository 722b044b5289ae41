#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "mergepipe/base/error.h"

struct sqlite3;
struct sqlite3_stmt;

/// \file
/// What the catalog needs of sqlite3, with results as values. Every error's subject is the
/// catalog's path.
namespace mergepipe {

class Connection;

/// A prepared statement; its connection keeps it for the next one with the same text. Must not
/// outlive its connection. Parameters and columns count from 1 and
/// 0, as sqlite3 counts them.
class Statement {
 public:
  /// Gives the values to ?1, ?2, ...; an error shows at the next Step.
  template <typename... Values>
  void Bind(const Values&... values) {
    int parameter = 0;
    (BindOne(++parameter, values), ...);
  }

  /// Goes to the next row; false after the last one.
  Result<bool> Step();
  /// Steps to the end, ignoring rows, and makes the statement ready for other values.
  Status Run();

  /// The column's value if it has that type in the current row: a damaged file holds anything.
  std::optional<int64_t> Integer(int column) const;
  std::optional<std::string> Text(int column) const;
  /// The bytes stay until the next Step.
  std::optional<std::span<const std::byte>> Blob(int column) const;
  bool IsNull(int column) const;

 private:
  friend class Connection;
  struct GiveBack {
    void operator()(sqlite3_stmt* statement) const;
    Connection* connection;
  };

  Statement(Connection* connection, sqlite3_stmt* statement);
  void BindOne(int parameter, int64_t value);
  void BindOne(int parameter, std::string_view value);
  void BindOne(int parameter, const std::string& value) {
    BindOne(parameter, std::string_view(value));
  }
  void BindOne(int parameter, const std::optional<std::string>& value);
  void BindOne(int parameter, std::span<const std::byte> value);
  void Note(int code);

  const Connection* connection_;
  std::unique_ptr<sqlite3_stmt, GiveBack> statement_;
  int bind_code_ = 0;
};

/// An open database file. For one thread at a time.
class Connection {
 public:
  /// How many times as long as all else a patient write waits.
  static constexpr int kPatience = 12;

  /// Opens `file`, which must exist, for writing, or for reading if the system allows no more.
  /// Nothing is read yet. `subject` is the path that errors name; `busy_timeout` is for each lock
  /// that another process has.
  static Result<std::unique_ptr<Connection>> Open(const std::string& file, std::string subject,
                                                  std::chrono::milliseconds busy_timeout);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  const std::string& subject() const { return subject_; }

  /// From here on what is whole can be read from a file that was cut, or whose schema is damaged in
  /// part: sqlite3 refuses the whole of it otherwise. Do not write then.
  void ReadDespiteDamage();

  Status Execute(const std::string& sql);
  Result<Statement> Prepare(std::string_view sql);
  /// The first column of the first row.
  Result<int64_t> QueryInteger(std::string_view sql);
  Result<std::string> QueryText(std::string_view sql);

  /// The error for a sqlite3 result code that this connection just gave.
  Error Describe(int code) const;
  /// kBadInput: the file's content is not what this program wrote. Only the last line of `detail`
  /// is told.
  Error Damaged(std::string_view detail) const;

 private:
  friend class Statement;
  friend class Transaction;
  Connection(sqlite3* db, std::string subject, std::chrono::milliseconds busy_timeout);

  void Keep(sqlite3_stmt* statement);
  void WaitForLocks(std::chrono::milliseconds longest);

  sqlite3* db_;
  std::string subject_;
  std::chrono::milliseconds busy_timeout_;
  std::map<std::string, sqlite3_stmt*, std::less<>> idle_;  // by their text
};

/// A transaction that is rolled back unless it was committed.
class Transaction {
 public:
  enum class Mode {
    kRead,   ///< one snapshot for several statements
    kWrite,  ///< takes the write lock at once, so that no later statement can find it taken
    /// kWrite for what took long to make: waits Connection::kPatience times as long for each lock,
    /// that of the commit too.
    kPatientWrite,
  };

  static Result<Transaction> Begin(Connection& connection, Mode mode);
  ~Transaction();
  Transaction(Transaction&& other) noexcept;
  Transaction& operator=(Transaction&&) = delete;

  Status Commit();

 private:
  explicit Transaction(Connection* connection) : connection_(connection) {}

  Connection* connection_;
};

}  // namespace mergepipe
