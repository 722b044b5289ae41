#include "mergepipe/base/dtype.h"

#include <algorithm>
#include <array>

namespace mergepipe {
namespace {

struct Row {
  DType dtype;
  std::string_view name;
  uint64_t size;
  std::string_view torch_name;  // empty: not a float
};

constexpr std::array<Row, 13> kRows = {{
    {DType::kF64, "F64", 8, "float64"},
    {DType::kF32, "F32", 4, "float32"},
    {DType::kF16, "F16", 2, "float16"},
    {DType::kBF16, "BF16", 2, "bfloat16"},
    {DType::kI64, "I64", 8, ""},
    {DType::kI32, "I32", 4, ""},
    {DType::kI16, "I16", 2, ""},
    {DType::kI8, "I8", 1, ""},
    {DType::kU64, "U64", 8, ""},
    {DType::kU32, "U32", 4, ""},
    {DType::kU16, "U16", 2, ""},
    {DType::kU8, "U8", 1, ""},
    {DType::kBool, "BOOL", 1, ""},
}};

const Row& RowOf(DType dtype) { return kRows.at(static_cast<size_t>(dtype)); }

}  // namespace

uint64_t DTypeSize(DType dtype) { return RowOf(dtype).size; }

std::string_view DTypeName(DType dtype) { return RowOf(dtype).name; }

std::optional<DType> ParseDType(std::string_view name) {
  const auto* row = std::find_if(kRows.begin(), kRows.end(),
                                 [&](const Row& candidate) { return candidate.name == name; });
  if (row == kRows.end()) return std::nullopt;
  return row->dtype;
}

bool IsFloat(DType dtype) { return !RowOf(dtype).torch_name.empty(); }

std::string_view TorchName(DType dtype) { return RowOf(dtype).torch_name; }

}  // namespace mergepipe
