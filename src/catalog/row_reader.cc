#include "catalog/row_reader.h"

#include <utility>

namespace mergepipe {

RowReader::RowReader(const Connection& connection, const Statement& row, std::string place)
    : connection_(&connection), row_(&row), place_(std::move(place)) {}

int64_t RowReader::Signed() {
  const auto value = row_->Integer(column_++);
  if (!value) Reject("number");
  return value.value_or(0);
}

uint64_t RowReader::Unsigned() {
  const int64_t value = Signed();
  if (value >= 0) return static_cast<uint64_t>(value);
  Reject("size (negative)");
  return 0;
}

bool RowReader::Flag() {
  const int64_t value = Signed();
  if (value != 0 && value != 1) Reject("flag");
  return value == 1;
}

std::string RowReader::Text() {
  auto value = row_->Text(column_++);
  if (!value) Reject("text");
  return std::move(value).value_or("");
}

std::optional<std::string> RowReader::OptionalText() {
  if (!row_->IsNull(column_)) return Text();
  ++column_;
  return std::nullopt;
}

Hash128 RowReader::Hash() {
  const auto hash = Hash128::FromHex(Text());
  if (!hash) Reject("hash");
  return hash.value_or(Hash128{});
}

std::span<const std::byte> RowReader::Blob() {
  const auto value = row_->Blob(column_++);
  if (!value) Reject("value");
  return value.value_or(std::span<const std::byte>());
}

void RowReader::Reject(std::string_view what) {
  if (!problem_.empty()) return;
  problem_ = place_ + ", column " + std::to_string(column_) + ": not a valid " + std::string(what);
}

Status RowReader::status() const {
  if (problem_.empty()) return {};
  return Fail(connection_->Damaged(problem_));
}

}  // namespace mergepipe
