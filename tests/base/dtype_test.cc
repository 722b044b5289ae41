#include "mergepipe/base/dtype.h"

#include <gtest/gtest.h>

#include <vector>

namespace mergepipe {
namespace {

struct Expected {
  DType dtype;
  int number;  // part of the codecs: must never change
  std::string_view name;
  uint64_t size;
  std::string_view torch_name;
};

const std::vector<Expected> kAll = {
    {DType::kF64, 0, "F64", 8, "float64"}, {DType::kF32, 1, "F32", 4, "float32"},
    {DType::kF16, 2, "F16", 2, "float16"}, {DType::kBF16, 3, "BF16", 2, "bfloat16"},
    {DType::kI64, 4, "I64", 8, ""},        {DType::kI32, 5, "I32", 4, ""},
    {DType::kI16, 6, "I16", 2, ""},        {DType::kI8, 7, "I8", 1, ""},
    {DType::kU64, 8, "U64", 8, ""},        {DType::kU32, 9, "U32", 4, ""},
    {DType::kU16, 10, "U16", 2, ""},       {DType::kU8, 11, "U8", 1, ""},
    {DType::kBool, 12, "BOOL", 1, ""},
};

TEST(DType, TableRoundTrip) {
  for (const Expected& row : kAll) {
    EXPECT_EQ(static_cast<int>(row.dtype), row.number) << row.name;
    EXPECT_EQ(DTypeName(row.dtype), row.name);
    EXPECT_EQ(ParseDType(row.name), row.dtype) << row.name;
    EXPECT_EQ(DTypeSize(row.dtype), row.size) << row.name;
    EXPECT_EQ(IsFloat(row.dtype), !row.torch_name.empty()) << row.name;
    if (!row.torch_name.empty()) {
      EXPECT_EQ(TorchName(row.dtype), row.torch_name);
    }
  }
}

TEST(DType, RefusesOtherNames) {
  for (const char* name : {"", "f32", "F8_E4M3", "F8_E5M2", "F4", "C64", "F32 ", "float32"}) {
    EXPECT_EQ(ParseDType(name), std::nullopt) << name;
  }
}

}  // namespace
}  // namespace mergepipe
