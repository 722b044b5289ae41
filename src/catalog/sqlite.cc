#include "catalog/sqlite.h"

#include <sqlite3.h>

#include <cerrno>
#include <utility>

#include "mergepipe/base/checked.h"
#include "mergepipe/base/text.h"

namespace mergepipe {
namespace {

Error DescribeIo(int errno_value, const std::string& subject, const char* text) {
  if (errno_value == ENOLCK || errno_value == EOPNOTSUPP) {
    return Error(ErrorKind::kIo, subject, "its filesystem gives no file locks",
                 "choose a --db on another filesystem");
  }
  if (errno_value != 0) return SystemError(errno_value, subject, "access it or its journal");
  return Error(ErrorKind::kIo, subject, std::string("cannot access it or its journal: ") + text,
               "check the disk or the filesystem, and run the same command again");
}

}  // namespace

Statement::Statement(Connection* connection, sqlite3_stmt* statement)
    : connection_(connection), statement_(statement, GiveBack{connection}) {}

void Statement::GiveBack::operator()(sqlite3_stmt* statement) const { connection->Keep(statement); }

void Statement::Note(int code) {
  if (bind_code_ == SQLITE_OK) bind_code_ = code;
}

void Statement::BindOne(int parameter, int64_t value) {
  Note(sqlite3_bind_int64(statement_.get(), parameter, value));
}

void Statement::BindOne(int parameter, std::string_view value) {
  // A null pointer would bind NULL, not the empty text.
  const char* data = value.empty() ? "" : value.data();
  Note(sqlite3_bind_text64(statement_.get(), parameter, data, value.size(), SQLITE_TRANSIENT,
                           SQLITE_UTF8));
}

void Statement::BindOne(int parameter, const std::optional<std::string>& value) {
  if (value) {
    BindOne(parameter, std::string_view(*value));
  } else {
    Note(sqlite3_bind_null(statement_.get(), parameter));
  }
}

void Statement::BindOne(int parameter, std::span<const std::byte> value) {
  const void* data = value.empty() ? static_cast<const void*>("") : value.data();
  Note(sqlite3_bind_blob64(statement_.get(), parameter, data, value.size(), SQLITE_TRANSIENT));
}

Result<bool> Statement::Step() {
  if (bind_code_ != SQLITE_OK) return Fail(connection_->Describe(bind_code_));
  const int code = sqlite3_step(statement_.get());
  if (code == SQLITE_ROW) return true;
  if (code == SQLITE_DONE) return false;
  return Fail(connection_->Describe(code));
}

Status Statement::Run() {
  for (bool more = true; more;) {
    MERGEPIPE_ASSIGN_OR_RETURN(more, Step());
  }
  sqlite3_reset(statement_.get());  // repeats the code of the last step, which was no error
  return {};
}

std::optional<int64_t> Statement::Integer(int column) const {
  if (sqlite3_column_type(statement_.get(), column) != SQLITE_INTEGER) return std::nullopt;
  return sqlite3_column_int64(statement_.get(), column);
}

std::optional<std::string> Statement::Text(int column) const {
  if (sqlite3_column_type(statement_.get(), column) != SQLITE_TEXT) return std::nullopt;
  const auto* text = reinterpret_cast<const char*>(sqlite3_column_text(statement_.get(), column));
  const auto size = Narrow<size_t>(sqlite3_column_bytes(statement_.get(), column));
  if (text == nullptr || !size) return std::nullopt;
  return std::string(text, *size);
}

std::optional<std::span<const std::byte>> Statement::Blob(int column) const {
  if (sqlite3_column_type(statement_.get(), column) != SQLITE_BLOB) return std::nullopt;
  const auto* data = static_cast<const std::byte*>(sqlite3_column_blob(statement_.get(), column));
  const auto size = Narrow<size_t>(sqlite3_column_bytes(statement_.get(), column));
  // No bytes come as a null pointer, and so do some that could not be read.
  if (!size || (data == nullptr && *size != 0)) return std::nullopt;
  return std::span(data, *size);
}

bool Statement::IsNull(int column) const {
  return sqlite3_column_type(statement_.get(), column) == SQLITE_NULL;
}

Connection::Connection(sqlite3* db, std::string subject, std::chrono::milliseconds busy_timeout)
    : db_(db), subject_(std::move(subject)), busy_timeout_(busy_timeout) {}

Connection::~Connection() {
  for (const auto& [sql, statement] : idle_) sqlite3_finalize(statement);
  sqlite3_close_v2(db_);
}

void Connection::Keep(sqlite3_stmt* statement) {
  const bool good = sqlite3_reset(statement) == SQLITE_OK;
  sqlite3_clear_bindings(statement);  // frees large values
  const char* sql = good ? sqlite3_sql(statement) : nullptr;
  if (sql == nullptr || !idle_.emplace(sql, statement).second) sqlite3_finalize(statement);
}

Result<std::unique_ptr<Connection>> Connection::Open(const std::string& file, std::string subject,
                                                     std::chrono::milliseconds busy_timeout) {
  sqlite3* db = nullptr;
  const int code =
      sqlite3_open_v2(file.c_str(), &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_EXRESCODE, nullptr);
  std::unique_ptr<Connection> connection(new Connection(db, std::move(subject), busy_timeout));
  if (code != SQLITE_OK) return Fail(connection->Describe(code));
  connection->WaitForLocks(busy_timeout);
  // The file may be anyone's: its schema gets no say in what our statements do.
  sqlite3_db_config(db, SQLITE_DBCONFIG_DEFENSIVE, 1, nullptr);
  sqlite3_db_config(db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, nullptr);
  sqlite3_db_config(db, SQLITE_DBCONFIG_ENABLE_TRIGGER, 0, nullptr);
  sqlite3_db_config(db, SQLITE_DBCONFIG_ENABLE_VIEW, 0, nullptr);
  return connection;
}

void Connection::WaitForLocks(std::chrono::milliseconds longest) {
  sqlite3_busy_timeout(db_, Narrow<int>(longest.count()).value_or(0));
}

void Connection::ReadDespiteDamage() {
  sqlite3_db_config(db_, SQLITE_DBCONFIG_DEFENSIVE, 0, nullptr);
  sqlite3_db_config(db_, SQLITE_DBCONFIG_WRITABLE_SCHEMA, 1, nullptr);
}

Status Connection::Execute(const std::string& sql) {
  const int code = sqlite3_exec(db_, sql.c_str(), nullptr, nullptr, nullptr);
  if (code != SQLITE_OK) return Fail(Describe(code));
  return {};
}

Result<Statement> Connection::Prepare(std::string_view sql) {
  if (const auto idle = idle_.find(sql); idle != idle_.end()) {
    return Statement(this, idle_.extract(idle).mapped());
  }
  const auto size = Narrow<int>(sql.size());
  if (!size) return Fail(ErrorKind::kInternal, subject_, "a statement is too long");
  sqlite3_stmt* statement = nullptr;
  const int code = sqlite3_prepare_v2(db_, sql.data(), *size, &statement, nullptr);
  if (code != SQLITE_OK) return Fail(Describe(code));
  return Statement(this, statement);
}

Result<int64_t> Connection::QueryInteger(std::string_view sql) {
  MERGEPIPE_ASSIGN_OR_RETURN(Statement query, Prepare(sql));
  MERGEPIPE_ASSIGN_OR_RETURN(const bool found, query.Step());
  const auto value = found ? query.Integer(0) : std::nullopt;
  if (!value) return Fail(Damaged("no number where one must be"));
  return *value;
}

Result<std::string> Connection::QueryText(std::string_view sql) {
  MERGEPIPE_ASSIGN_OR_RETURN(Statement query, Prepare(sql));
  MERGEPIPE_ASSIGN_OR_RETURN(const bool found, query.Step());
  auto value = found ? query.Text(0) : std::nullopt;
  if (!value) return Fail(Damaged("no text where one must be"));
  return *std::move(value);
}

Error Connection::Damaged(std::string_view detail) const {
  // sqlite3 heads some texts with a line that names the database.
  const std::string_view last_line = detail.substr(detail.rfind('\n') + 1);
  return Error(ErrorKind::kBadInput, subject_, "the catalog is damaged: " + std::string(last_line),
               "run `mergepipe recover --db " + Quote(subject_) + "`");
}

Error Connection::Describe(int code) const {
  if (db_ == nullptr) return SystemError(ENOMEM, subject_, "open it");
  const char* text = sqlite3_errmsg(db_);
  switch (code & 0xff) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
    case SQLITE_PROTOCOL:
      return Error(ErrorKind::kIo, subject_, "is locked by another process",
                   "wait for it or choose another --db");
    case SQLITE_NOTADB:
      return Error(ErrorKind::kBadInput, subject_,
                   "is not a mergepipe catalog: not an SQLite file, or its first bytes are damaged",
                   "choose another --db, or move the file away and run `mergepipe recover`");
    case SQLITE_ERROR:  // our statements are valid for the schema: so it is the schema that differs
    case SQLITE_SCHEMA:
    case SQLITE_FORMAT: return Damaged(text);
    case SQLITE_CORRUPT: {
      // sqlite3 says so too of a disk that cannot be read (SQLITE_IOERR_CORRUPTFS).
      int last_errno = 0;
      sqlite3_file_control(db_, "main", SQLITE_FCNTL_LAST_ERRNO, &last_errno);
      return last_errno != 0 ? DescribeIo(last_errno, subject_, text) : Damaged(text);
    }
    case SQLITE_READONLY:
      return Error(ErrorKind::kIo, subject_,
                   "cannot be written: the file or its folder is read-only",
                   "make both writable or choose another --db");
    case SQLITE_FULL: return SystemError(ENOSPC, subject_, "write");
    case SQLITE_NOMEM: return SystemError(ENOMEM, subject_, "access it");
    case SQLITE_IOERR:
    case SQLITE_CANTOPEN:
    case SQLITE_PERM:
    case SQLITE_AUTH:
    case SQLITE_NOLFS: return DescribeIo(sqlite3_system_errno(db_), subject_, text);
    default:
      return Error(ErrorKind::kInternal, subject_,
                   std::string(text) + " (sqlite code " + std::to_string(code) + ")");
  }
}

Result<Transaction> Transaction::Begin(Connection& connection, Mode mode) {
  const bool patient = mode == Mode::kPatientWrite;
  if (patient) connection.WaitForLocks(Connection::kPatience * connection.busy_timeout_);
  const Status begun = connection.Execute(mode == Mode::kRead ? "BEGIN" : "BEGIN IMMEDIATE");
  if (begun) return Transaction(&connection);
  connection.WaitForLocks(connection.busy_timeout_);
  return Fail(begun.error());
}

Transaction::Transaction(Transaction&& other) noexcept
    : connection_(std::exchange(other.connection_, nullptr)) {}

Transaction::~Transaction() {
  if (connection_ == nullptr) return;
  connection_->WaitForLocks(connection_->busy_timeout_);
  // Some failures have rolled back already.
  if (sqlite3_get_autocommit(connection_->db_) != 0) return;
  sqlite3_exec(connection_->db_, "ROLLBACK", nullptr, nullptr, nullptr);
}

Status Transaction::Commit() {
  MERGEPIPE_RETURN_IF_ERROR(connection_->Execute("COMMIT"));
  connection_->WaitForLocks(connection_->busy_timeout_);
  connection_ = nullptr;
  return {};
}

}  // namespace mergepipe
