#include "catalog/schema.h"

#include <iterator>
#include <string>

namespace mergepipe {
namespace {

// Migration i leads from schema i to schema i + 1. A published one is never edited: add at the end.
//
// Every table is STRICT. Hashes are lower-case hex. `inode` and `device` are the 64 bits as a
// signed number; all other numbers are not negative, but for `mtime_ns`. `position` counts from 0
// without holes. `shape` is the sizes in decimal, separated by commas; empty for rank 0. `checksum`
// covers what the row, and for a model its rows in the other tables, say: a catalog has no other
// protection against a changed byte inside a value. `data` is as statistics_codec.h says.
constexpr const char* kMigrations[] = {
    // 1: models, plans and runs.
    R"sql(
    CREATE TABLE models (
      key INTEGER PRIMARY KEY,
      id TEXT NOT NULL UNIQUE,
      path TEXT NOT NULL,
      directory TEXT NOT NULL,
      is_directory INTEGER NOT NULL,
      index_name TEXT,
      config_present INTEGER NOT NULL,
      tie_word_embeddings INTEGER NOT NULL,
      quantization TEXT NOT NULL,
      fingerprint TEXT NOT NULL,
      registered_at TEXT NOT NULL,
      checksum TEXT NOT NULL
    ) STRICT;
    CREATE INDEX models_by_path ON models (path);

    CREATE TABLE files (
      model INTEGER NOT NULL REFERENCES models ON DELETE CASCADE,
      position INTEGER NOT NULL,
      name TEXT NOT NULL,
      kind INTEGER NOT NULL,
      size INTEGER NOT NULL,
      mtime_ns INTEGER NOT NULL,
      inode INTEGER NOT NULL,
      device INTEGER NOT NULL,
      data_begin INTEGER NOT NULL,
      header_hash TEXT NOT NULL,
      PRIMARY KEY (model, position)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE file_metadata (
      model INTEGER NOT NULL REFERENCES models ON DELETE CASCADE,
      file INTEGER NOT NULL,
      name TEXT NOT NULL,
      value TEXT NOT NULL,
      PRIMARY KEY (model, file, name)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE tensors (
      model INTEGER NOT NULL REFERENCES models ON DELETE CASCADE,
      position INTEGER NOT NULL,
      name TEXT NOT NULL,
      dtype TEXT NOT NULL,
      shape TEXT NOT NULL,
      file INTEGER NOT NULL,
      offset INTEGER NOT NULL,
      PRIMARY KEY (model, position)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE plans (
      plan_id TEXT PRIMARY KEY NOT NULL,
      plan_hash TEXT NOT NULL,
      json TEXT NOT NULL,
      checksum TEXT NOT NULL
    ) STRICT;

    CREATE TABLE runs (
      key INTEGER PRIMARY KEY,
      run_id TEXT NOT NULL UNIQUE,
      plan_id TEXT NOT NULL,
      plan_hash TEXT NOT NULL,
      model_id TEXT NOT NULL,
      output_path TEXT NOT NULL,
      run_directory TEXT NOT NULL,
      manifest_hash TEXT NOT NULL,
      finished_at TEXT NOT NULL,
      checksum TEXT NOT NULL
    ) STRICT;
    CREATE INDEX runs_by_output ON runs (output_path, finished_at, key);
    )sql",
    // 2: statistics of blocks. A set without an expert is of the base itself. The keys are checked
    // at the end of a transaction, so that a model that is put again can take its sets along.
    // `statistics` has rowids: a search in a table without them loads the `data` of every row that
    // it compares.
    R"sql(
    CREATE TABLE statistics_sets (
      key INTEGER PRIMARY KEY,
      base INTEGER NOT NULL
        REFERENCES models ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
      expert INTEGER REFERENCES models ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
      block_size INTEGER NOT NULL,
      stride INTEGER NOT NULL
    ) STRICT;
    CREATE UNIQUE INDEX statistics_sets_by_models
      ON statistics_sets (base, expert, block_size, stride);
    CREATE INDEX statistics_sets_by_expert ON statistics_sets (expert);

    CREATE TABLE statistics (
      set_key INTEGER NOT NULL REFERENCES statistics_sets ON DELETE CASCADE,
      tensor INTEGER NOT NULL,
      chunk INTEGER NOT NULL,
      blocks INTEGER NOT NULL,
      checksum TEXT NOT NULL,
      data BLOB NOT NULL,
      UNIQUE (set_key, tensor, chunk)
    ) STRICT;
    )sql",
};

Status RunMigrations(Connection& connection, int64_t from, int64_t to) {
  for (int64_t version = from; version < to; ++version) {
    MERGEPIPE_RETURN_IF_ERROR(connection.Execute(kMigrations[version]));
  }
  return connection.Execute("PRAGMA user_version = " + std::to_string(to));
}

Status CheckNotNewer(const Connection& connection, int64_t version) {
  if (version > SchemaVersion()) {
    return Fail(ErrorKind::kBadInput, connection.subject(),
                "was made by a newer mergepipe (schema " + std::to_string(version) +
                    ", this one knows " + std::to_string(SchemaVersion()) + ")",
                "use that version or choose another --db");
  }
  return {};
}

}  // namespace

int64_t SchemaVersion() { return std::size(kMigrations); }

Status CreateSchema(Connection& connection, int64_t target) {
  MERGEPIPE_ASSIGN_OR_RETURN(auto transaction,
                             Transaction::Begin(connection, Transaction::Mode::kWrite));
  MERGEPIPE_RETURN_IF_ERROR(
      connection.Execute("PRAGMA application_id = " + std::to_string(kCatalogApplicationId)));
  MERGEPIPE_RETURN_IF_ERROR(RunMigrations(connection, 0, target));
  return transaction.Commit();
}

Status CheckIsCatalog(Connection& connection) {
  MERGEPIPE_ASSIGN_OR_RETURN(const int64_t application,
                             connection.QueryInteger("PRAGMA application_id"));
  if (application != kCatalogApplicationId) {
    return Fail(ErrorKind::kBadInput, connection.subject(),
                "is not a mergepipe catalog (application_id " + std::to_string(application) + ")",
                "choose another --db");
  }
  MERGEPIPE_ASSIGN_OR_RETURN(const int64_t version, connection.QueryInteger("PRAGMA user_version"));
  return CheckNotNewer(connection, version);
}

Status MigrateSchema(Connection& connection) {
  MERGEPIPE_ASSIGN_OR_RETURN(int64_t version, connection.QueryInteger("PRAGMA user_version"));
  if (version == SchemaVersion()) return {};
  MERGEPIPE_ASSIGN_OR_RETURN(auto transaction,
                             Transaction::Begin(connection, Transaction::Mode::kWrite));
  // Another process may have migrated it while this one waited for the lock.
  MERGEPIPE_ASSIGN_OR_RETURN(version, connection.QueryInteger("PRAGMA user_version"));
  MERGEPIPE_RETURN_IF_ERROR(CheckNotNewer(connection, version));
  if (version < 0) return Fail(connection.Damaged("schema number " + std::to_string(version)));
  MERGEPIPE_RETURN_IF_ERROR(RunMigrations(connection, version, SchemaVersion()));
  return transaction.Commit();
}

}  // namespace mergepipe
