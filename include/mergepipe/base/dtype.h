#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace mergepipe {

/// Element types of stored tensors, by their safetensors names. The numbers are part of the codecs:
/// add at the end only.
enum class DType : uint8_t {
  kF64 = 0,
  kF32 = 1,
  kF16 = 2,
  kBF16 = 3,
  kI64 = 4,
  kI32 = 5,
  kI16 = 6,
  kI8 = 7,
  kU64 = 8,
  kU32 = 9,
  kU16 = 10,
  kU8 = 11,
  kBool = 12,
};

/// Bytes of one element: 8, 4, 2 or 1.
uint64_t DTypeSize(DType dtype);
/// "BF16", "F32", ...: the safetensors name.
std::string_view DTypeName(DType dtype);
/// The type of that safetensors name, or nothing if it is unknown or refused (FP8, FP4, complex).
std::optional<DType> ParseDType(std::string_view name);
/// Whether tensors of this type are merged (F64, F32, F16, BF16); the others are taken from the
/// base.
bool IsFloat(DType dtype);
/// "float32", "bfloat16", ...: the name that `torch_dtype` in config.json uses. Float types only.
std::string_view TorchName(DType dtype);

}  // namespace mergepipe
